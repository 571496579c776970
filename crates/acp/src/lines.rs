//! The transport: one JSON message per line, over two byte streams. Both directions are bounded. An
//! incoming line that is too long is replaced with one that the connection rejects. If the editor
//! does not read a run's updates, the run waits ([`Backlog`]).

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Sink, Stream, sink, stream};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

/// The maximum size of a message from the editor, in bytes. The largest ones are prompts with
/// embedded files.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The maximum number of updates that the editor may leave unread before a run waits.
pub const MAX_UNREAD: usize = 2048;
/// How often a waiting run checks whether it must stop.
const CHECK: Duration = Duration::from_millis(50);

/// Returns the nonblank lines of the input.
pub fn incoming(
    input: impl AsyncRead + Send + Unpin + 'static,
) -> impl Stream<Item = io::Result<String>> + Send + 'static {
    stream::unfold(Some(BufReader::new(input)), |reader| async {
        let mut reader = reader?;
        match next_line(&mut reader).await {
            Ok(Some(line)) => Some((Ok(line), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
}

async fn next_line<R: AsyncRead + Unpin>(reader: &mut BufReader<R>) -> io::Result<Option<String>> {
    let (mut line, mut too_long) = (Vec::new(), false);
    loop {
        let available = reader.fill_buf().await?;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        too_long |= line.len() + part.len() > MAX_MESSAGE;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let (ended, used) = (available.is_empty(), end.map_or(part.len(), |end| end + 1));
        reader.consume(used);
        if too_long && (ended || end.is_some()) {
            // This is not JSON, so the connection answers with an error that quotes it.
            return Ok(Some(format!("a message of more than {} MiB", MAX_MESSAGE >> 20)));
        }
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        if !is_blank && (ended || end.is_some()) {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        if ended {
            return Ok(None);
        }
        if end.is_some() {
            line.clear();
        }
    }
}

/// Writes each message as one line and flushes it.
pub fn outgoing(
    output: impl AsyncWrite + Send + Unpin + 'static,
    backlog: Backlog,
) -> impl Sink<String, Error = io::Error> + Send + 'static {
    sink::unfold((output, backlog), |(mut output, backlog), line: String| async move {
        let is_update = Backlog::counts(&line);
        let mut line = line.into_bytes();
        line.push(b'\n');
        output.write_all(&line).await?;
        output.flush().await?;
        if is_update {
            backlog.read_one();
        }
        Ok((output, backlog))
    })
}

/// The number of updates that have been sent but not yet read by the editor.
#[derive(Debug, Clone, Default)]
pub struct Backlog(Arc<(Mutex<usize>, Condvar)>);

impl Backlog {
    /// Returns whether a line is an update.
    fn counts(line: &str) -> bool {
        line.get(..64.min(line.len())).is_some_and(|head| head.contains("\"session/update\""))
    }

    /// Counts one more update. If too many are unread, first blocks until the editor reads some or
    /// `stop` returns true.
    pub fn add_one(&self, stop: impl Fn() -> bool) {
        let (count, changed) = &*self.0;
        let mut unread = count.lock().unwrap_or_else(PoisonError::into_inner);
        while *unread >= MAX_UNREAD && !stop() {
            unread = changed.wait_timeout(unread, CHECK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *unread += 1;
    }

    fn read_one(&self) {
        let (count, changed) = &*self.0;
        let mut unread = count.lock().unwrap_or_else(PoisonError::into_inner);
        *unread = unread.saturating_sub(1);
        changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    async fn lines(input: Vec<u8>) -> Vec<String> {
        let lines = incoming(io::Cursor::new(input));
        lines.map(|line| line.unwrap()).collect().await
    }

    #[tokio::test]
    async fn blank_lines_are_skipped_and_the_last_line_needs_no_newline() {
        assert_eq!(lines(b"{}\r\n\n  \n[]\nlast".to_vec()).await, ["{}\r", "[]", "last"]);
        assert!(lines(Vec::new()).await.is_empty());
        assert_eq!(lines(b"\xff\n".to_vec()).await, ["\u{fffd}"]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_replaced_and_the_next_one_is_read() {
        let mut input = vec![b'x'; MAX_MESSAGE + 1];
        input.extend(b"\nnext\n");
        assert_eq!(lines(input).await, ["a message of more than 16 MiB", "next"]);
        let longest = vec![b'x'; MAX_MESSAGE];
        assert_eq!(lines(longest).await[0].len(), MAX_MESSAGE);
        assert_eq!(lines(vec![b'x'; MAX_MESSAGE + 1]).await, ["a message of more than 16 MiB"]);
    }

    #[test]
    fn a_run_waits_while_the_editor_does_not_read_and_goes_on_when_it_must_stop() {
        let backlog = Backlog::default();
        (0..MAX_UNREAD).for_each(|_| backlog.add_one(|| panic!("there is room")));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| backlog.add_one(|| stop.load(Ordering::Relaxed)));
            backlog.read_one();
            waiting.join().unwrap();
            let waiting = scope.spawn(|| backlog.add_one(|| stop.load(Ordering::Relaxed)));
            stop.store(true, Ordering::Relaxed);
            waiting.join().unwrap();
        });
    }
}
