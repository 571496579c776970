//! Tests that commands can reach only the policy's hosts through the proxy, no matter what form
//! their requests take.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use sandbox::{Command, Finished, Network, Overrides, Policy, Sandbox, SandboxError};
use support::Fixture;

/// `python3 send.py FIRST [SECOND]` sends FIRST to the proxy and, once the proxy has answered,
/// SECOND. It prints everything it receives until the output contains `pong`.
const SEND: &str = r#"
import os, socket, sys
host, port = os.environ["HTTP_PROXY"].removeprefix("http://").split(":")
proxy = socket.create_connection((host, int(port)), 60)
proxy.sendall(sys.argv[1].encode("latin-1"))
if len(sys.argv) > 2:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += proxy.recv(1) or sys.exit("no answer: " + repr(head))
    print(head.decode())
    proxy.sendall(sys.argv[2].encode("latin-1"))
seen = b""
while b"pong" not in seen and (piece := proxy.recv(65536)):
    print(piece.decode("latin-1"), end="")
    seen += piece
"#;

/// A server on this machine that answers "pong" on every connection and records what it receives.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let log = Arc::clone(&log);
                std::thread::spawn(move || serve(connection, &log));
            }
        });
        Self { port, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Reads a head and a body of the declared length, answers, and then waits for the client to close
/// the connection.
fn serve(mut connection: TcpStream, log: &Mutex<Vec<String>>) {
    log.lock().unwrap().push("connected".to_owned());
    let (mut text, mut bytes) = (String::new(), [0; 65_536]);
    let whole = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        (body.len() >= length.unwrap_or(0)).then_some(())
    };
    while whole(&text).is_none() {
        match connection.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(n) => text.push_str(&String::from_utf8_lossy(&bytes[..n])),
        }
    }
    log.lock().unwrap().push(text);
    let _ =
        connection.write_all(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\npong");
    while let Ok(n @ 1..) = connection.read(&mut bytes) {
        log.lock().unwrap().push(format!("more: {}", String::from_utf8_lossy(&bytes[..n])));
    }
}

/// Two servers. Under the default policy, commands can reach only server `a`.
struct World {
    fixture: Fixture,
    a: Server,
    b: Server,
}

impl World {
    fn new() -> Self {
        let fixture = Fixture::new();
        std::fs::write(fixture.root().join("send.py"), SEND).unwrap();
        Self { fixture, a: Server::new(), b: Server::new() }
    }

    /// Returns the hosts in the default policy: server `a`, by name and by address, and names that
    /// the proxy must refuse anyway because they resolve to forbidden addresses.
    fn hosts(&self) -> Vec<String> {
        let (a, b) = (self.a.port, self.b.port);
        vec![
            format!("a.test:{a}"),
            format!("127.0.0.1:{a}"),
            format!("rebound.test:{b}"),
            format!("*.star.test:{b}"),
            "metadata.test:80".to_owned(),
        ]
    }

    fn policy(&self, hosts: &[String]) -> Policy {
        Policy { hosts: hosts.iter().map(|h| h.parse().unwrap()).collect(), ..self.fixture.policy() }
    }

    fn with(&self, policy: Policy, no_bubblewrap: bool) -> Sandbox {
        let here: Vec<IpAddr> = vec!["127.0.0.1".parse().unwrap()];
        let mut names = BTreeMap::new();
        for name in ["a.test", "b.test", "rebound.test", "x.star.test"] {
            names.insert(name.to_owned(), here.clone());
        }
        names.insert("metadata.test".to_owned(), vec!["169.254.169.254".parse().unwrap()]);
        let overrides = Overrides { names, no_bubblewrap, ..Overrides::default() };
        self.fixture.with_overrides(policy, overrides)
    }

    fn sandbox(&self) -> Sandbox {
        self.with(self.policy(&self.hosts()), false)
    }

    async fn send(&self, sandbox: &Sandbox, messages: &[&str]) -> Finished {
        let place = |text: &&str| {
            text.replace("{a}", &self.a.port.to_string()).replace("{b}", &self.b.port.to_string())
        };
        let words = ["-S", "send.py"].map(str::to_owned).into_iter().chain(messages.iter().map(place));
        sandbox.run(Command::new("python3", words)).await.unwrap()
    }
}

#[tokio::test]
async fn an_allowed_host_is_reached_by_a_tunnel_and_by_a_plain_request() {
    let world = World::new();
    let sandbox = world.sandbox();
    let get = "GET / HTTP/1.1\r\nHost: a.test:{a}\r\n\r\n";
    let done = world.send(&sandbox, &["CONNECT a.test:{a} HTTP/1.1\r\nHost: a.test:{a}\r\n\r\n", get]).await;
    let text = done.output.text();
    assert!(
        text.starts_with("HTTP/1.1 200 Connection established") && text.ends_with("\n\npong"),
        "{text:?}"
    );
    assert_eq!(done.refused, Vec::<String>::new());
    let post = "POST http://a.test:{a}/x HTTP/1.1\r\nProxy-Authorization: Basic c2VjcmV0\r\nContent-Length: 5\r\n\r\nhello";
    let done = world.send(&sandbox, &[post]).await;
    assert!(done.output.text().ends_with("Connection: close\n\npong"), "{:?}", done.output.text());
    let requests = world.a.requests();
    assert!(
        requests
            .iter()
            .any(|t| t.starts_with("POST /x HTTP/1.1\r\nHost: a.test:") && t.ends_with("\r\n\r\nhello")),
        "{requests:?}"
    );
    assert!(!requests.iter().any(|t| t.to_lowercase().contains("proxy-")), "{requests:?}");
}

/// Targets that lead to server `b`. Requests to them succeed only if the policy allows them.
const PLACES: &[(&str, &str)] = &[
    ("another port", "127.0.0.1:{b}"),
    ("another name", "b.test:{b}"),
    ("this machine by name", "localhost:{b}"),
    ("this machine by name, with a dot", "LOCALHOST.:{b}"),
    ("an address in brackets", "[::ffff:127.0.0.1]:{b}"),
    ("an allowed name that leads to this machine", "rebound.test:{b}"),
    ("a name below an allowed one that leads to this machine", "x.star.test:{b}"),
];

#[tokio::test]
async fn other_hosts_are_refused_reported_and_never_contacted() {
    let world = World::new();
    let all =
        ["127.0.0.1:{b}", "b.test:{b}", "localhost:{b}"].map(|h| h.replace("{b}", &world.b.port.to_string()));
    let (open, sandbox) =
        (world.with(world.policy(&[&world.hosts()[..], &all].concat()), false), world.sandbox());
    for (name, place) in PLACES {
        let tunnel = format!("CONNECT {place} HTTP/1.1\r\n\r\n");
        let plain = format!("GET http://{place}/ HTTP/1.1\r\n\r\n");
        let inside = "GET / HTTP/1.1\r\n\r\n";
        for messages in [&[tunnel.as_str(), inside][..], &[plain.as_str()]] {
            let done = world.send(&open, messages).await;
            assert!(done.output.text().contains("pong"), "{name}, allowed: {}", done.output.text());
        }
    }
    let before = world.b.requests().len();
    for (name, place) in PLACES {
        for messages in
            [format!("CONNECT {place} HTTP/1.1\r\n\r\n"), format!("GET http://{place}/ HTTP/1.1\r\n\r\n")]
        {
            let done = world.send(&sandbox, &[&messages]).await;
            let text = done.output.text();
            assert!(text.starts_with("HTTP/1.1 403 Forbidden\n"), "{name}: {text}");
            let [line] = &done.refused[..] else { panic!("{name}: {:?}", done.refused) };
            assert!(line.starts_with("network: refused ") && text.contains(line), "{name}: {line}");
        }
    }
    assert_eq!(world.b.requests().len(), before);
}

#[tokio::test]
async fn names_that_resolve_to_forbidden_addresses_are_refused() {
    let world = World::new();
    let sandbox = world.sandbox();
    for (place, why) in [
        ("169.254.169.254:80", "not an allowed host"),
        ("metadata.test:80", "the name resolves to 169.254.169.254, which is not an Internet address"),
        ("127.0.0.1:61080", "not an allowed host"),
        ("0.0.0.0:{b}", "not an allowed host"),
        ("[::1]:{b}", "not an allowed host"),
        ("[::]:{b}", "not an allowed host"),
        ("a.test.evil.test:{a}", "not an allowed host"),
        ("star.test:{b}", "not an allowed host"),
        ("127.1:{b}", "has no valid host"),
        ("0x7f000001:{b}", "has no valid host"),
        ("2130706433:{b}", "has no valid host"),
        ("a.test@127.0.0.1:{b}", "has no valid host"),
        ("127.0.0.1:{b}:{a}", "has no valid host"),
        ("127.0.0.1%00.a.test:{a}", "has no valid host"),
    ] {
        let done = world.send(&sandbox, &[&format!("CONNECT {place} HTTP/1.1\r\n\r\n")]).await;
        assert!(done.output.text().starts_with("HTTP/1.1 40"), "{place}: {}", done.output.text());
        assert!(done.refused.len() == 1 && done.refused[0].contains(why), "{place}: {:?}", done.refused);
    }
    assert_eq!(world.b.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_cannot_smuggle_another() {
    let world = World::new();
    let sandbox = world.sandbox();
    let second = "GET http://b.test:{b}/ HTTP/1.1\r\nHost: b.test:{b}\r\n\r\n";
    for (name, first) in [
        ("another host in the Host field", "GET http://a.test:{a}/ HTTP/1.1\r\nHost: b.test:{b}\r\n\r\n"),
        ("two hosts", "GET http://a.test:{a}/ HTTP/1.1\r\nHost: a.test:{a}\r\nHost: b.test:{b}\r\n\r\n"),
        ("no host in the request line", "GET / HTTP/1.1\r\nHost: a.test:{a}\r\n\r\n"),
        (
            "two lengths",
            "POST http://a.test:{a}/ HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\nsmuggled!",
        ),
        (
            "a length and chunks",
            "POST http://a.test:{a}/ HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
        ),
        ("a bare line feed", "GET http://a.test:{a}/ HTTP/1.1\nHost: b.test\r\nX: y\r\n\r\n"),
        ("data after the request", "GET http://a.test:{a}/ HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
        ("a bare carriage return in the path", "GET http://a.test:{a}/\rX: y HTTP/1.1\r\n\r\n"),
        ("not HTTP", "\x16\x03\x01\r\n\r\n"),
    ] {
        let done = world.send(&sandbox, &[first]).await;
        assert!(
            done.output.text().starts_with("HTTP/1.1 400 Bad Request\n"),
            "{name}: {}",
            done.output.text()
        );
        assert_eq!(done.refused.len(), 1, "{name}");
    }
    assert_eq!(world.a.requests(), Vec::<String>::new());
    // A second request on the same connection is not served either.
    world.send(&sandbox, &["GET http://a.test:{a}/ HTTP/1.1\r\n\r\n", second]).await;
    assert!(!world.a.requests().iter().any(|t| t.contains("b.test")), "{:?}", world.a.requests());
    assert_eq!(world.b.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn programs_find_the_proxy_and_bypass_it_for_their_own_servers() {
    let world = World::new();
    let script = r#"
import http.server, threading, urllib.request, os
class Own(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response_only(200); self.end_headers(); self.wfile.write(b"own")
own = http.server.HTTPServer(("127.0.0.1", 0), Own)
threading.Thread(target=own.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://localhost:{own.server_port}/").read().decode())
print(urllib.request.urlopen(f"http://a.test:{os.environ['A']}/").read().decode())
print(sorted(n for n in os.environ if "PROXY" in n.upper()), "CARGO_NET_OFFLINE" in os.environ)
"#;
    std::fs::write(world.fixture.root().join("fetch.py"), script).unwrap();
    let command = Command {
        env: vec![("A".into(), world.a.port.to_string().into())],
        ..Command::new("python3", ["-S", "fetch.py"])
    };
    let done = world.sandbox().run(command).await.unwrap();
    let both = "['ALL_PROXY', 'HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY', 'all_proxy', 'http_proxy', 'https_proxy', 'no_proxy'] False";
    assert_eq!(done.output.text().trim_end(), format!("own\npong\n{both}"));
}

#[tokio::test]
async fn many_connections_are_served_at_once_and_silent_ones_do_not_block_them() {
    let world = World::new();
    let script = r#"
import os, socket, threading
where = ("127.0.0.1", int(os.environ["HTTP_PROXY"].rsplit(":", 1)[1]))
idle = [socket.create_connection(where, 60) for _ in range(60)]
pongs = []
def ask():
    one = socket.create_connection(where, 60)
    one.sendall(b"GET http://a.test:%s/ HTTP/1.1\r\n\r\n" % os.environ["A"].encode())
    text = b""
    while b"pong" not in text:
        text += one.recv(4096) or b"pong" * 0 or exit(1)
    pongs.append(1)
threads = [threading.Thread(target=ask) for _ in range(60)]
for t in threads: t.start()
for t in threads: t.join()
print(len(pongs))
"#;
    std::fs::write(world.fixture.root().join("many.py"), script).unwrap();
    let command = Command {
        env: vec![("A".into(), world.a.port.to_string().into())],
        ..Command::new("python3", ["-S", "many.py"])
    };
    let done = world.sandbox().run(command).await.unwrap();
    assert_eq!(done.output.text().trim_end(), "60");
}

#[tokio::test]
async fn a_large_body_passes_through_a_tunnel_intact() {
    let world = World::new();
    let script = r#"
import os, socket
a = os.environ["A"]
one = socket.create_connection(("127.0.0.1", int(os.environ["HTTP_PROXY"].rsplit(":", 1)[1])), 60)
one.sendall(f"CONNECT a.test:{a} HTTP/1.1\r\n\r\n".encode())
assert one.recv(4096).endswith(b"\r\n\r\n")
body = b"x" * (8 << 20)
one.sendall(f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
print(one.recv(4096).decode())
"#;
    std::fs::write(world.fixture.root().join("large.py"), script).unwrap();
    let command = Command {
        env: vec![("A".into(), world.a.port.to_string().into())],
        ..Command::new("python3", ["-S", "large.py"])
    };
    let done = world.sandbox().run(command).await.unwrap();
    assert!(done.output.text().ends_with("pong\n"), "{}", done.output.text());
    assert!(world.a.requests().iter().any(|t| t.len() > 8 << 20));
}

#[tokio::test]
async fn the_allowed_hosts_are_reported_and_without_any_there_is_no_proxy() {
    let world = World::new();
    let sandbox = world.with(world.policy(&["example.org".into(), "*.example.net:8443".into()]), false);
    let report = sandbox.probe().await.unwrap();
    assert!(report.network_isolated, "{report:?}");
    let messages = "Network: only example.org, *.example.net:8443 can be reached, through the agent's proxy; loopback is private to the command.";
    assert!(report.lines.iter().any(|line| line == messages), "{report:?}");
    // There is no proxy if the policy lists no hosts or opens up the whole network.
    for policy in [world.policy(&[]), Policy { network: Network::Full, ..world.policy(&world.hosts()) }] {
        let done = world.with(policy, false).run(Command::shell("env | grep -i proxy")).await.unwrap();
        assert_eq!(done.output.text().replace("GOPROXY=off\n", ""), "");
    }
}

#[tokio::test]
async fn without_namespaces_a_policy_with_hosts_runs_nothing() {
    if !support::namespaces_are_refused("without_namespaces_a_policy_with_hosts_runs_nothing") {
        return;
    }
    let world = World::new();
    let sandbox = world.with(world.policy(&world.hosts()), true);
    let error = sandbox.run(Command::shell("echo > ran")).await.unwrap_err();
    assert!(matches!(&error, SandboxError::Hosts(why) if why.contains("namespaces")), "{error}");
    assert!(!world.fixture.root().join("ran").exists());
}
