//! A scripted file server on 127.0.0.1 that imitates a model hub and a package index.
//!
//! Each request for a path gets the next fault scripted for that path. Once there are none left,
//! the file is served normally.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use sha2::{Digest, Sha256};

use crate::wheel;

/// A fault in the answer to one request.
#[derive(Clone)]
pub enum Act {
    /// Close the connection after this many bytes of the body.
    Cut(usize),
    /// Stop sending after this many bytes of the body, but keep the connection open until the
    /// client disconnects.
    Hang(usize),
    /// Refuse with this status.
    Status(u16),
    /// Send the whole file, even if the request asks for a range.
    Whole,
    /// Redirect to this URL.
    Redirect(String),
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    acts: HashMap<String, VecDeque<Act>>,
    requests: Vec<String>,
}

/// The server. Its threads end with the process.
pub struct Server {
    /// The base URL.
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Starts a server on a free port.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || answer(stream, &state));
            }
        });
        Self { url, state }
    }

    /// Serves these bytes at a path.
    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes.into());
    }

    /// Adds a fault to the script for a path.
    pub fn once(&self, path: &str, act: Act) {
        self.state.lock().unwrap().acts.entry(path.to_owned()).or_default().push_back(act);
    }

    /// Returns the paths requested since the last call. If a request did not start at byte 0, its
    /// path is followed by the offset of the first requested byte.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Puts a file into a repository of the hub. Returns its download path.
    pub fn put_on_hub(&self, repository: &str, file: &str, bytes: &[u8]) -> String {
        let list = serde_json::json!([
            {"type": "file", "path": "README.md", "size": 3, "oid": "0"},
            {"type": "file", "path": file, "size": bytes.len(), "oid": "0",
             "lfs": {"oid": sha256(bytes), "size": bytes.len(), "pointerSize": 1}},
        ]);
        self.put(&format!("/api/models/{repository}/tree/main"), list.to_string());
        let path = format!("/{repository}/resolve/main/{file}");
        self.put(&path, bytes);
        path
    }

    /// Puts a wheel with one file into the index under `/simple`. Returns the path of the wheel.
    pub fn put_package(&self, name: &str, version: &str, file: &str, bytes: &[u8]) -> String {
        let underscored = name.replace('-', "_");
        let wheel = wheel(&[("metadata.txt", b"x"), (file, bytes)]);
        let filename = format!("{underscored}-{version}-py3-none-any.whl");
        let path = format!("/files/{filename}");
        let page = serde_json::json!({"meta": {"api-version": "1.1"}, "files": [
            {"filename": format!("{underscored}-0.0.1-py3-none-any.whl"), "url": "/none", "hashes": {}},
            {"filename": format!("{underscored}-{version}.tar.gz"), "url": "/none", "hashes": {}},
            {"filename": filename, "url": format!("../..{path}"), "hashes": {"sha256": sha256(&wheel)}},
        ]});
        self.put(&format!("/simple/{name}/"), page.to_string());
        self.put(&path, wheel);
        path
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut path, mut from) = (String::new(), None, 0);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned));
        let lower = line.to_ascii_lowercase();
        if let Some(range) = lower.trim().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
        line.clear();
    }
    let Some(path) = path else { return };
    let (body, act) = {
        let mut state = state.lock().unwrap();
        state.requests.push(if from == 0 { path.clone() } else { format!("{path} from {from}") });
        let act = state.acts.get_mut(&path).and_then(VecDeque::pop_front);
        (state.files.get(&path).cloned(), act)
    };
    let _ = respond(stream, reader, body, from, act);
}

fn respond(
    mut stream: TcpStream,
    mut reader: BufReader<TcpStream>,
    body: Option<Vec<u8>>,
    from: usize,
    act: Option<Act>,
) -> std::io::Result<()> {
    let mut head = |status: &str, headers: &str| {
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n")
    };
    let body = match (&act, body) {
        (Some(Act::Status(status)), _) => return head(&format!("{status} No"), "Content-Length: 0\r\n"),
        (Some(Act::Redirect(to)), _) => {
            return head("302 Found", &format!("Location: {to}\r\nContent-Length: 0\r\n"));
        }
        (_, None) => return head("404 Not Found", "Content-Length: 0\r\n"),
        (_, Some(body)) => body,
    };
    let from = if matches!(act, Some(Act::Whole)) { 0 } else { from };
    let total = body.len();
    let mut headers = format!("Content-Length: {}\r\n", total - from);
    if from > 0 {
        write!(headers, "Content-Range: bytes {from}-{}/{total}\r\n", total - 1).unwrap();
    }
    head(if from > 0 { "206 Partial Content" } else { "200 OK" }, &headers)?;
    let rest = &body[from..];
    match act {
        Some(Act::Cut(bytes)) => stream.write_all(&rest[..bytes]),
        Some(Act::Hang(bytes)) => {
            stream.write_all(&rest[..bytes])?;
            // Blocks until the client disconnects.
            reader.read(&mut [0]).map(|_| ())
        }
        _ => stream.write_all(rest),
    }
}

/// Returns the SHA-256 of these bytes in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
