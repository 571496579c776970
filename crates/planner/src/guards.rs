//! Detects repeated text, endless whitespace and repeated calls. The limits are generous, because a
//! normal answer must never be cut short.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use journal::CutReason;

/// Maximum number of consecutive whitespace bytes. No normal answer has more, but DeepSeek's JSON
/// mode and Ollama's `format` are known to exceed this (docs/model-apis.md#deepseek-requests).
const MAX_WHITESPACE: usize = 400;
/// Maximum number of identical lines in a row. Tables and test data repeat lines, but not this
/// often.
const MAX_EQUAL_LINES: usize = 40;
/// The number of bytes at the end of the text that are checked for a loop (a short phrase repeated
/// over and over).
const LOOP_BYTES: usize = 1_600;
/// Maximum length of a repeated phrase to detect, in bytes.
const MAX_PERIOD: usize = 200;
/// How many new bytes must arrive before the end of the text is checked for a loop again.
const LOOK_EVERY: usize = 256;
/// The number of identical calls with identical results after which the model gets a warning.
const WARN_REPEATS: u32 = 3;
/// The number of identical calls with identical results after which the run gives up.
const MAX_REPEATS: u32 = 5;

/// Detects repetition and endless whitespace in one stream of text.
#[derive(Debug, Default)]
pub(crate) struct Degeneration {
    whitespace: usize,
    line: u64,
    line_len: usize,
    last_line: u64,
    equal_lines: usize,
    tail: Vec<u8>,
    since_look: usize,
}

impl Degeneration {
    /// Processes the next piece of text. Returns a reason to stop reading, if there is one.
    pub(crate) fn feed(&mut self, text: &str) -> Option<CutReason> {
        for &byte in text.as_bytes() {
            self.whitespace = if byte.is_ascii_whitespace() { self.whitespace + 1 } else { 0 };
            if self.whitespace > MAX_WHITESPACE {
                return Some(CutReason::Whitespace);
            }
            if byte == b'\n' {
                if self.line_len > 0 {
                    self.equal_lines = if self.line == self.last_line { self.equal_lines + 1 } else { 1 };
                    self.last_line = self.line;
                    if self.equal_lines > MAX_EQUAL_LINES {
                        return Some(CutReason::Repetition);
                    }
                }
                (self.line, self.line_len) = (0, 0);
            } else {
                self.line = self.line.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte); // FNV-1
                self.line_len += usize::from(!byte.is_ascii_whitespace());
            }
        }
        self.tail.extend_from_slice(text.as_bytes());
        self.since_look += text.len();
        if self.since_look >= LOOK_EVERY {
            self.since_look = 0;
            if self.tail.len() > 4 * LOOP_BYTES {
                self.tail.drain(..self.tail.len() - LOOP_BYTES);
            }
            if is_loop(&self.tail) {
                return Some(CutReason::Repetition);
            }
        }
        None
    }
}

/// Whether the last [`LOOP_BYTES`] bytes repeat one phrase of at most [`MAX_PERIOD`] bytes.
fn is_loop(tail: &[u8]) -> bool {
    let Some(start) = tail.len().checked_sub(LOOP_BYTES) else { return false };
    let tail = &tail[start..];
    // Rows of dashes or equals signs are normal, so the phrase must have at least two bytes, and
    // the text must contain a letter or digit.
    (2..=MAX_PERIOD).any(|period| tail[period..] == tail[..tail.len() - period])
        && tail.iter().any(u8::is_ascii_alphanumeric)
}

/// The guard's verdict on a repeated call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeats {
    /// Nothing unusual.
    Fine,
    /// Warn the model that it has made the call this many times.
    Warn(u32),
    /// End the run, because the model has made the call this many times.
    Stop(u32),
}

/// Counts identical calls with identical results.
#[derive(Debug, Default)]
pub(crate) struct EqualCalls {
    seen: HashMap<u64, u32>,
}

impl EqualCalls {
    /// Counts a call with this result, and returns the verdict.
    pub(crate) fn note(&mut self, call: impl Hash, result: &str) -> Repeats {
        let mut hasher = DefaultHasher::new();
        (call, result).hash(&mut hasher);
        let count = self.seen.entry(hasher.finish()).or_insert(0);
        *count += 1;
        match *count {
            n if n >= MAX_REPEATS => Repeats::Stop(n),
            n if n >= WARN_REPEATS => Repeats::Warn(n),
            _ => Repeats::Fine,
        }
    }

    /// Forgets everything, because the tree has changed and an identical call may now have a
    /// different result.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed_all(text: &str, piece: usize) -> Option<CutReason> {
        let mut guard = Degeneration::default();
        let chars: Vec<char> = text.chars().collect();
        chars.chunks(piece).find_map(|c| guard.feed(&c.iter().collect::<String>()))
    }

    #[test]
    fn a_sentence_repeated_over_and_over_is_cut() {
        assert_eq!(feed_all(&"Let me run the tests again. ".repeat(100), 3), Some(CutReason::Repetition));
        assert_eq!(feed_all(&"Run.\n".repeat(100), 7), Some(CutReason::Repetition));
    }

    #[test]
    fn endless_whitespace_is_cut() {
        assert_eq!(feed_all(&" \n\t ".repeat(200), 1), Some(CutReason::Whitespace));
    }

    #[test]
    fn code_and_tables_and_horizontal_rules_are_not_cut() {
        let table = (0..500).map(|i| format!("    ({i}, {}, {}),\n", i * 7 % 13, i * i)).collect::<String>();
        assert_eq!(feed_all(&table, 5), None);
        assert_eq!(feed_all(&"0, 0, 0, 0,\n".repeat(30), 5), None);
        assert_eq!(feed_all(&format!("{}\n", "-".repeat(3000)), 9), None);
    }

    #[test]
    fn equal_calls_are_counted_until_forgotten() {
        let mut guard = EqualCalls::default();
        assert_eq!(guard.note("a", "x"), Repeats::Fine);
        assert_eq!(guard.note("a", "y"), Repeats::Fine);
        assert_eq!(guard.note("a", "x"), Repeats::Fine);
        assert_eq!(guard.note("a", "x"), Repeats::Warn(3));
        assert_eq!(guard.note("a", "x"), Repeats::Warn(4));
        assert_eq!(guard.note("a", "x"), Repeats::Stop(5));
        guard.forget();
        assert_eq!(guard.note("a", "x"), Repeats::Fine);
    }
}
