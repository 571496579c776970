//! A sequence in the KV cache: its tokens, and the text that they spell.
//!
//! A conversation is compared with the cache byte by byte, not token by token, because a model does
//! not always write its text with the tokens that the tokenizer would choose, and because an answer
//! may be cut off in the middle of a token. All whole tokens before the first difference are
//! reused.

use llama_cpp_2::token::LlamaToken;

/// The evaluated tokens of one sequence, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequence {
    tokens: Vec<LlamaToken>,
    /// The byte offset in `text` at which each token ends.
    ends: Vec<usize>,
    text: Vec<u8>,
}

impl Sequence {
    /// Returns the number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns the tokens.
    pub(crate) fn tokens(&self) -> &[LlamaToken] {
        &self.tokens
    }

    /// Appends a token that spells `piece`.
    pub(crate) fn push(&mut self, token: LlamaToken, piece: &[u8]) {
        self.tokens.push(token);
        self.text.extend_from_slice(piece);
        self.ends.push(self.text.len());
    }

    /// Keeps the first `tokens` tokens.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
        self.ends.truncate(tokens);
        self.text.truncate(self.bytes(tokens));
    }

    /// Returns a copy of the first `tokens` tokens.
    pub(crate) fn prefix(&self, tokens: usize) -> Self {
        Self {
            tokens: self.tokens[..tokens].to_vec(),
            ends: self.ends[..tokens].to_vec(),
            text: self.text[..self.bytes(tokens)].to_vec(),
        }
    }

    /// Returns the length, in bytes, of the text that the first `tokens` tokens spell.
    pub(crate) fn bytes(&self, tokens: usize) -> usize {
        tokens.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0)
    }

    /// Returns the number of leading tokens that spell the start of `text`.
    pub(crate) fn matching(&self, text: &[u8]) -> usize {
        let common = self.text.iter().zip(text).take_while(|(ours, theirs)| ours == theirs).count();
        self.ends.partition_point(|end| *end <= common)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(pieces: &[&str]) -> Sequence {
        let mut sequence = Sequence::default();
        for (id, piece) in (0..).zip(pieces) {
            sequence.push(LlamaToken(id), piece.as_bytes());
        }
        sequence
    }

    #[test]
    fn a_cut_inside_a_token_keeps_the_tokens_before_it() {
        let cache = sequence(&["", "let x", " = ", "1;\n"]);
        assert_eq!(cache.matching(b"let x = 1;\nmore"), 4);
        assert_eq!(cache.matching(b"let x = 1"), 3);
        assert_eq!(cache.matching(b"let y"), 1, "a token without text always matches");
        assert_eq!(cache.matching(b""), 1);
    }

    #[test]
    fn a_truncated_sequence_spells_the_tokens_it_kept() {
        let mut cache = sequence(&["ab", "cd", "e"]);
        cache.truncate(2);
        assert_eq!((cache.len(), cache.bytes(2), cache.matching(b"abcde")), (2, 4, 2));
        cache.push(LlamaToken(9), b"x");
        assert_eq!(cache.matching(b"abcdx"), 3);
        assert_eq!(cache.prefix(1).tokens(), [LlamaToken(0)]);
        cache.truncate(0);
        assert_eq!((cache.len(), cache.bytes(0)), (0, 0));
    }
}
