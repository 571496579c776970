//! Turns the bytes of sampled tokens into text. Emits only whole characters, and separates
//! reasoning from the answer.

use models::Delta;

const THINK_CLOSE: &str = "</think>";

/// The text of one answer so far.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The first bytes of a character that is still incomplete.
    partial: Vec<u8>,
    /// Text that may turn out to be the start of the marker that ends the reasoning.
    held: String,
    /// Whether the text so far is reasoning.
    thinking: bool,
}

impl Output {
    pub(crate) fn new(thinking: bool) -> Self {
        Self { thinking, ..Self::default() }
    }

    /// Adds the bytes of a token and returns the text that can be released.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<Delta> {
        self.partial.extend_from_slice(piece);
        let complete = complete(&self.partial);
        let rest = self.partial.split_off(complete);
        let text = std::mem::replace(&mut self.partial, rest);
        self.held.push_str(&String::from_utf8_lossy(&text));
        self.release()
    }

    /// Ends the answer and returns the text that was held back.
    pub(crate) fn finish(&mut self) -> Vec<Delta> {
        let partial = std::mem::take(&mut self.partial);
        self.held.push_str(&String::from_utf8_lossy(&partial));
        let mut deltas = self.release();
        let held = std::mem::take(&mut self.held);
        deltas.extend(self.delta(held));
        deltas
    }

    fn release(&mut self) -> Vec<Delta> {
        let mut deltas = Vec::new();
        if self.thinking {
            let Some((before, after)) = self.held.split_once(THINK_CLOSE) else {
                let kept = (1..THINK_CLOSE.len().min(self.held.len() + 1))
                    .rev()
                    .find(|length| self.held.ends_with(&THINK_CLOSE[..*length]))
                    .unwrap_or(0);
                let rest = self.held.split_off(self.held.len() - kept);
                let text = std::mem::replace(&mut self.held, rest);
                deltas.extend(self.delta(text));
                return deltas;
            };
            let (before, after) = (before.to_owned(), after.trim_start_matches('\n').to_owned());
            deltas.extend(self.delta(before));
            self.thinking = false;
            self.held = after;
        }
        let text = std::mem::take(&mut self.held);
        deltas.extend(self.delta(text));
        deltas
    }

    fn delta(&self, text: String) -> Option<Delta> {
        (!text.is_empty()).then(|| if self.thinking { Delta::Thinking(text) } else { Delta::Text(text) })
    }
}

/// Returns the length of `bytes`, excluding an incomplete character at the end.
fn complete(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Ok(_) => bytes.len(),
        // Skip invalid bytes in the middle; only the end matters.
        Err(error) => {
            let bad = error.valid_up_to() + error.error_len().unwrap_or(1);
            bad + complete(&bytes[bad..])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(deltas: Vec<Delta>) -> String {
        let part = |delta| match delta {
            Delta::Text(text) => text,
            Delta::Thinking(text) => format!("({text})"),
            other => format!("{other:?}"),
        };
        deltas.into_iter().map(part).collect()
    }

    #[test]
    fn a_character_split_over_tokens_is_emitted_whole() {
        let mut output = Output::new(false);
        assert_eq!(text(output.push(b"a\xe2\x82")), "a");
        assert_eq!(text(output.push(b"\xacb\xff\xc3")), "\u{20ac}b\u{fffd}");
        assert_eq!(text(output.finish()), "\u{fffd}");
    }

    #[test]
    fn reasoning_ends_at_its_mark_however_the_tokens_split_it() {
        for pieces in
            [&["why</think>\n\nso"][..], &["why<", "/thi", "nk>", "\n\nso"], &["why", "</think>", "\n\nso"]]
        {
            let mut output = Output::new(true);
            let mut all: String = pieces.iter().map(|piece| text(output.push(piece.as_bytes()))).collect();
            all.push_str(&text(output.finish()));
            assert_eq!(all.replace(")(", "").replace('\n', ""), "(why)so", "{pieces:?}");
        }
    }
}
