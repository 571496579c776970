//! Sends requests to the collector, and limits the size and duration of every response.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, ResponseBodyTooLarge};

/// The maximum length of a response from the collector, in bytes. A response is only a few bytes
/// unless the collector rejects part of the request.
const MAX_ANSWER: usize = 64 << 10;

/// Why a [`Sender`]'s last request failed; `None` if it succeeded.
pub(crate) type Failure = Arc<Mutex<Option<String>>>;

/// Creates the HTTP client. If that fails, returns the reason.
pub type Connect = Arc<dyn Fn() -> Result<reqwest::Client, String> + Send + Sync>;

/// Sends the requests of one exporter. The exporter's thread waits for the response.
pub(crate) struct Sender {
    connect: Connect,
    /// Created on the first request, because reading the system's certificates takes time.
    client: OnceLock<reqwest::Client>,
    timeout: Duration,
    failure: Failure,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    pub(crate) fn new(connect: Connect, timeout: Duration) -> (Self, Failure) {
        let failure = Failure::default();
        (Self { connect, client: OnceLock::new(), timeout, failure: Arc::clone(&failure) }, failure)
    }

    fn client(&self) -> Result<&reqwest::Client, HttpError> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => {
                let client = (self.connect)()?;
                Ok(self.client.get_or_init(|| client))
            }
        }
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<Response<Bytes>, HttpError> {
        let mut answer = self.client()?.execute(request).await?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Box::new(ResponseBodyTooLarge::new()));
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::builder().status(answer.status().as_u16());
        if let Some(wait) = answer.headers().get("retry-after") {
            response = response.header("retry-after", wait.as_bytes());
        }
        Ok(response.body(body.into())?)
    }

    fn send(&self, request: reqwest::Request) -> Result<Response<Bytes>, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exchanged =
            runtime.block_on(async { tokio::time::timeout(self.timeout, self.exchange(request)).await });
        // A DNS lookup may still be running.
        runtime.shutdown_background();
        exchanged.unwrap_or_else(|_| Err(format!("no complete response within {:?}", self.timeout).into()))
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request: reqwest::Request = request.try_into()?;
        let address = shown(request.url());
        let answered = self.send(request);
        let failure = match &answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("{address} answered {}", answer.status())),
            Err(error) => Some(format!("{address}: {}", cause(&**error))),
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        answered
    }
}

/// Returns the innermost cause, which is the informative part of reqwest's error chain.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    if error.is::<ResponseBodyTooLarge>() {
        return format!("the response is longer than {} KiB", MAX_ANSWER >> 10);
    }
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Returns a URL without its username, password and query.
fn shown(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}
