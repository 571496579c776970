//! The wire format of messages: a header with the length, then JSON.
//!
//! Source: Language Server Protocol 3.17, "Base Protocol".

use std::io;

use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The maximum size of the content of one message, in bytes.
const MAX_MESSAGE: usize = 4 << 20;
/// The maximum length of a header line, in bytes.
const MAX_HEADER: u64 = 1 << 10;
/// The maximum number of header lines in one message.
const MAX_HEADERS: usize = 16;

/// Reads one message. Returns it with its length in bytes, or `None` at the end of the stream.
///
/// # Errors
/// If the header is invalid, the message is too long or not JSON, or the stream ends in the middle
/// of a message.
pub(crate) async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<(Value, usize)>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut length = None;
    for number in 0..=MAX_HEADERS {
        let mut line = Vec::new();
        (&mut *reader).take(MAX_HEADER).read_until(b'\n', &mut line).await?;
        if line.is_empty() && number == 0 {
            return Ok(None);
        }
        let Some(line) = line.strip_suffix(b"\n") else {
            return Err(invalid("it sent an unterminated header line"));
        };
        let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let length = length.ok_or_else(|| invalid("it sent a message without a length"))?;
    if length > MAX_MESSAGE {
        return Err(invalid(&format!("it sent a message of more than {} MiB", MAX_MESSAGE >> 20)));
    }
    // The length is only a claim, so memory is allocated only as bytes arrive.
    let mut content = Vec::new();
    (&mut *reader).take(length as u64).read_to_end(&mut content).await?;
    if content.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message: Value =
        serde_json::from_slice(&content).map_err(|_| invalid("it sent a message that is not JSON"))?;
    match message {
        Value::Object(_) => Ok(Some((message, length))),
        _ => Err(invalid("it sent a message that is not an object")),
    }
}

/// Writes one message.
///
/// # Errors
/// If the stream is closed.
pub(crate) async fn write(writer: &mut (impl AsyncWrite + Unpin), message: &Value) -> io::Result<()> {
    let content = message.to_string();
    let whole = format!("Content-Length: {}\r\n\r\n{content}", content.len());
    writer.write_all(whole.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_message_is_read_as_it_was_written() {
        let message = json!({"text": "über\n"});
        let mut bytes = Vec::new();
        write(&mut bytes, &message).await.unwrap();
        let mut reader = &bytes[..];
        assert_eq!(read(&mut reader).await.unwrap().unwrap().0, message);
        assert!(read(&mut reader).await.unwrap().is_none(), "the end between two messages");
    }

    #[tokio::test]
    async fn hostile_streams_are_errors() {
        let endless_header = [b'x'; 2 << 10];
        let many_headers = b"A: b\r\n".repeat(100);
        let cases: [(&[u8], &str); 8] = [
            (b"Content-Length: 99999999999\r\n\r\n{}", "more than 4 MiB"),
            (b"Content-Length: 999999999999999999999999\r\n\r\n{}", "without a length"),
            (b"Content-Length: -1\r\n\r\n{}", "without a length"),
            (b"Content-Length: 4\r\n\r\n{]{]", "not JSON"),
            (b"Content-Length: 2\r\n\r\n[]", "not an object"),
            (b"Content-Length: 9\r\n\r\n{}", "end of file"),
            (&endless_header, "unterminated header"),
            (&many_headers, "without a length"),
        ];
        for (bytes, why) in cases {
            let mut reader = bytes;
            let error = read(&mut reader).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error} should contain {why}");
        }
    }
}
