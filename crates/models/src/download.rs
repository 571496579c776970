//! Downloads large files over HTTP, using the TLS roots, proxy and timeouts from [`Access`].
//!
//! The user's keys, headers and client certificates are not sent, because the host is not the
//! user's server. This makes it safe to follow redirects, which model hubs rely on. Only redirects
//! from `https` to `http` are refused.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Response, redirect};
use tokio::time::timeout;

use crate::{Access, Error, host, http};

/// How long a server may stay silent, unless [`Access::idle`] overrides it.
const IDLE: Duration = Duration::from_secs(60);
/// Maximum number of redirects per request. Hubs need two.
const MAX_REDIRECTS: usize = 10;

/// A file, or part of one, as it arrives.
pub struct Download {
    /// The offset of the first byte: the requested one, or 0 if the server sends the whole file.
    pub from: u64,
    /// The size of the whole file, in bytes, if the server reports it.
    pub total: Option<u64>,
    /// The bytes. A lost connection is an error, unless the server did not report a length.
    pub bytes: ByteStream,
}

/// The bytes of a download.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Requests a file, starting at the offset `from`. `accept` is the media type to request from
/// servers that offer several.
///
/// # Errors
/// If the server cannot be reached, is silent for too long, or refuses the request.
pub async fn get(url: &str, accept: Option<&str>, from: u64, access: &Access) -> Result<Download, Error> {
    let access = access.for_unnamed();
    let idle = access.idle.unwrap_or(IDLE);
    let client = http::client(url, access.timeouts(url).connect, &access, redirects())?;
    let mut request = client.get(url).header(ACCEPT_ENCODING, "identity");
    if let Some(accept) = accept {
        request = request.header(ACCEPT, accept);
    }
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    let shown = host::shown(url);
    let sent = timeout(idle, request.send()).await.map_err(|_| http::no_answer_within(&shown, idle))?;
    let response = sent.map_err(|why| {
        // A redirect may have led to another host.
        let base = host::shown(why.url().map_or(url, |url| url.as_str()));
        http::no_answer(&base, why)
    })?;
    let (from, total) =
        range(&response, from).map_err(|status| refusal(&shown, status, response.headers()))?;
    Ok(Download { from, total, bytes: body(response, shown, idle) })
}

/// Requests a document and reads all of it, up to `limit` bytes.
///
/// # Errors
/// If [`get`] fails, the download is interrupted, or the document is larger than `limit`.
pub async fn read(url: &str, accept: &str, limit: usize, access: &Access) -> Result<Vec<u8>, Error> {
    let mut download = get(url, Some(accept), 0, access).await?;
    let mut document = Vec::new();
    while let Some(bytes) = download.bytes.next().await {
        document.extend_from_slice(&bytes?);
        if document.len() > limit {
            return Err(Error::Protocol(format!("{} sent more than {limit} bytes", host::shown(url))));
        }
    }
    Ok(document)
}

/// Resolves a link in the document at `base`. A link to the same host keeps the credentials of
/// `base`.
#[must_use]
pub fn resolve(base: &str, link: &str) -> Option<String> {
    let base = reqwest::Url::parse(base).ok()?;
    let mut url = base.join(link).ok()?;
    if url.origin() == base.origin() && url.username().is_empty() && !base.username().is_empty() {
        url.set_username(base.username()).ok()?;
        url.set_password(base.password()).ok()?;
    }
    url.set_fragment(None);
    matches!(url.scheme(), "http" | "https").then(|| url.into())
}

fn redirects() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let downgraded = attempt.url().scheme() == "http"
            && attempt.previous().last().is_some_and(|before| before.scheme() == "https");
        if downgraded {
            attempt.error("it redirects from https to http")
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("there are too many redirects")
        } else {
            attempt.follow()
        }
    })
}

/// Returns the offset of the first byte and the size of the file, or the status of a refusal.
fn range(response: &Response, asked: u64) -> Result<(u64, Option<u64>), u16> {
    let header = |name| response.headers().get(name)?.to_str().ok();
    match response.status().as_u16() {
        206 => {
            // bytes 100-199/200
            let range = header(CONTENT_RANGE).and_then(|range| range.trim().strip_prefix("bytes "));
            let (first, total) = range.and_then(|range| range.split_once('/')).unwrap_or_default();
            let first = first.split('-').next().and_then(|first| first.trim().parse().ok());
            Ok((first.unwrap_or(asked), total.trim().parse().ok()))
        }
        status if response.status().is_success() && status != 204 => {
            Ok((0, header(CONTENT_LENGTH).and_then(|length| length.trim().parse().ok())))
        }
        status => Err(status),
    }
}

fn refusal(url: &str, status: u16, headers: &HeaderMap) -> Error {
    let message = format!("{url} answered {status}");
    match status {
        407 => Error::Settings(format!("{message}; {}", http::PROXY_CREDENTIALS)),
        408 | 429 | 500..=599 => {
            Error::Unavailable { message, retry_after: http::retry_after(headers, SystemTime::now()) }
        }
        _ => Error::Refused(message),
    }
}

fn body(response: Response, url: String, idle: Duration) -> ByteStream {
    Box::pin(stream::unfold(Some((response, url)), move |state| async move {
        let (mut response, url) = state?;
        let error = match timeout(idle, response.chunk()).await {
            Ok(Ok(Some(bytes))) => return Some((Ok(bytes), Some((response, url)))),
            Ok(Ok(None)) => return None,
            Ok(Err(why)) => Error::Transport(format!(
                "the connection to {url} failed: {}",
                http::root(&why.without_url())
            )),
            Err(_) => Error::Timeout(format!("{url} sent nothing for {} s", idle.as_secs_f64())),
        };
        Some((Err(error), None))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_and_credentials_stay_with_their_host() {
        for (base, link, url) in [
            ("http://h/simple/p/", "https://files/x.whl#sha256=0", Some("https://files/x.whl")),
            ("http://h:1/simple/p/", "../../files/x.whl", Some("http://h:1/files/x.whl")),
            ("http://u:p@h/simple/p/", "/x.whl", Some("http://u:p@h/x.whl")),
            ("http://u:p@h/simple/p/", "http://h/x.whl", Some("http://u:p@h/x.whl")),
            ("http://u:p@h/simple/p/", "http://h:2/x.whl", Some("http://h:2/x.whl")),
            ("http://u:p@h/simple/p/", "https://h/x.whl", Some("https://h/x.whl")),
            ("http://h/simple/p/", "file:///etc/passwd", None),
            ("not a url", "x", None),
        ] {
            assert_eq!(resolve(base, link).as_deref(), url, "{base} {link}");
        }
    }
}
