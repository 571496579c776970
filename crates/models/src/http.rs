//! A single HTTP connection policy for all servers: timeouts, proxies, TLS, keys, redirects, and
//! what failures mean.
//!
//! There is no overall timeout, because even a good answer from a local model may take minutes.
//! Instead, there are separate limits for connecting, for the first byte and for the silence
//! between bytes (docs/model-apis.md#client-policy). Redirects are never followed, so that a key
//! cannot leak to another host.
//!
//! Loopback addresses are reached directly. Other addresses are reached through the proxy in
//! [`Access`]; if it has none, reqwest honors `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and
//! `NO_PROXY`. A certificate is trusted if the system trusts it, if its issuer is in the file that
//! `SSL_CERT_FILE` points to, or if [`Access::authorities`] contains its issuer.

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

/// Maximum size, in bytes, of an error body or a metadata response. Responses from `/api/show`
/// contain entire licenses and vocabularies.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// How long to keep an idle connection to a local server open. uvicorn closes its connections after
/// 5 s, and a request on a closing connection fails.
const LOCAL_IDLE: Duration = Duration::from_secs(4);

/// How long to keep an idle connection to a hosted service open. The front ends of such services
/// keep idle connections for a minute or more, and a new connection takes several round trips.
const REMOTE_IDLE: Duration = Duration::from_secs(45);

/// The bytes of an answer as they arrive. Dropping the stream closes the connection.
pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// A secret that `Debug` does not reveal.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key and trims surrounding whitespace, which files and shells tend to add.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }

    /// Returns the secret itself.
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
    /// For connecting.
    pub connect: Duration,
    /// For the first byte of the body, measured from when the request is sent. It is also the
    /// longest silence allowed between that byte and the first piece of content. The server loads
    /// the model and evaluates the prompt during this time.
    pub first_byte: Duration,
    /// Between two reads of the body after the first piece of content. Comments in the stream also
    /// reset this timeout.
    pub idle: Duration,
}

impl Timeouts {
    /// Returns the timeouts for a server on this machine or the local network: 10 s to connect,
    /// 1800 s until the first byte, and 300 s of silence after that. Loading a 70B model from disk
    /// and evaluating a prompt on a CPU can take more than ten minutes.
    #[must_use]
    pub const fn local() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(1800),
            idle: Duration::from_secs(300),
        }
    }

    /// Returns the timeouts for a hosted service: 10 s to connect, 300 s until the first byte, and
    /// 300 s of silence after that.
    #[must_use]
    pub const fn remote() -> Self {
        Self { first_byte: Duration::from_secs(300), ..Self::local() }
    }

    /// Returns the timeouts for the host in `base`.
    #[must_use]
    pub fn for_base(base: &str) -> Self {
        if host::is_local(base) { Self::local() } else { Self::remote() }
    }
}

/// A base URL with a connection pool.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    /// The base URL as it appears in messages: without a trailing slash, credentials or a query.
    base: Arc<str>,
    /// `user:password@`, sent as basic authentication.
    user: Arc<str>,
    /// `?key=…`, sent with every request.
    query: Arc<str>,
    authorization: Option<HeaderValue>,
    /// The user's headers; they override the client's own.
    headers: HeaderMap,
    /// Whether the server is local. If so, a long silence means that the server is busy, not that
    /// it has failed.
    pub(crate) patient: bool,
    /// Secrets that must not appear in messages.
    secrets: Arc<[String]>,
    pub(crate) timeouts: Timeouts,
}

impl Http {
    pub(crate) fn new(base: &str, key: Option<&Secret>, access: &Access) -> Result<Self, Error> {
        let timeouts = access.timeouts(base);
        reject_bare_port(base)?;
        let (plain, query) = host::split_query(base);
        let user = host::user_of(plain);
        // Credentials in the address replace the key: they are for this server, whereas the key may
        // have been set for all servers.
        let authorization = key.filter(|_| user.is_empty()).map(bearer).transpose()?;
        // Short keys are not masked: for a server that accepts any key, people set a word such as
        // `ollama`, and masking that word would make messages unreadable.
        let worth_masking = |secret: &&str| secret.len() >= 8;
        let key = key.map(|key| key.0.as_str());
        let password = user.trim_end_matches('@').split(':').next_back();
        let asked = query.split(['?', '&']).filter_map(|pair| Some(pair.split_once('=')?.1));
        let secrets = key.into_iter().chain(password).chain(asked).chain(access.secrets());
        let secrets = secrets.filter(worth_masking);
        let secrets: Arc<[String]> = secrets.map(str::to_owned).collect();
        let client = client(base, timeouts.connect, access, redirect::Policy::none())?;
        let shown = host::shown(base).trim_end_matches('/').into();
        let (user, query, patient) = (user.into(), query.into(), host::is_local(base));
        let headers = access.header_map()?;
        Ok(Self { client, base: shown, user, query, authorization, headers, patient, secrets, timeouts })
    }

    /// Returns the base URL, which is safe to show.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request. Returns a successful response and the deadline for its first byte.
    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Option<Vec<u8>>,
        first_byte: Duration,
    ) -> Result<(Response, Instant), Failure> {
        let deadline = Instant::now() + first_byte;
        // Compression, whether by the server or by a proxy, would delay chunks that should arrive
        // immediately.
        let mut request = self.client.request(method, self.full(url)).header(ACCEPT_ENCODING, "identity");
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
            .map_err(|_| no_answer_within(url, first_byte))?
            .map_err(|why| no_answer(&self.base, why))?;
        if !response.status().is_success() {
            return Err(self.refusal(url, response).await);
        }
        if let Some(coding) = header(response.headers(), &CONTENT_ENCODING)
            && !coding.eq_ignore_ascii_case("identity")
        {
            return Err(Failure::Other(Error::Refused(format!(
                "{url} sent a compressed answer ({coding}) without being asked; turn compression off in the server or its proxy"
            ))));
        }
        Ok((response, deadline))
    }

    /// Returns the URL to send a request to, including credentials and query.
    fn full(&self, url: &str) -> String {
        let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
        format!("{scheme}{}{rest}{}", self.user, self.query)
    }

    /// Sends a request whose answer is streamed.
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

    /// Sends a metadata request and reads the whole JSON answer within `limit`.
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
            if text.is_empty() { Ok(Value::Null) } else { crate::frames::parse(text).map_err(Failure::Other) }
        };
        timeout(limit, answer).await.unwrap_or_else(|_| Err(no_answer_within(url, limit).into()))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn refusal(&self, url: &str, response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers());
        if status.is_redirection() {
            let target = header(headers, &LOCATION).map(host::shown);
            let target = target.as_deref().unwrap_or("an unnamed address");
            return Failure::Other(Error::Settings(format!(
                "{url} redirects to {target}; redirects are not followed, to protect the key: set the final address"
            )));
        }
        let retry_after = retry_after(headers, SystemTime::now());
        // Without a body, the status alone is still worth reporting.
        let body = timeout(Duration::from_secs(10), read(response));
        let body = body.await.ok().and_then(Result::ok).unwrap_or_default();
        let body = Box::new(Body::from_bytes(&self.masked(body)));
        let keyed = self.authorization.is_some() || !self.user.is_empty() || !self.headers.is_empty();
        Failure::Status { status: StatusCode::as_u16(&status), url: url.to_owned(), body, retry_after, keyed }
    }

    /// Masks our secrets in a body. Some servers echo the key that they refuse.
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

/// Creates a client for the host in `base`.
pub(crate) fn client(
    base: &str,
    connect: Duration,
    access: &Access,
    redirects: redirect::Policy,
) -> Result<reqwest::Client, Error> {
    built(builder(base, connect, access, redirects)?)
}

/// Creates a client for a server that is not a model server, such as a telemetry collector. It uses
/// the user's certificate authorities and proxy, but sends neither the user's headers nor the
/// client certificate. It does not follow redirects. It keeps no idle connections, because its
/// callers may use a new runtime for each request.
///
/// # Errors
/// If the proxy or a certificate is invalid.
pub fn plain_client(base: &str, connect: Duration, access: &Access) -> Result<reqwest::Client, Error> {
    let builder = builder(base, connect, &access.for_unnamed(), redirect::Policy::none())?;
    built(builder.pool_max_idle_per_host(0))
}

fn built(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    builder.build().map_err(|why| Error::Refused(format!("cannot set up the HTTP client: {}", chain(&why))))
}

fn builder(
    base: &str,
    connect: Duration,
    access: &Access,
    redirects: redirect::Policy,
) -> Result<reqwest::ClientBuilder, Error> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(connect)
        .redirect(redirects)
        .tcp_nodelay(true)
        .pool_idle_timeout(if host::is_local(base) { LOCAL_IDLE } else { REMOTE_IDLE })
        .user_agent(concat!("agent/", env!("CARGO_PKG_VERSION")));
    builder = access.apply(base, builder)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    if base.starts_with("https:") {
        // reqwest uses the process-wide provider. Keep the one that the program has installed, if
        // any.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = Arc::unwrap_or_clone(provider).install_default();
        }
    } else {
        // Without this, reqwest would read the system's certificates, which takes longer than a
        // local request.
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|why| Error::Refused(format!("cannot set up TLS: {why}")))?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder = builder.tls_backend_preconfigured(tls);
    }
    Ok(builder)
}

/// The timeouts that apply while an answer is being read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// The deadline for the first byte.
    pub(crate) deadline: Instant,
    /// The longest silence before the first piece of content.
    pub(crate) first_byte: Duration,
    /// The longest silence after the first piece of content.
    pub(crate) idle: Duration,
    /// Whether the server is local.
    pub(crate) patient: bool,
}

/// Returns the error for a request that got no answer.
pub(crate) fn no_answer(base: &str, why: reqwest::Error) -> Error {
    let why = why.without_url();
    if why.is_builder() {
        return Error::Settings(format!("{base} is not a valid address: {}", chain(&why)));
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
    Error::Transport(format!("the connection to {base} failed: {}", root(&why)))
}

pub(crate) fn no_answer_within(url: &str, limit: Duration) -> Error {
    Error::Timeout(format!("{url} did not answer within {} s", limit.as_secs_f64()))
}

/// Returns the error for an answer that did not start in time.
pub(crate) fn slow(why: String, patient: bool) -> Error {
    if !patient {
        return Error::Timeout(why);
    }
    Error::Slow(format!(
        "{why}; it may still be loading the model or evaluating the prompt, so the request is not retried: \
         allow more time with first_byte_seconds"
    ))
}

/// What to do about a proxy that requires credentials.
pub(crate) const PROXY_CREDENTIALS: &str = "the proxy requires credentials: set http://user:password@proxy in HTTP_PROXY, HTTPS_PROXY or your settings' `proxy`";

/// Rejects a bare port such as `11434`, which Ollama's own programs would parse as a host.
fn reject_bare_port(base: &str) -> Result<(), Error> {
    let host = host::host_of(base);
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_digit()) || host.parse::<u16>().is_err() {
        return Ok(());
    }
    Err(Error::Settings(format!("the address {host:?} is a host name without a port; did you mean :{host}?")))
}

fn header<'a>(headers: &'a HeaderMap, name: &reqwest::header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Returns the delay, in seconds, that a server asks for. The header holds a number or a date. A
/// date is compared with the server's own clock, if the response has a `Date` header.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
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
        .map_err(|_| Error::Settings(String::from("the API key contains invalid characters; check it")))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads an entire body. Fails if it is larger than [`MAX_BODY`].
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
                return Err(Error::Transport(format!(
                    "the connection failed during the answer: {}",
                    root(&why.without_url())
                )));
            }
        }
    }
}

fn whole_seconds(seconds: f64) -> u64 {
    // The cast saturates; the caller limits the wait.
    seconds.max(0.0).ceil() as u64
}

/// Returns the innermost cause, which is the informative part of reqwest's error chain.
pub(crate) fn root(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_read_in_seconds_or_as_a_date() {
        let seconds = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (reqwest::header::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            retry_after(&pairs.collect(), SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
        };
        let date = "Sun, 06 Nov 1994 08:49:50 GMT"; // 13 s after the time above
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
        // The server's clock, and therefore the date in `retry-after`, is an hour ahead of ours.
        let ahead =
            [("date", "Sun, 06 Nov 1994 09:49:30 GMT"), ("retry-after", "Sun, 06 Nov 1994 09:49:50 GMT")];
        assert_eq!(seconds(&ahead), Some(20));
        assert_eq!(seconds(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0), "already past");
    }
}
