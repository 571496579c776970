//! How to reach a server: timeouts, extra headers, certificates, a proxy, and what earlier runs
//! learned about the server.
//!
//! The user configures everything except what earlier runs learned. Headers and client certificates
//! are sent only to the server that the user named.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::memory::Memory;
use crate::{Error, Secret, Timeouts, host};

/// How to reach a server. By default, the usual timeouts for the host apply, and nothing else is
/// set.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Overrides the timeout for connecting.
    pub connect: Option<Duration>,
    /// Overrides the timeout for the first piece of an answer.
    pub first_byte: Option<Duration>,
    /// Overrides the timeout for silence in the middle of an answer.
    pub idle: Option<Duration>,
    /// Extra headers: names and values.
    pub headers: Vec<(String, Secret)>,
    /// CA certificates to trust in addition to the system's, in PEM format.
    pub authorities: Option<Vec<u8>>,
    /// The client certificate and its key, in PEM format.
    pub certificate: Option<Secret>,
    /// The proxy; overrides the environment.
    pub proxy: Option<Proxy>,
    /// What earlier runs learned about servers.
    pub memory: Memory,
    /// Is notified of each wait while a model is being opened.
    pub notices: Notices,
}

/// A proxy, and the hosts that bypass it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://user:password@host:port`
    pub url: Secret,
    /// The hosts that bypass the proxy, in the format of `NO_PROXY`.
    pub exceptions: Option<String>,
}

/// A callback that receives one sentence for each wait while a model is being opened.
#[derive(Clone, Default)]
pub struct Notices(Option<Tell>);

type Tell = Arc<dyn Fn(&str) + Send + Sync>;

impl Notices {
    /// Creates a callback that passes each sentence to `tell`.
    #[must_use]
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, sentence: &str) {
        if let Some(tell) = &self.0 {
            tell(sentence);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notices")
    }
}

impl Access {
    /// Returns the timeouts for a server.
    pub(crate) fn timeouts(&self, base: &str) -> Timeouts {
        self.over(Timeouts::for_base(base))
    }

    /// Returns the `usual` timeouts with the user's overrides applied.
    pub(crate) fn over(&self, usual: Timeouts) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(usual.connect),
            first_byte: self.first_byte.unwrap_or(usual.first_byte),
            idle: self.idle.unwrap_or(usual.idle),
        }
    }

    /// Returns a copy without headers or a client certificate, for servers that the user did not
    /// name.
    pub(crate) fn for_unnamed(&self) -> Self {
        Self { headers: Vec::new(), certificate: None, ..self.clone() }
    }

    pub(crate) fn header_map(&self) -> Result<HeaderMap, Error> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = |what: &str| Error::Settings(format!("the header {name:?} has {what}"));
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("an invalid name"))?;
            let mut value =
                HeaderValue::from_str(value.text()).map_err(|_| bad("an invalid character in its value"))?;
            value.set_sensitive(true);
            map.append(key, value);
        }
        Ok(map)
    }

    /// Adds the certificates and the proxy to a client for `base`.
    pub(crate) fn apply(
        &self,
        base: &str,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, Error> {
        let unreadable = |what: &str, why: String| Error::Settings(format!("cannot use {what}: {why}"));
        if base.starts_with("https:") {
            if let Some(pem) = &self.authorities {
                let authorities = reqwest::Certificate::from_pem_bundle(pem)
                    .map_err(|why| unreadable("the certificates in `ca_file`", crate::http::chain(&why)))?;
                if authorities.is_empty() {
                    return Err(Error::Settings(String::from(
                        "cannot use `ca_file`: it contains no certificate in PEM form",
                    )));
                }
                builder = builder.tls_certs_merge(authorities);
            }
            if let Some(pem) = &self.certificate {
                let identity = reqwest::Identity::from_pem(pem.text().as_bytes()).map_err(|_| {
                    Error::Settings(String::from(
                        "cannot use the client certificate: `client_cert_file` and `client_key_file` must hold \
                         a certificate and its private key, both in PEM form and without a passphrase",
                    ))
                })?;
                builder = builder.identity(identity);
            }
        }
        if host::is_loopback(base) {
            return Ok(builder.no_proxy());
        }
        let Some(proxy) = &self.proxy else { return Ok(builder) };
        let url = proxy.url.text();
        let shown = host::shown(url);
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::Settings(format!(
                "cannot use the proxy {shown}: only http:// and https:// proxies are supported"
            )));
        }
        let made = reqwest::Proxy::all(url).map_err(|_| {
            Error::Settings(format!("cannot use the proxy {shown}: it is not a valid address"))
        })?;
        let exceptions = proxy.exceptions.as_deref().and_then(reqwest::NoProxy::from_string);
        Ok(builder.proxy(made.no_proxy(exceptions)))
    }

    /// Returns the secrets that must not appear in messages: header values and the proxy's
    /// password.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let proxy = self.proxy.iter().map(|proxy| host::user_of(proxy.url.text()));
        let password =
            proxy.filter_map(|user| user.trim_end_matches('@').split_once(':')).map(|(_, word)| word);
        self.headers.iter().map(|(_, value)| value.text()).chain(password)
    }
}
