//! A TLS server with a generated certificate: valid, expired, or for another host. It answers every
//! request with status 401, which a client sees only if it accepts the certificate.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const ANSWER: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// How long to wait for a client. No test should ever reach this limit.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kind of certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// Valid, for clients that trust its issuer.
    Good,
    /// Expired in 2001.
    Expired,
    /// For another host.
    OtherHost,
    /// Valid, but clients must present a certificate from the same issuer.
    Mutual,
}

/// A TLS server on 127.0.0.1. Dropping it stops it.
pub struct TlsServer {
    address: SocketAddr,
    issuer: String,
    client: (String, String),
    requests: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TlsServer {
    /// Starts a server with this kind of certificate, issued by a generated authority.
    ///
    /// # Panics
    /// Panics if no port or thread is available.
    pub fn start(certificate: Certificate) -> Self {
        match Self::try_start(certificate) {
            Ok(server) => server,
            Err(problem) => panic!("the fake TLS server cannot start: {problem}"),
        }
    }

    fn try_start(certificate: Certificate) -> Result<Self, Box<dyn Error>> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let own = authority.self_signed(&authority_key)?;
        let (issuer, root) = (own.pem(), own.der().clone());
        let name = if certificate == Certificate::OtherHost { "elsewhere.example" } else { "127.0.0.1" };
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        if certificate == Certificate::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate()?;
        let authority = Issuer::new(authority, authority_key);
        let signed = params.signed_by(&key, &authority)?;
        let client_key = KeyPair::generate()?;
        let mut client = CertificateParams::new(vec!["client.example".to_owned()])?;
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client = (client.signed_by(&client_key, &authority)?.pem(), client_key.serialize_pem());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match certificate {
            Certificate::Mutual => {
                let mut roots = RootCertStore::empty();
                roots.add(root)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                config.with_client_cert_verifier(verifier)
            }
            _ => config.with_no_client_auth(),
        };
        let config = config
            .with_single_cert(vec![signed.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (requests, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop, config) = (Arc::clone(&requests), Arc::clone(&stopped), Arc::new(config));
        let thread = std::thread::Builder::new().name("fake-tls".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                // A client that refuses the certificate disconnects.
                if serve(stream, &config).is_ok() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
        })?;
        Ok(Self { address, issuer, client, requests, stopped, thread: Some(thread) })
    }

    /// Returns `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the authority's certificate, as PEM. A client that trusts it trusts the server.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns a client certificate from the same authority and its key, as PEM.
    pub fn client(&self) -> (&str, &str) {
        (&self.client.0, &self.client.1)
    }

    /// Returns how many requests were answered.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address)); // wakes the thread, so that it stops
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads the head of one request and answers it.
fn serve(stream: TcpStream, config: &Arc<ServerConfig>) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Err("closed".into()),
            read => head.extend_from_slice(&piece[..read]),
        }
    }
    stream.write_all(ANSWER)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
