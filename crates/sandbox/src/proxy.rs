//! The way out to named hosts: an HTTP proxy of the agent, on a socket that the launcher made in the command's own network.
//!
//! A socket belongs to the network it was made in, whoever holds it: commands reach this one on their loopback and nothing else, the agent
//! accepts on it from outside and decides. It looks up names itself, connects only to addresses of the Internet, whatever a name leads to,
//! and carries out one request for each connection. What it refuses it remembers, for the command's result.
//!
//! What goes through a tunnel is not looked at: it is encrypted to the host that was named.

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
use request::{Kind, LONGEST_HEAD, Request};

/// Where it listens in the command's network: above the ports that Linux gives out by itself, and nobody's.
pub(crate) const PORT: u16 = 61_080;

/// Connections at a time; others wait. With both sides that is a quarter of the descriptors a process usually may have.
const MOST_CONNECTIONS: usize = 128;

/// How long a client may take to say what it wants.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long looking up a name may take, and a connection to one address.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// Lines about what was refused that a result has at most.
const MOST_LINES: usize = 8;

/// Refusals that are told apart; what comes later is not counted.
const MOST_REMEMBERED: usize = 1_000;

/// One command's proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    hosts: Vec<Host>,
    /// Names whose addresses need not be looked up.
    names: BTreeMap<String, Vec<IpAddr>>,
    said: Mutex<BTreeSet<String>>,
}

/// Why there is no connection: the status of the response, and the line for people.
type Refusal = (&'static str, String);

impl Proxy {
    pub(crate) fn new(hosts: Vec<Host>, names: BTreeMap<String, Vec<IpAddr>>) -> Self {
        Self { hosts, names, said: Mutex::default() }
    }

    /// What was refused, a line each.
    pub(crate) fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<_> = said.iter().take(MOST_LINES).cloned().collect();
        if said.len() > MOST_LINES {
            lines.push(format!("network: and {} more", said.len() - MOST_LINES));
        }
        lines
    }

    fn note(&self, line: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        // A command may ask for any number of names.
        if said.len() < MOST_REMEMBERED {
            said.insert(line.to_owned());
        }
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            while open.len() >= MOST_CONNECTIONS {
                open.join_next().await;
            }
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((client, _)) => drop(open.spawn(Arc::clone(&self).attend(client))),
                    // No descriptors are left: some connection will end.
                    Err(_) => sleep(Duration::from_millis(100)).await,
                },
                Some(_) = open.join_next() => {}
            }
        }
    }

    async fn attend(self: Arc<Self>, mut client: TcpStream) {
        let _ = client.set_nodelay(true);
        let mut said = Vec::new();
        let result = match timeout(HEAD_PATIENCE, read_head(&mut client, &mut said)).await {
            Ok(Ok(end)) => self.carry_out(&mut client, &said[..end], &said[end..]).await,
            Ok(Err(_)) => return,
            Err(_) => Err(("408 Request Timeout", "network: a request to the proxy did not end".to_owned())),
        };
        if let Err((status, line)) = result {
            self.note(&line);
            let length = line.len() + 1;
            let response = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{line}\n"
            );
            let _ = client.write_all(response.as_bytes()).await;
            let _ = client.shutdown().await;
            // What is unread when a socket is closed would take the response with it.
            let _ = timeout(CONNECT_PATIENCE, copy(&mut client.take(1 << 20), &mut sink())).await;
        }
    }

    async fn carry_out(&self, client: &mut TcpStream, head: &[u8], rest: &[u8]) -> Result<(), Refusal> {
        let malformed = |why: &str| ("400 Bad Request", format!("network: refused a request: {why}"));
        let Request { target, port, kind } = request::parse(head).map_err(malformed)?;
        match kind {
            Kind::Tunnel => {
                let mut server = self.connect(&target, port).await?;
                // From here on both sides know that a connection has ended.
                let _ = tunnel(client, &mut server, rest).await;
            }
            Kind::Plain { body, .. } if body < rest.len() as u64 => {
                return Err(malformed("something follows it"));
            }
            Kind::Plain { head, body } => {
                let mut server = self.connect(&target, port).await?;
                let _ = exchange(client, &mut server, &head, rest, body).await;
            }
        }
        Ok(())
    }

    /// A connection to a place, if it is among the hosts and on the Internet, or itself among the hosts by its address.
    async fn connect(&self, target: &Target, port: u16) -> Result<TcpStream, Refusal> {
        let refused = |why: &str| ("403 Forbidden", format!("network: refused {target}:{port}, {why}"));
        let failed =
            |why: &str| ("502 Bad Gateway", format!("network: no connection to {target}:{port}: {why}"));
        let allowed = |target: &Target| self.hosts.iter().any(|host| host.includes(target, port));
        if !allowed(target) {
            return Err(refused("not among the allowed hosts"));
        }
        let addresses = match timeout(CONNECT_PATIENCE, self.addresses(target, port)).await {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(e)) => return Err(failed(&e.to_string())),
            Err(_) => return Err(failed("looking up the name takes too long")),
        };
        // Whoever owns a name decides what it leads to, and may change that from one moment to the next.
        let own = matches!(target, Target::Address(_)) || is_localhost(target);
        let open = |address: &IpAddr| {
            own || is_public(*address) || allowed(&Target::Address(address.to_canonical()))
        };
        let Some(first) = addresses.first() else { return Err(failed("the name has no address")) };
        if !addresses.iter().any(open) {
            let why = format!(
                "the name leads to {first}, no address of the Internet (allow that address too if it is meant)"
            );
            return Err(refused(&why));
        }
        let mut why = String::new();
        for address in addresses.into_iter().filter(open).take(MOST_ADDRESSES) {
            match timeout(CONNECT_PATIENCE, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(server)) => {
                    let _ = server.set_nodelay(true);
                    return Ok(server);
                }
                Ok(Err(e)) => why = e.to_string(),
                Err(_) => "it does not answer".clone_into(&mut why),
            }
        }
        Err(failed(&why))
    }

    async fn addresses(&self, target: &Target, port: u16) -> io::Result<Vec<IpAddr>> {
        match target {
            Target::Address(address) => Ok(vec![*address]),
            // RFC 6761, 6.3: whatever a server for names may say.
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

/// Reads until there is a whole head, and returns where it ends.
async fn read_head(from: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        if let Some(end) = request::end_of_head(bytes) {
            return Ok(end);
        }
        if bytes.len() > LONGEST_HEAD || from.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

async fn tunnel(client: &mut TcpStream, server: &mut TcpStream, first: &[u8]) -> io::Result<()> {
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    server.write_all(first).await?;
    copy_bidirectional(client, server).await.map(drop)
}

/// One request and its response. What the client sends behind its request reaches nobody.
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
            // It may listen on, or not.
            Ok(0) => std::future::pending().await,
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    };
    let answering = async {
        let mut bytes = Vec::new();
        // A head may be announced by others (RFC 9110, 15.2).
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
