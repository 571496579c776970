//! A raw HTTP client that sees every byte, chunk, end and reset.
#![allow(dead_code)] // each test file uses only some of these functions

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use fake_model::Server;
use serde_json::{Value, json};

pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    InOrder,
    Reset,
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).unwrap();
        // If the server is broken, the test fails instead of hanging.
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, buffer: Vec::new(), status: 0, headers: Vec::new() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        self.write(format!("{head}{body}").as_bytes());
    }

    pub(crate) fn post(server: &Server, path: &str, body: &Value) -> Self {
        let mut client = Self::connect(server);
        client.send("POST", path, "", &body.to_string());
        client
    }

    pub(crate) fn read_head(&mut self) {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            assert!(self.fill(), "the connection ended in the head: {:?}", self.buffer);
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        self.status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        self.headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 65536];
        let count = self.stream.read(&mut bytes).unwrap();
        self.buffer.extend_from_slice(&bytes[..count]);
        count > 0
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "the connection ended in the body");
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads the next HTTP chunk. Returns `None` if it is the empty chunk at the end.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break end;
            }
            assert!(self.fill(), "the connection ended between two chunks");
        };
        let size = String::from_utf8(self.take(end + 2)).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let chunk = self.take(size);
        assert_eq!(self.take(2), b"\r\n");
        (size > 0).then_some(chunk)
    }

    /// Returns the bytes that were received but not consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads all chunks up to the end of the body.
    pub(crate) fn chunks(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.chunk()).collect()
    }

    /// Reads the body of a response, whether it has a length or chunks.
    pub(crate) fn body(&mut self) -> String {
        self.read_head();
        let bytes = match self.header("content-length").map(|text| text.parse().unwrap()) {
            Some(length) => self.take(length),
            None => self.chunks().concat(),
        };
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn json(&mut self) -> Value {
        serde_json::from_str(&self.body()).unwrap()
    }

    /// Returns the lines of an NDJSON body.
    pub(crate) fn lines(&mut self) -> Vec<Value> {
        self.body().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the `data:` events of an SSE body, with `[DONE]` as a string.
    pub(crate) fn events(&mut self) -> Vec<Value> {
        let body = self.body();
        let data = body.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.map(|data| if data == "[DONE]" { json!(data) } else { serde_json::from_str(data).unwrap() })
            .collect()
    }

    /// Returns whether no bytes have arrived since the last read. The result is reliable only while
    /// the server is waiting at a gate.
    pub(crate) fn nothing_to_read(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        self.stream.set_nonblocking(true).unwrap();
        let nothing =
            matches!(self.stream.peek(&mut [0]), Err(problem) if problem.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).unwrap();
        nothing
    }

    /// Reads until the connection ends. Returns the rest of the input and how the connection ended.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Ended) {
        let mut bytes = [0; 65536];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return (std::mem::take(&mut self.buffer), Ended::InOrder),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(problem) if problem.kind() == ErrorKind::ConnectionReset => {
                    return (std::mem::take(&mut self.buffer), Ended::Reset);
                }
                Err(problem) => panic!("{problem}"),
            }
        }
    }

    pub(crate) fn close(self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }
}

/// Returns a chat request to Ollama.
pub(crate) fn chat(model: &str, content: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": content}]})
}

/// Returns a chat request with additional fields.
pub(crate) fn chat_with(model: &str, fields: Value) -> Value {
    let mut body = chat(model, "hello");
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
