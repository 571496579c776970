//! Connects commands to the hosts that the policy allows. This is an HTTP proxy that runs in the
//! agent, on a socket that the launcher creates in the command's network namespace.
//!
//! A socket belongs to the network namespace it was created in, no matter which process holds it.
//! Commands can reach only this socket, on their loopback interface. The agent, which is outside
//! that namespace, accepts the connections and decides which requests to allow. It resolves names
//! itself. Regardless of what a name resolves to, the agent connects only to Internet addresses and
//! to addresses that the policy lists. It serves one request per connection. Refusals are recorded
//! and reported in the command's result.
//!
//! Traffic through a tunnel is not inspected, since it is usually encrypted for the target host.

mod request;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, sink},
    net::{TcpListener, TcpStream, lookup_host},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::hosts::{Host, Target, is_public};
use request::{Kind, MAX_HEAD, Request};

/// The proxy's port in the command's network namespace. Linux never assigns this port
/// automatically.
pub(crate) const PORT: u16 = 61_080;

/// The maximum number of simultaneous connections. At two descriptors each, they take up a quarter
/// of the usual limit of 1,024 descriptors. Additional connections wait.
const MAX_CONNECTIONS: usize = 128;

/// How long a client may take to send its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a name lookup, or a connection to one address, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of addresses to try for one name.
const MAX_ADDRESSES: usize = 4;

/// The maximum number of refusal lines in a result.
const MAX_LINES: usize = 8;

/// The maximum number of distinct refusals to record.
const MAX_REFUSALS: usize = 1_000;

/// The network proxy for a single command.
#[derive(Debug)]
pub(crate) struct Proxy {
    hosts: Vec<Host>,
    /// Names with known addresses, which are not looked up.
    names: BTreeMap<String, Vec<IpAddr>>,
    refusals: Mutex<BTreeSet<String>>,
}

/// The response to a request that is refused or fails: the status, and a line that explains why.
type Refusal = (&'static str, String);

impl Proxy {
    pub(crate) fn new(hosts: Vec<Host>, names: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self { hosts, names, refusals: Mutex::default() }
    }

    /// Returns the refusals, one line each.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<_> = refusals.iter().take(MAX_LINES).cloned().collect();
        if refusals.len() > MAX_LINES {
            lines.push(format!("network: and {} more", refusals.len() - MAX_LINES));
        }
        lines
    }

    fn note(&self, line: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        // Cap the number of refusals, because a command may request any number of hosts.
        if refusals.len() < MAX_REFUSALS {
            refusals.insert(line.to_owned());
        }
    }

    /// Serves requests until the future is dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            while open.len() >= MAX_CONNECTIONS {
                open.join_next().await;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => drop(open.spawn(Arc::clone(&self).serve_client(client))),
                    // The process is out of descriptors, so give other connections time to end.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                },
                Some(_) = open.join_next() => {}
            }
        }
    }

    async fn serve_client(self: Arc<Self>, mut client: TcpStream) {
        let _ = client.set_nodelay(true);
        let mut bytes = Vec::new();
        let result = match timeout(HEAD_TIMEOUT, read_head(&mut client, &mut bytes)).await {
            Ok(Ok(end)) => self.handle(&mut client, &bytes[..end], &bytes[end..]).await,
            Ok(Err(_)) => return,
            Err(_) => Err(("408 Request Timeout", "network: a request to the proxy timed out".to_owned())),
        };
        if let Err((status, line)) = result {
            self.note(&line);
            let length = line.len() + 1;
            let response = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{line}\n"
            );
            let _ = client.write_all(response.as_bytes()).await;
            let _ = client.shutdown().await;
            // Closing a socket with unread data would discard the response.
            let _ = timeout(CONNECT_TIMEOUT, copy(&mut client.take(1 << 20), &mut sink())).await;
        }
    }

    async fn handle(&self, client: &mut TcpStream, head: &[u8], rest: &[u8]) -> Result<(), Refusal> {
        let malformed = |why: &str| ("400 Bad Request", format!("network: refused a request: {why}"));
        let Request { target, port, kind } = request::parse(head).map_err(malformed)?;
        match kind {
            Kind::Tunnel => {
                let mut server = self.connect(&target, port).await?;
                // If the tunnel fails, both sides see their connection end, so there is no need to
                // respond to the error.
                let _ = tunnel(client, &mut server, rest).await;
            }
            Kind::Plain { body, .. } if body < rest.len() as u64 => {
                return Err(malformed("data follows it"));
            }
            Kind::Plain { head, body } => {
                let mut server = self.connect(&target, port).await?;
                let _ = exchange(client, &mut server, &head, rest, body).await;
            }
        }
        Ok(())
    }

    /// Connects to an allowed host at an Internet address, or at an address that is itself allowed.
    async fn connect(&self, target: &Target, port: u16) -> Result<TcpStream, Refusal> {
        let refused = |why: &str| ("403 Forbidden", format!("network: refused {target}:{port}: {why}"));
        let failed =
            |why: &str| ("502 Bad Gateway", format!("network: no connection to {target}:{port}: {why}"));
        let allowed = |target: &Target| self.hosts.iter().any(|host| host.includes(target, port));
        if !allowed(target) {
            return Err(refused("not an allowed host"));
        }
        let addresses = match timeout(CONNECT_TIMEOUT, self.addresses(target, port)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(e)) => return Err(failed(&e.to_string())),
            Err(_) => return Err(failed("name lookup timed out")),
        };
        // The owner of a name can make it resolve to any address, including an internal one.
        // Internal addresses are therefore allowed only if the policy itself lists them.
        let own = matches!(target, Target::Address(_)) || is_localhost(target);
        let open = |address: &IpAddr| {
            own || is_public(*address) || allowed(&Target::Address(address.to_canonical()))
        };
        let Some(first) = addresses.first() else { return Err(failed("the name has no address")) };
        if !addresses.iter().any(open) {
            let why = format!(
                "the name resolves to {first}, which is not an Internet address (if this is intended, allow the address too)"
            );
            return Err(refused(&why));
        }
        let mut why = String::new();
        for address in addresses.into_iter().filter(open).take(MAX_ADDRESSES) {
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(server)) => {
                    let _ = server.set_nodelay(true);
                    return Ok(server);
                }
                Ok(Err(e)) => why = e.to_string(),
                Err(_) => "connection timed out".clone_into(&mut why),
            }
        }
        Err(failed(&why))
    }

    async fn addresses(&self, target: &Target, port: u16) -> io::Result<Vec<IpAddr>> {
        match target {
            Target::Address(address) => Ok(vec![*address]),
            // `localhost` is this machine, regardless of what a name server says (RFC 6761, section
            // 6.3).
            target if is_localhost(target) => {
                Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            }
            Target::Name(name) => match self.names.get(name) {
                Some(known) => Ok(known.clone()),
                None => Ok(lookup_host((name.as_str(), port)).await?.map(|a| a.ip()).collect()),
            },
        }
    }
}

fn is_localhost(target: &Target) -> bool {
    matches!(target, Target::Name(name) if name == "localhost")
}

/// Reads a complete HTTP head and returns the offset where it ends.
async fn read_head(from: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        if let Some(end) = request::end_of_head(bytes) {
            return Ok(end);
        }
        if bytes.len() > MAX_HEAD || from.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

async fn tunnel(client: &mut TcpStream, server: &mut TcpStream, first: &[u8]) -> io::Result<()> {
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    server.write_all(first).await?;
    copy_bidirectional(client, server).await.map(drop)
}

/// Forwards one request and its response. Fails if the client sends anything after its request.
async fn exchange(
    client: &mut TcpStream,
    server: &mut TcpStream,
    head: &str,
    first: &[u8],
    body: u64,
) -> io::Result<()> {
    server.write_all(head.as_bytes()).await?;
    server.write_all(first).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let asking = async {
        copy(&mut (&mut from_client).take(body - first.len() as u64), &mut to_server).await?;
        match from_client.read(&mut [0]).await {
            // The client is done sending, but may still read the response.
            Ok(0) => std::future::pending().await,
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    };
    let answering = async {
        let mut bytes = Vec::new();
        // Informational responses come first (RFC 9110, section 15.2).
        while let Ok(end) = read_head(&mut from_server, &mut bytes).await {
            let announced = bytes.starts_with(b"HTTP/1.1 1");
            let head = if announced { bytes[..end].to_vec() } else { request::closing(&bytes[..end]) };
            to_client.write_all(&head).await?;
            bytes.drain(..end);
            if !announced {
                break;
            }
        }
        to_client.write_all(&bytes).await?;
        copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::select! {
        answered = answering => answered,
        asked = asking => asked,
    }
}
