//! Limits on what a server sends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

/// The maximum size of one message, in bytes. A message is one line, or one HTTP response.
pub const MAX_MESSAGE: usize = 4 << 20;
/// The maximum number of bytes that a program may write to standard output between two requests.
const MAX_UNASKED: u64 = 64 << 20;

/// Counts the bytes that a server has sent since the last request, and records which limit it
/// exceeded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<(AtomicU64, Mutex<Option<String>>)>);

impl Meter {
    /// Resets the count before a request.
    pub(crate) fn reset(&self) {
        self.0.0.store(0, Ordering::Relaxed);
    }

    /// Returns why the connection was closed, if the server exceeded a limit.
    pub(crate) fn excess(&self) -> Option<String> {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn exceed(&self, why: String) -> io::Error {
        let error = io::Error::other(why.clone());
        *self.0.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        error
    }
}

/// A reader that fails if a line is too long, or if too much arrives between two requests.
pub(crate) struct Limited<R> {
    reader: R,
    meter: Meter,
    /// The length of the current line so far.
    line: usize,
}

impl<R> Limited<R> {
    pub(crate) fn new(reader: R, meter: Meter) -> Self {
        Self { reader, meter, line: 0 }
    }

    /// Counts new bytes. Returns the limit that they exceed, if any.
    fn excess_with(&mut self, new: &[u8]) -> Option<String> {
        for part in new.split_inclusive(|b| *b == b'\n') {
            self.line += part.len();
            if self.line > MAX_MESSAGE {
                return Some(format!("it sent a message of more than {} MiB", MAX_MESSAGE >> 20));
            }
            if part.ends_with(b"\n") {
                self.line = 0;
            }
        }
        let sum = self.meter.0.0.fetch_add(new.len() as u64, Ordering::Relaxed) + new.len() as u64;
        (sum > MAX_UNASKED)
            .then(|| format!("it sent more than {} MiB without being asked", MAX_UNASKED >> 20))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Limited<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.reader).poll_read(cx, buf))?;
        if let Some(why) = this.excess_with(&buf.filled()[before..]) {
            buf.set_filled(before); // a read that fails must not return any bytes
            return Poll::Ready(Err(this.meter.exceed(why)));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_line_without_end_and_a_flood_of_lines_are_errors() {
        for (text, why) in [(&b"x"[..], "a message of more than 4 MiB"), (b"{}\n", "without being asked")] {
            let meter = Meter::default();
            let endless = io::Cursor::new(text.repeat((80 << 20) / text.len()));
            let mut reader = Limited::new(endless, meter.clone());
            let mut sink = Vec::new();
            assert!(reader.read_to_end(&mut sink).await.is_err());
            assert!(meter.excess().unwrap().contains(why));
        }
    }
}
