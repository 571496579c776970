//! Tokens without a tokenizer: token-sized pieces for streaming, an estimate for counting, and the
//! prefix cache of a server.

/// The maximum length of a piece of a word, in characters.
const PIECE: usize = 6;

/// Splits text into token-sized pieces that concatenate to the original text.
pub fn split(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut length = 0;
    let mut previous: Option<Kind> = None;
    for (at, c) in text.char_indices() {
        let kind = Kind::of(c);
        let joins = match (previous, kind) {
            (Some(Kind::Word), Kind::Word) => length < PIECE,
            (Some(Kind::Space), Kind::Word) => length == 1,
            (Some(Kind::Space), Kind::Space) => true,
            _ => false,
        };
        if !joins && at > start {
            pieces.push(&text[start..at]);
            start = at;
            length = 0;
        }
        length += 1;
        previous = Some(kind);
    }
    if start < text.len() {
        pieces.push(&text[start..]);
    }
    pieces
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Space,
    Other,
}

impl Kind {
    fn of(c: char) -> Self {
        if c.is_alphanumeric() || c == '_' {
            Self::Word
        } else if c.is_whitespace() {
            Self::Space
        } else {
            Self::Other
        }
    }
}

/// Estimates the number of tokens in the text, at four bytes each.
pub fn estimate(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

/// The last prompt in each slot of a server. The server reuses the prefix that a new prompt shares
/// with one of these prompts, and does not evaluate it again.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    slots: Vec<(String, String)>,
}

impl PrefixCache {
    /// Returns the number of tokens at the start of `prompt` that a slot holds for this model. This
    /// is never the whole prompt, because the last token is always evaluated.
    pub(crate) fn cached(&self, model: &str, prompt: &str) -> u64 {
        self.best(model, prompt)
            .map_or(0, |(_, common)| (common as u64 / 4).min(estimate(prompt).saturating_sub(1)))
    }

    /// Stores a prompt and the text generated after it in the slot with the longest common prefix.
    /// If no slot has a common prefix, uses a free slot (there are `slots` in total) or, if there
    /// is none, the oldest slot.
    pub(crate) fn remember(&mut self, model: &str, prompt: &str, generated: &str, slots: usize) {
        let replaced = match self.best(model, prompt) {
            Some((at, common)) if common > 0 => Some(at),
            _ if self.slots.len() >= slots.max(1) => Some(0),
            _ => None,
        };
        if let Some(at) = replaced {
            self.slots.remove(at);
        }
        self.slots.push((model.to_owned(), format!("{prompt}{generated}")));
    }

    /// Forgets the prompts of a model that is unloaded or reloaded.
    pub(crate) fn forget(&mut self, model: &str) {
        self.slots.retain(|(held, _)| held != model);
    }

    fn best(&self, model: &str, prompt: &str) -> Option<(usize, usize)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, (held, _))| held == model)
            .map(|(at, (_, text))| (at, common_prefix(text, prompt)))
            .max_by_key(|(_, common)| *common)
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_small_and_concatenate_to_the_text() {
        let text = "fn main() {\n    println!(\"Größe: {}\", a_long_identifier_here);\n}\n\u{1F600}";
        let pieces = split(text);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.len() > 20, "{pieces:?}");
        assert!(pieces.iter().all(|piece| piece.chars().count() <= PIECE + 1), "{pieces:?}");
    }

    #[test]
    fn the_cache_covers_a_prompt_up_to_its_first_change() {
        let mut cache = PrefixCache::default();
        cache.remember("m", "aaaabbbb", "cccc", 1);
        assert_eq!(cache.cached("m", "aaaabbbbccccdddd"), 3);
        assert_eq!(cache.cached("m", "aaaaXbbb"), 1);
        assert_eq!(cache.cached("other", "aaaabbbb"), 0);
    }

    #[test]
    fn one_slot_holds_one_conversation_and_two_slots_hold_two() {
        for (slots, expected) in [(1, 0), (2, 1)] {
            let mut cache = PrefixCache::default();
            cache.remember("m", "aaaabbbb", "", slots);
            cache.remember("m", "zzzzzzzz", "", slots);
            assert_eq!(cache.cached("m", "aaaacccc"), expected);
        }
    }
}
