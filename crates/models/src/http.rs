//! One HTTP connection policy for all servers: timeouts, proxies, TLS, keys, redirects, and what a failure means.
//!
//! There is no total timeout, since a local model may take minutes for a good answer; instead connecting, the first byte and
//! the silence between bytes are bounded (wire reference 6.1). Redirects are never followed, so a key cannot travel to another host.
//!
//! Loopback addresses are reached directly. For the others the proxy of [`Access`] holds; without one reqwest follows `HTTP_PROXY`, `HTTPS_PROXY`,
//! `ALL_PROXY` and `NO_PROXY`. A certificate is trusted if the system trusts it, if its issuer is in the file named by `SSL_CERT_FILE`, or
//! if [`Access`] has its issuer.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION,
    RETRY_AFTER,
};
use reqwest::{Method, Response, StatusCode, redirect};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::{Body, Failure};
use crate::{Access, Error, host, tls};

/// The most of an error body or a metadata answer that is read, in bytes. `/api/show` carries whole licences and vocabularies.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// How long an idle connection is kept for the next request. Servers one runs oneself close theirs after 5 s (uvicorn), and a request
/// on a closing one fails.
const LOCAL_IDLE: Duration = Duration::from_secs(4);

/// The same for hosted services, whose front ends wait a minute and more, and where a new connection costs several round trips.
const REMOTE_IDLE: Duration = Duration::from_secs(45);

/// The bytes of an answer as they come. Dropping it closes the connection.
pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A key that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key; surrounding white space, which no key has but files and shells add, is removed.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }

    /// The key itself.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// From the request to the first byte of the answer's body, and from there for any silence before its first content: model load and
    /// prompt evaluation happen here.
    pub first_byte: Duration,
    /// Between two reads of the body, once there is content. Anything counts as life, comments too.
    pub idle: Duration,
}

impl Timeouts {
    /// For a server on this machine or network: 10 s, 1800 s, 300 s. A model of 70 billion parameters that has to be loaded from a disk and
    /// evaluates its prompt on a CPU takes more than ten minutes.
    #[must_use]
    pub const fn local() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(1800),
            idle: Duration::from_secs(300),
        }
    }

    /// For a hosted service: 10 s, 300 s, 300 s.
    #[must_use]
    pub const fn remote() -> Self {
        Self { first_byte: Duration::from_secs(300), ..Self::local() }
    }

    /// What suits the host of `base`.
    #[must_use]
    pub fn for_base(base: &str) -> Self {
        if host::is_local(base) { Self::local() } else { Self::remote() }
    }
}

/// A base URL with a connection pool.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    /// Without a trailing slash, credentials and query: what messages show.
    base: Arc<str>,
    /// `user:password@`, sent as basic authentication.
    user: Arc<str>,
    /// `?key=…`, sent with every request.
    query: Arc<str>,
    authorization: Option<HeaderValue>,
    /// Headers of the user's own; they win over ours.
    headers: HeaderMap,
    /// Whether the server is one's own, so that a long silence means work and not a fault.
    pub(crate) patient: bool,
    /// What no message may repeat.
    secrets: Arc<[String]>,
    pub(crate) timeouts: Timeouts,
}

impl Http {
    pub(crate) fn new(base: &str, key: Option<&Secret>, access: &Access) -> Result<Self, Error> {
        let timeouts = access.timeouts(base);
        no_port_as_host(base)?;
        let (plain, query) = host::split_query(base);
        let user = host::user_of(plain);
        // Credentials in the address are meant for this very server, a key may have been set for all.
        let authorization = key.filter(|_| user.is_empty()).map(bearer).transpose()?;
        // `ollama` or a blank is what people give where any key will do: masking that would make messages unreadable.
        let worth_masking = |secret: &&str| secret.len() >= 8;
        let key = key.map(|key| key.0.as_str());
        let password = user.trim_end_matches('@').split(':').next_back();
        let asked = query.split(['?', '&']).filter_map(|pair| Some(pair.split_once('=')?.1));
        let secrets = key.into_iter().chain(password).chain(asked).chain(access.secrets());
        let secrets = secrets.filter(worth_masking);
        let secrets: Arc<[String]> = secrets.map(str::to_owned).collect();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_idle_timeout(if host::is_local(base) { LOCAL_IDLE } else { REMOTE_IDLE })
            .user_agent(concat!("agent/", env!("CARGO_PKG_VERSION")));
        builder = access.apply(base, builder)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        if base.starts_with("https:") {
            // reqwest takes the provider from the process; one that the program installed before stays.
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                let _ = Arc::unwrap_or_clone(provider).install_default();
            }
        } else {
            // Without this reqwest reads the system's certificates, which takes longer than a local request.
            let tls = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|why| Error::Refused(format!("TLS could not be set up: {why}")))?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            builder = builder.tls_backend_preconfigured(tls);
        }
        let client = builder
            .build()
            .map_err(|why| Error::Refused(format!("the HTTP client could not be set up: {}", chain(&why))))?;
        let shown = host::shown(base).trim_end_matches('/').into();
        let (user, query, patient) = (user.into(), query.into(), host::is_local(base));
        let headers = access.header_map()?;
        Ok(Self { client, base: shown, user, query, authorization, headers, patient, secrets, timeouts })
    }

    /// The base as it may be shown.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request and returns the response with a successful status, and the time by which its first byte has to be there.
    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        first_byte: Duration,
    ) -> Result<(Response, Instant), Failure> {
        let deadline = Instant::now() + first_byte;
        // No answer is to be compressed, also not by a proxy: it would hold back what is to be read at once.
        let mut request = self.client.request(method, self.whole(url)).header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if !self.headers.is_empty() {
            request = request.headers(self.headers.clone());
        }
        let response = timeout_at(deadline, request.send())
            .await
            .map_err(|_| {
                Error::Timeout(format!("{url} did not answer within {} s", first_byte.as_secs_f64()))
            })?
            .map_err(|why| self.no_answer(why))?;
        if !response.status().is_success() {
            return Err(self.refusal(url, response).await);
        }
        if let Some(coding) = header(response.headers(), &CONTENT_ENCODING)
            && !coding.eq_ignore_ascii_case("identity")
        {
            return Err(Failure::Other(Error::Refused(format!(
                "{url} sent its answer compressed ({coding}) though that was not asked for: switch it off in the server or the proxy before it"
            ))));
        }
        Ok((response, deadline))
    }

    /// A URL as it is sent, with what is not shown of it.
    fn whole(&self, url: &str) -> String {
        let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
        format!("{scheme}{}{rest}{}", self.user, self.query)
    }

    /// Sends a request whose answer is a stream.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Result<(ByteStream, Waits), Failure> {
        let Timeouts { first_byte, idle, .. } = self.timeouts;
        let sent = self.send(Method::POST, &self.url(path), Some(body), first_byte).await;
        let (response, deadline) = sent.map_err(|failure| match failure {
            Failure::Other(Error::Timeout(why)) => Failure::Other(slow(why, self.patient)),
            other => other,
        })?;
        let waits = Waits { deadline, first_byte, idle, patient: self.patient };
        Ok((Box::pin(response.bytes_stream().map_err(|why| root(&why.without_url()))), waits))
    }

    /// A metadata request: the whole JSON answer within `limit`.
    pub(crate) async fn json(
        &self,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        limit: Duration,
    ) -> Result<Value, Failure> {
        let answer = async {
            let (response, _) = self.send(method, url, body, limit).await?;
            let text = read(response).await.map_err(Failure::Other)?;
            let text = text.trim_ascii();
            if text.is_empty() { Ok(Value::Null) } else { crate::ndjson::parse(text).map_err(Failure::Other) }
        };
        timeout(limit, answer).await.unwrap_or_else(|_| {
            let message = format!("{url} did not answer within {} s", limit.as_secs_f64());
            Err(Failure::Other(Error::Timeout(message)))
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn no_answer(&self, why: reqwest::Error) -> Error {
        let base = &self.base;
        let why = why.without_url();
        if why.is_builder() {
            return Error::Settings(format!("{base} is not a usable address: {}", chain(&why)));
        }
        if let Some(why) = tls::failure(&why) {
            return tls::meaning(base, why);
        }
        let words = chain(&why);
        if words.contains("proxy auth") {
            return Error::Settings(format!("no connection to {base}: {PROXY_CREDENTIALS}"));
        }
        if words.contains("unsupported scheme") {
            return Error::Settings(format!(
                "no connection to {base}: only http:// and https:// proxies are supported ({})",
                root(&why)
            ));
        }
        if words.contains("tunnel error") {
            return Error::Transport(format!("no connection to {base} through the proxy: {}", root(&why)));
        }
        if why.is_connect() {
            return Error::Transport(format!("no connection to {base}: {}", root(&why)));
        }
        Error::Transport(format!("the connection to {base} broke: {}", root(&why)))
    }

    async fn refusal(&self, url: &str, response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers());
        if status.is_redirection() {
            let target = header(headers, &LOCATION).map(host::shown);
            let target = target.as_deref().unwrap_or("somewhere it does not say");
            return Failure::Other(Error::Settings(format!(
                "{url} redirects to {target}; redirects are not followed, so that no key goes astray: name the right address"
            )));
        }
        let retry_after = retry_after(headers, SystemTime::now());
        // The status alone is worth reporting when the body does not come.
        let body = timeout(Duration::from_secs(10), read(response));
        let body = body.await.ok().and_then(Result::ok).unwrap_or_default();
        let body = Box::new(Body::from_bytes(&self.masked(body)));
        let keyed = self.authorization.is_some() || !self.user.is_empty() || !self.headers.is_empty();
        Failure::Status { status: StatusCode::as_u16(&status), url: url.to_owned(), body, retry_after, keyed }
    }

    /// A body without our secrets: some servers repeat the key they refuse.
    fn masked(&self, body: Vec<u8>) -> Vec<u8> {
        match std::str::from_utf8(&body) {
            Ok(text) if self.secrets.iter().any(|secret| text.contains(secret)) => self
                .secrets
                .iter()
                .fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
                .into_bytes(),
            _ => body,
        }
    }
}

/// The limits under which an answer is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// By when its first byte has to be there.
    pub(crate) deadline: Instant,
    /// The longest silence before its first content.
    pub(crate) first_byte: Duration,
    /// The longest silence after that.
    pub(crate) idle: Duration,
    /// Whether the server is one's own.
    pub(crate) patient: bool,
}

/// The error for an answer that did not begin in time.
pub(crate) fn slow(why: String, patient: bool) -> Error {
    if !patient {
        return Error::Timeout(why);
    }
    Error::Slow(format!(
        "{why}: it may still be loading the model or evaluating the prompt, so the request is not repeated; \
         allow more time with first_byte_seconds"
    ))
}

/// What to do when a proxy asks who is there.
pub(crate) const PROXY_CREDENTIALS: &str = "the proxy wants credentials: set http://user:password@proxy in HTTP_PROXY, HTTPS_PROXY or your settings' `proxy`";

/// Ollama's own programs read `11434` as a host, which nobody means.
fn no_port_as_host(base: &str) -> Result<(), Error> {
    let host = host::host_of(base);
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_digit()) || host.parse::<u16>().is_err() {
        return Ok(());
    }
    Err(Error::Settings(format!("the address {host:?} is a host name without a port; did you mean :{host}?")))
}

fn header<'a>(headers: &'a HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// The seconds that a server asks us to wait: as a number, or as a date, which is read against the server's own clock where it tells the time.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let milliseconds =
        headers.get("retry-after-ms").and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    if let Some(milliseconds) = milliseconds.filter(|number| number.is_finite()) {
        return Some(whole_seconds(milliseconds / 1000.0));
    }
    let value = header(headers, &RETRY_AFTER)?;
    if let Ok(seconds) = value.parse::<f64>() {
        return (!seconds.is_nan()).then(|| whole_seconds(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let now = header(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(whole_seconds(date.duration_since(now).unwrap_or_default().as_secs_f64()))
}

fn bearer(key: &Secret) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.0))
        .map_err(|_| Error::Settings(String::from("the API key has characters that no key has; check it")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a whole body up to [`MAX_BODY`].
async fn read(mut response: Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) if body.len() + bytes.len() > MAX_BODY => {
                return Err(Error::Protocol(format!("the server sent more than {MAX_BODY} bytes")));
            }
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => return Ok(body),
            Err(why) => {
                return Err(Error::Transport(format!("the answer broke off: {}", root(&why.without_url()))));
            }
        }
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    // Saturating: the caller bounds what it is willing to wait.
    seconds.max(0.0).ceil() as u64
}

/// The innermost cause: the part of reqwest's chain that says something.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_until_a_date() {
        let seconds = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (reqwest::header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            retry_after(&pairs.collect(), SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
        };
        let date = "Sun, 06 Nov 1994 08:49:50 GMT"; // 13 s after that moment
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&[("retry-after", " 7 ")]), Some(7));
        assert_eq!(seconds(&[("retry-after", "1.2")]), Some(2));
        assert_eq!(seconds(&[("retry-after", "-3")]), Some(0));
        assert_eq!(seconds(&[("retry-after", "1e300")]), Some(u64::MAX));
        assert_eq!(seconds(&[("retry-after", "NaN")]), None);
        assert_eq!(seconds(&[("retry-after", "soon")]), None);
        assert_eq!(seconds(&[("retry-after", date)]), Some(13));
        assert_eq!(seconds(&[("retry-after", "Sunday, 06-Nov-94 08:49:50 GMT")]), Some(13));
        assert_eq!(seconds(&[("retry-after", "Sun Nov  6 08:49:50 1994")]), Some(13));
        // The server's clock is an hour ahead of ours, and so is what it says.
        let ahead =
            [("date", "Sun, 06 Nov 1994 09:49:30 GMT"), ("retry-after", "Sun, 06 Nov 1994 09:49:50 GMT")];
        assert_eq!(seconds(&ahead), Some(20));
        assert_eq!(seconds(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0), "over already");
    }
}
