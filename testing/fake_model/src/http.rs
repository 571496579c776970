//! A minimal HTTP/1.1 server connection: reads requests (length or chunked bodies, keep-alive) and
//! writes bytes exactly as scripted.
//!
//! The connection is read at all times, so that a disconnect is noticed immediately rather than at
//! the next write.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The maximum size of a request head, in bytes. Real servers have lower limits.
const HEAD_LIMIT: usize = 64 * 1024;
/// The maximum size of a request body, in bytes: far larger than any prompt, but small enough to
/// fit in any machine's memory.
const BODY_LIMIT: usize = 256 * 1024 * 1024;
/// The maximum number of bytes to read from pipelined requests during a reply.
const PIPELINE_LIMIT: usize = 1024 * 1024;

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// The client disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// A parsed request.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
}

/// Why a request could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The client disconnected, between requests or in the middle of one.
    Closed,
    /// The bytes are not valid HTTP/1.1. The text explains why and is sent with status 400.
    Malformed(String),
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// One client connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Keeps the kernel from merging small chunks. Ignoring a failure is safe.
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::new() }
    }

    /// Reads the next request, waiting for as long as the client stays connected.
    pub(crate) async fn read_request(&mut self) -> Result<Incoming, ReadError> {
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                break String::from_utf8_lossy(&head[..end]).into_owned();
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(ReadError::Malformed("the request head is too long".into()));
            }
            if self.buffer.first() == Some(&TLS_HANDSHAKE) {
                return Err(ReadError::Malformed("this is not HTTP".into()));
            }
            self.fill().await?;
        };
        let mut incoming = parse_head(&head)?;
        if incoming.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        incoming.body = match incoming.header("transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case("chunked") => self.read_chunked().await?,
            Some(coding) => return Err(ReadError::Malformed(format!("unknown transfer coding {coding:?}"))),
            None => match incoming.header("content-length") {
                None => Vec::new(),
                Some(text) => {
                    let length: usize = text
                        .trim()
                        .parse()
                        .map_err(|_| ReadError::Malformed(format!("bad content length {text:?}")))?;
                    self.read_exact(length).await?
                }
            },
        };
        Ok(incoming)
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ReadError::Closed),
            _ => Ok(()),
        }
    }

    async fn read_exact(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        if length > BODY_LIMIT {
            return Err(ReadError::Malformed("the request body is too long".into()));
        }
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn read_line(&mut self) -> Result<String, ReadError> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(ReadError::Malformed("a chunk header is too long".into()));
            }
            self.fill().await?;
        }
    }

    async fn read_chunked(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16)
                .map_err(|_| ReadError::Malformed(format!("bad chunk size {line:?}")))?;
            if body.len().saturating_add(size) > BODY_LIMIT {
                return Err(ReadError::Malformed("the request body is too long".into()));
            }
            if size == 0 {
                while !self.read_line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.read_exact(size).await?);
            self.read_line().await?;
        }
    }

    /// Writes all of `bytes`, in as few writes as the kernel allows.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let (mut reader, mut writer) = self.stream.split();
        tokio::select! {
            biased;
            closed = until_closed(&mut reader, &mut self.buffer) => Err(closed),
            written = writer.write_all(bytes) => written.map_err(|_| Closed),
        }
    }

    /// Waits for `event`, or for the client to disconnect.
    pub(crate) async fn wait<T>(&mut self, event: impl Future<Output = T>) -> Result<T, Closed> {
        let (mut reader, _) = self.stream.split();
        tokio::select! {
            biased;
            closed = until_closed(&mut reader, &mut self.buffer) => Err(closed),
            value = event => Ok(value),
        }
    }

    /// Makes closing the connection send a reset (RST) instead of a normal end (FIN).
    pub(crate) fn reset_on_close(&self) {
        // If this fails, the connection ends normally, and the test that expects a reset fails.
        let _ = self.stream.set_zero_linger();
    }

    /// Closes the connection normally: sends a FIN, then reads the rest of the input, because
    /// closing a socket with unread input would send a reset.
    pub(crate) async fn close(mut self) {
        let _ = self.stream.shutdown().await;
        let mut sink = [0; 4096];
        while matches!(self.stream.read(&mut sink).await, Ok(1..)) {}
    }
}

async fn until_closed(reader: &mut tokio::net::tcp::ReadHalf<'_>, buffer: &mut Vec<u8>) -> Closed {
    loop {
        if buffer.len() > PIPELINE_LIMIT {
            std::future::pending::<()>().await;
        }
        match reader.read_buf(buffer).await {
            Ok(0) | Err(_) => return Closed,
            Ok(_) => {}
        }
    }
}

impl Incoming {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        find_header(&self.headers, name)
    }
}

/// Returns the first header with this name, ignoring case.
pub(crate) fn find_header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn parse_head(head: &str) -> Result<Incoming, ReadError> {
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ReadError::Malformed(format!("bad request line {first:?}")));
    };
    if !version.starts_with("HTTP/1.") {
        return Err(ReadError::Malformed(format!("unknown protocol {version:?}")));
    }
    let mut headers = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(ReadError::Malformed(format!("bad header line {line:?}")));
        };
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let connection = find_header(&headers, "connection").unwrap_or_default().to_ascii_lowercase();
    let keep_alive =
        if version == "HTTP/1.0" { connection == "keep-alive" } else { !connection.contains("close") };
    Ok(Incoming {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: Vec::new(),
        keep_alive,
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Returns a response head. `length: None` means chunked.
pub(crate) fn head(
    status: u16,
    content_type: Option<&str>,
    headers: &[(String, String)],
    length: Option<usize>,
    keep_alive: bool,
) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    if let Some(content_type) = content_type {
        head.push_str(&format!("Content-Type: {content_type}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match length {
        Some(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
        None => head.push_str("Transfer-Encoding: chunked\r\n"),
    }
    if !keep_alive {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Appends one HTTP chunk to `into`.
pub(crate) fn frame(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    into.extend_from_slice(bytes);
    into.extend_from_slice(b"\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
