//! One HTTP connection policy for all servers: timeouts, proxies, TLS, keys, redirects, and what a failure means.
//!
//! There is no total timeout, since a local model may take minutes for a good answer; instead connecting, the first byte and
//! the silence between bytes are bounded (wire reference 6.1). Redirects are never followed, so a key cannot travel to another host.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::failure::{Body, Failure};
use crate::{Error, host};

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
    /// From the request to the first byte of the answer's body: model load and prompt evaluation happen here.
    pub first_byte: Duration,
    /// Between two reads of the body. Anything counts as life, comments too.
    pub idle: Duration,
}

impl Timeouts {
    /// For a server on this machine or network, which may have to load a model first: 10 s, 600 s, 300 s.
    #[must_use]
    pub const fn local() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(600),
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
    /// Without a trailing slash.
    base: Arc<str>,
    authorization: Option<reqwest::header::HeaderValue>,
    pub(crate) timeouts: Timeouts,
}

impl Http {
    pub(crate) fn new(base: &str, key: Option<&Secret>, timeouts: Timeouts) -> Result<Self, Error> {
        let authorization = key.map(bearer).transpose()?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(timeouts.connect)
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .pool_idle_timeout(if host::is_local(base) { LOCAL_IDLE } else { REMOTE_IDLE })
            .user_agent(concat!("agent/", env!("CARGO_PKG_VERSION")));
        if host::is_loopback(base) {
            builder = builder.no_proxy();
        }
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
        Ok(Self { client, base: base.trim_end_matches('/').into(), authorization, timeouts })
    }

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
        let mut request = self.client.request(method, url);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = timeout_at(deadline, request.send())
            .await
            .map_err(|_| {
                Error::Timeout(format!("{url} did not answer within {} s", first_byte.as_secs_f64()))
            })?
            .map_err(|why| self.no_answer(&why))?;
        if response.status().is_success() {
            return Ok((response, deadline));
        }
        Err(refusal(response).await)
    }

    /// Sends a request whose answer is a stream.
    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Result<(ByteStream, Instant), Failure> {
        let first_byte = self.timeouts.first_byte;
        let (response, deadline) = self.send(Method::POST, &self.url(path), Some(body), first_byte).await?;
        Ok((Box::pin(response.bytes_stream().map_err(|why| root(&why))), deadline))
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

    fn no_answer(&self, why: &reqwest::Error) -> Error {
        let base = &self.base;
        if why.is_builder() {
            return Error::Refused(format!("{base} is not a usable address: {}", chain(why)));
        }
        if why.is_connect() {
            return Error::Transport(format!("no connection to {base}: {}", root(why)));
        }
        Error::Transport(format!("the connection to {base} broke: {}", root(why)))
    }
}

fn bearer(key: &Secret) -> Result<reqwest::header::HeaderValue, Error> {
    let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", key.0))
        .map_err(|_| Error::Refused(String::from("the API key has characters that no key has; check it")))?;
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
            Err(why) => return Err(Error::Transport(format!("the answer broke off: {}", root(&why)))),
        }
    }
}

async fn refusal(response: Response) -> Failure {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if status.is_redirection() {
        let target = header(LOCATION).unwrap_or("somewhere it does not say").to_owned();
        return Failure::Other(Error::Refused(format!(
            "{} redirects to {target}; redirects are not followed, name the right address",
            response.url()
        )));
    }
    let retry_after =
        header(RETRY_AFTER).and_then(|value| value.trim().parse::<f64>().ok()).map(whole_seconds);
    let url = response.url().to_string();
    // The status alone is worth reporting when the body does not come.
    let body =
        timeout(Duration::from_secs(10), read(response)).await.ok().and_then(Result::ok).unwrap_or_default();
    let body = Box::new(Body::from_bytes(&body));
    Failure::Status { status: StatusCode::as_u16(&status), url, body, retry_after }
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

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
