//! How a server is reached: time limits, extra headers, certificates, a proxy, and what earlier runs learned about it.
//!
//! Everything in here comes from the user. Headers and certificates go to the server that was named, and nowhere else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::memory::Memory;
use crate::{Error, Secret, Timeouts, host};

/// How to reach a server. The default is what suits the host, without anything extra.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The limit for connecting, in place of the usual one.
    pub connect: Option<Duration>,
    /// The limit for the first piece of an answer, in place of the usual one.
    pub first_byte: Option<Duration>,
    /// The limit for silence in the middle of an answer, in place of the usual one.
    pub idle: Option<Duration>,
    /// Extra headers: names and values.
    pub headers: Vec<(String, Secret)>,
    /// Certificates of authorities to trust beside the system's, as PEM.
    pub authorities: Option<Vec<u8>>,
    /// The client's own certificate and its key, as PEM.
    pub certificate: Option<Secret>,
    /// The proxy, in place of the one that the environment names.
    pub proxy: Option<Proxy>,
    /// Where what was learned about servers is kept.
    pub memory: Memory,
    /// Who is told of a wait while a model is opened.
    pub notices: Notices,
}

/// A proxy, and the hosts that are reached without it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://user:password@host:port`
    pub url: Secret,
    /// As `NO_PROXY` lists them.
    pub exceptions: Option<String>,
}

/// Receives one sentence for each wait before a model is open.
#[derive(Clone, Default)]
pub struct Notices(Option<Tell>);

type Tell = Arc<dyn Fn(&str) + Send + Sync>;

impl Notices {
    /// Calls `tell` with each sentence.
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
    /// The limits for a server.
    pub(crate) fn timeouts(&self, base: &str) -> Timeouts {
        self.over(Timeouts::for_base(base))
    }

    /// The user's own limits in place of these.
    pub(crate) fn over(&self, usual: Timeouts) -> Timeouts {
        Timeouts {
            connect: self.connect.unwrap_or(usual.connect),
            first_byte: self.first_byte.unwrap_or(usual.first_byte),
            idle: self.idle.unwrap_or(usual.idle),
        }
    }

    /// The same without what is meant for one server only: for servers that nobody named.
    pub(crate) fn for_strangers(&self) -> Self {
        Self { headers: Vec::new(), certificate: None, ..self.clone() }
    }

    pub(crate) fn header_map(&self) -> Result<HeaderMap, Error> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let bad = |what: &str| Error::Settings(format!("the header {name:?} has {what}"));
            let key =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("a name that no header has"))?;
            let mut value = HeaderValue::from_str(value.text())
                .map_err(|_| bad("a value with characters that no header may have"))?;
            value.set_sensitive(true);
            map.append(key, value);
        }
        Ok(map)
    }

    /// Adds certificates and proxy to a client for `base`.
    pub(crate) fn apply(
        &self,
        base: &str,
        mut builder: reqwest::ClientBuilder,
    ) -> Result<reqwest::ClientBuilder, Error> {
        let unreadable = |what: &str, why: String| Error::Settings(format!("cannot use {what}: {why}"));
        if base.starts_with("https:") {
            if let Some(pem) = &self.authorities {
                let authorities = reqwest::Certificate::from_pem_bundle(pem)
                    .map_err(|why| unreadable("the certificates of `ca_file`", crate::http::chain(&why)))?;
                if authorities.is_empty() {
                    return Err(Error::Settings(String::from(
                        "cannot use `ca_file`: it holds no certificate in PEM form",
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

    /// What no message may repeat: header values, and the proxy's password.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let proxy = self.proxy.iter().map(|proxy| host::user_of(proxy.url.text()));
        let password =
            proxy.filter_map(|user| user.trim_end_matches('@').split_once(':')).map(|(_, word)| word);
        self.headers.iter().map(|(_, value)| value.text()).chain(password)
    }
}
