//! Captures a command's output. Keeps a limited number of bytes and lines from the beginning and
//! the end, and writes the output to a log file of limited size. Errors tend to be at the beginning
//! and summaries at the end.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// How much output to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes to keep from the beginning.
    pub head_bytes: usize,
    /// Lines to keep from the beginning.
    pub head_lines: usize,
    /// Bytes to keep from the end.
    pub tail_bytes: usize,
    /// Lines to keep from the end.
    pub tail_lines: usize,
    /// The maximum size of the log file in bytes.
    pub log_bytes: u64,
    /// A command that prints more bytes than this is stopped.
    pub total_bytes: u64,
}

impl Default for OutputLimits {
    /// Keeps 8 KiB or 100 lines at each end, whichever is less, and 16 MiB in the log. Allows 256
    /// MiB in total.
    fn default() -> Self {
        Self {
            head_bytes: 8 << 10,
            head_lines: 100,
            tail_bytes: 8 << 10,
            tail_lines: 100,
            log_bytes: 16 << 20,
            total_bytes: 256 << 20,
        }
    }
}

impl OutputLimits {
    /// Keeps up to this many bytes at each end, regardless of the number of lines.
    #[must_use]
    pub fn bytes(each_end: usize) -> Self {
        Self {
            head_bytes: each_end,
            head_lines: usize::MAX,
            tail_bytes: each_end,
            tail_lines: usize::MAX,
            ..Self::default()
        }
    }
}

/// Captured output. If nothing was omitted, `tail` directly follows `head`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The beginning.
    pub head: Vec<u8>,
    /// The end.
    pub tail: Vec<u8>,
    /// The number of bytes printed.
    pub total_bytes: u64,
    /// The number of lines printed, including a last line without a newline.
    pub total_lines: u64,
    /// How much output was omitted between the head and the tail.
    pub omitted: Option<Omitted>,
    /// The log file, if one was requested and could be written.
    pub log: Option<PathBuf>,
    /// Why the log is incomplete, if it is.
    pub log_problem: Option<String>,
}

/// The size of the omitted output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Omitted {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of newlines among these bytes.
    pub lines: u64,
}

impl Captured {
    /// Returns the output as plain text. If output was omitted, a line in its place says how much.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = plain(&self.head);
        if let Some(Omitted { bytes, lines }) = self.omitted {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            let what = if lines > 0 { format!("{lines} lines") } else { format!("{bytes} bytes") };
            text.push_str(&format!("[… {what} left out …]\n"));
            text.push_str(&plain(&self.tail));
            return text;
        }
        // A character or an escape sequence may straddle the boundary between head and tail.
        plain(&[self.head.as_slice(), &self.tail].concat())
    }
}

/// Collects output as it arrives.
#[derive(Debug, Default)]
pub struct Capture {
    limits: OutputLimits,
    head: Vec<u8>,
    head_lines: usize,
    head_full: bool,
    tail: VecDeque<u8>,
    total_bytes: u64,
    newlines: u64,
    last: Option<u8>,
    log: Option<Log>,
    echo: Option<fn(&[u8])>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: Option<File>,
    room: u64,
    problem: Option<String>,
}

impl Log {
    fn open(path: &Path, room: u64) -> Self {
        let open = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::create(path)
        };
        let (file, problem) = match open() {
            Ok(file) => (Some(file), None),
            Err(e) => (None, Some(format!("cannot create the log {}: {e}", path.display()))),
        };
        Self { path: path.to_owned(), file, room, problem }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let part = &bytes[..bytes.len().min(usize::try_from(self.room).unwrap_or(usize::MAX))];
        self.room -= part.len() as u64;
        let mut done = file.write_all(part);
        if part.len() < bytes.len() && done.is_ok() {
            done = file.write_all(b"\n[log truncated: size limit reached]\n");
            self.problem = Some("the log reached its size limit, so its end is missing".into());
            self.file = None;
        }
        if let Err(e) = done {
            self.problem = Some(format!("cannot write the log: {e}"));
            self.file = None;
        }
    }
}

impl Capture {
    /// Creates an empty capture and the log file, if one is given.
    #[must_use]
    pub fn new(limits: OutputLimits, log: Option<&Path>) -> Self {
        let log = log.map(|path| Log::open(path, limits.log_bytes));
        Self { limits, log, ..Self::default() }
    }

    /// Also passes each piece to `echo` as it arrives.
    #[must_use]
    pub fn echoing(self, echo: Option<fn(&[u8])>) -> Self {
        Self { echo, ..self }
    }

    /// Adds the next bytes. Returns false once the command has printed more than it is allowed to.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        if let Some(log) = &mut self.log {
            log.write(bytes);
        }
        if let Some(echo) = self.echo {
            echo(bytes);
        }
        self.total_bytes += bytes.len() as u64;
        self.newlines += count_lines(bytes);
        self.last = bytes.last().copied().or(self.last);
        let taken = self.fill_head(bytes);
        let rest = &bytes[taken..];
        // Only the end of a large piece can end up in the tail.
        let rest = &rest[rest.len().saturating_sub(self.limits.tail_bytes)..];
        let overflow = (self.tail.len() + rest.len()).saturating_sub(self.limits.tail_bytes);
        self.tail.drain(..overflow.min(self.tail.len()));
        self.tail.extend(rest);
        self.total_bytes <= self.limits.total_bytes
    }

    /// Adds as many bytes to the head as still fit, and returns how many were added.
    fn fill_head(&mut self, bytes: &[u8]) -> usize {
        if self.head_full {
            return 0;
        }
        let mut taken = 0;
        for &byte in bytes {
            if self.head.len() >= self.limits.head_bytes || self.head_lines >= self.limits.head_lines {
                self.head_full = true;
                break;
            }
            self.head.push(byte);
            self.head_lines += usize::from(byte == b'\n');
            taken += 1;
        }
        taken
    }

    /// Returns the captured output.
    #[must_use]
    pub fn finish(mut self) -> Captured {
        let mut tail: Vec<u8> = std::mem::take(&mut self.tail).into();
        let first = first_of_last_lines(&tail, self.limits.tail_lines);
        tail.drain(..first);
        let omitted_bytes = self.total_bytes - (self.head.len() + tail.len()) as u64;
        let omitted_lines = self.newlines - count_lines(&self.head) - count_lines(&tail);
        let open_line = u64::from(self.last.is_some_and(|b| b != b'\n'));
        let (log, log_problem) = match self.log {
            Some(log) => (Some(log.path), log.problem),
            None => (None, None),
        };
        Captured {
            head: self.head,
            tail,
            total_bytes: self.total_bytes,
            total_lines: self.newlines + open_line,
            omitted: (omitted_bytes > 0).then_some(Omitted { bytes: omitted_bytes, lines: omitted_lines }),
            log: log.filter(|path| path.exists()),
            log_problem,
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

/// Returns the offset where the last `lines` lines start.
fn first_of_last_lines(bytes: &[u8], lines: usize) -> usize {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let ends = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n');
    match lines.checked_sub(1) {
        None => bytes.len(),
        Some(skip) => ends.map(|(at, _)| at + 1).nth(skip).unwrap_or(0),
    }
}

/// Converts terminal output to plain text: replaces invalid UTF-8, drops escape sequences, applies
/// backspaces, drops the part of a line before a carriage return, and shows other control
/// characters as escapes such as `\x07`.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    let mut line_start = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' => {
                out.push('\n');
                line_start = out.len();
            }
            '\r' => match chars.peek() {
                Some('\n' | '\r') | None => {}
                Some(_) => out.truncate(line_start),
            },
            '\t' => out.push('\t'),
            '\u{1b}' => skip_escape(&mut chars),
            '\u{8}' => {
                if out.len() > line_start {
                    out.pop();
                }
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// Skips the rest of an escape sequence (ECMA-48).
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\n' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        Some('(' | ')' | '#' | '%') => {
            chars.next();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(head: usize, tail: usize) -> OutputLimits {
        OutputLimits::bytes(head).with_tail(tail)
    }

    impl OutputLimits {
        fn with_tail(self, tail_bytes: usize) -> Self {
            Self { tail_bytes, ..self }
        }
    }

    fn captured(limits: OutputLimits, pieces: &[&[u8]]) -> Captured {
        let mut capture = Capture::new(limits, None);
        pieces.iter().for_each(|p| {
            capture.feed(p);
        });
        capture.finish()
    }

    #[test]
    fn short_output_is_kept_completely() {
        let out = captured(limits(100, 100), &[b"one\n", b"two"]);
        assert_eq!((out.text().as_str(), out.total_lines, out.omitted), ("one\ntwo", 2, None));
    }

    #[test]
    fn beginning_and_end_of_a_flood_are_kept_and_the_rest_is_counted() {
        let middle = b"x\n".repeat(100_000);
        let out = captured(limits(6, 6), &[b"first\n", &middle, b"last!\n"]);
        assert_eq!(out.text(), "first\n[… 100000 lines left out …]\nlast!\n");
        assert_eq!(out.omitted, Some(Omitted { bytes: 200_000, lines: 100_000 }));
    }

    #[test]
    fn chunking_does_not_change_the_result() {
        let all: Vec<u8> = (0..500u32).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
        let limits = OutputLimits { head_lines: 3, tail_lines: 2, ..limits(64, 64) };
        let whole = captured(limits, &[&all]);
        for size in [1, 7, 64, 65] {
            assert_eq!(captured(limits, &all.chunks(size).collect::<Vec<_>>()), whole);
        }
        assert_eq!(whole.text(), "line 0\nline 1\nline 2\n[… 495 lines left out …]\nline 498\nline 499\n");
    }

    #[test]
    fn output_that_fits_into_head_and_tail_is_not_omitted() {
        let out = captured(limits(4, 4), &["aé¿b¿".as_bytes()]);
        assert_eq!((out.text().as_str(), out.omitted), ("aé¿b¿", None));
    }

    #[test]
    fn too_much_output_is_reported() {
        let mut capture = Capture::new(OutputLimits { total_bytes: 10, ..limits(4, 4) }, None);
        assert!(capture.feed(b"0123456789"));
        assert!(!capture.feed(b"!"));
    }

    #[test]
    fn the_log_is_complete_up_to_its_limit_and_marks_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/log.txt");
        let mut capture = Capture::new(OutputLimits { log_bytes: 8, ..limits(1, 1) }, Some(&path));
        capture.feed(b"12345");
        capture.feed(b"67890");
        let out = capture.finish();
        assert!(fs::read_to_string(&path).unwrap().starts_with("12345678\n[log truncated"));
        assert!(out.log_problem.unwrap().contains("limit"));
    }

    #[test]
    fn a_log_that_cannot_be_written_does_not_lose_the_output() {
        let mut capture = Capture::new(limits(10, 10), Some(Path::new("/proc/nowhere/log")));
        capture.feed(b"hello");
        let out = capture.finish();
        assert_eq!(
            (out.text().as_str(), out.log.is_none(), out.log_problem.is_some()),
            ("hello", true, true)
        );
    }

    #[test]
    fn terminal_control_characters_are_removed() {
        let cases: [(&[u8], &str); 8] = [
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"10%\r50%\r100%\n", "100%\n"),
            (b"dos\r\nline\r\n", "dos\nline\n"),
            (b"\x1b]0;title\x07text", "text"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"bell\x07", "bell\\x07"),
            (b"ab\x08c", "ac"),
            (b"bad \xff\xfe utf-8", "bad \u{fffd}\u{fffd} utf-8"),
        ];
        for (bytes, text) in cases {
            assert_eq!(plain(bytes), text);
        }
        assert_eq!(plain("c1 \u{9b}31m".as_bytes()), "c1 \\x9b31m");
    }
}
