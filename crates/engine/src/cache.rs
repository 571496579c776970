//! The KV cache: what each of its sequences holds, and how a new conversation reuses the start of a
//! sequence.

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::vocab::{LlamaVocab, VocabType};

use crate::saved::Saved;
use crate::sequence::Sequence;

/// The number of sequences in the cache, which limits how many answers are generated at the same
/// time. Additional requests are queued.
pub(crate) const SEQUENCES: usize = 4;

/// The cache of one model.
pub(crate) struct Cache<'m> {
    model: &'m LlamaModel,
    pub(crate) context: LlamaContext<'m>,
    sequences: [Sequence; SEQUENCES],
    exact: bool,
}

impl<'m> Cache<'m> {
    pub(crate) fn new(model: &'m LlamaModel, context: LlamaContext<'m>) -> Self {
        // SentencePiece adds a space at the start of whatever it tokenizes. Tokenizing text in
        // parts therefore yields different tokens than tokenizing it as a whole.
        let exact = model.vocab().vocab_type() == VocabType::BPE;
        Self { model, context, sequences: Default::default(), exact }
    }

    pub(crate) fn vocab(&self) -> LlamaVocab<'m> {
        self.model.vocab()
    }

    /// Returns whether tokenizing text in parts yields the same tokens as tokenizing it as a whole.
    /// If not, a conversation cannot be compared with the cache byte by byte.
    pub(crate) fn exact(&self) -> bool {
        self.exact
    }

    /// Returns whether the last tokens of a sequence can be removed. A recurrent state cannot be
    /// rewound.
    pub(crate) fn rewinds(&self) -> bool {
        !self.model.is_recurrent() && !self.model.is_hybrid()
    }

    /// Returns the tokens and the text of a sequence.
    pub(crate) fn sequence(&self, at: usize) -> &Sequence {
        &self.sequences[at]
    }

    /// Returns how many leading tokens of a sequence spell the start of `text`, or 0 if `text`
    /// would have to be tokenized to find out.
    pub(crate) fn common(&self, at: usize, text: &str) -> usize {
        if self.exact { self.sequences[at].matching(text.as_bytes()) } else { 0 }
    }

    /// Replaces the contents of the sequence `to` with the first `tokens` tokens of `from`. The two
    /// sequences then share the cells of those tokens.
    pub(crate) fn share(&mut self, from: usize, to: usize, tokens: usize) {
        let copied = self.roll_back(to, 0)
            && self
                .context
                .kv_cache_seq_cp(from as i32, to as i32, Some(0), u32::try_from(tokens).ok())
                .is_ok();
        if copied {
            self.sequences[to] = self.sequences[from].prefix(tokens);
        }
    }

    /// Loads a saved prefix into an empty sequence. Returns whether it was loaded.
    pub(crate) fn load(&mut self, saved: &Saved, at: usize, prefix: &str) -> bool {
        let Some(tokens) = saved.load(&mut self.context, at as i32, prefix) else {
            // A broken file may have been partially loaded.
            self.roll_back(at, 0);
            return false;
        };
        self.extend(at, &tokens);
        true
    }

    /// Saves a sequence that holds exactly this prefix.
    pub(crate) fn save(&self, saved: &Saved, at: usize, prefix: &str) {
        saved.save(&self.context, at as i32, prefix, self.sequences[at].tokens());
    }

    /// Returns how many leading tokens of a sequence can be kept for `text`, and the tokens for the
    /// rest of `text`.
    pub(crate) fn split(&self, at: usize, text: &str) -> (usize, Vec<LlamaToken>) {
        let sequence = &self.sequences[at];
        if self.exact {
            let text = text.as_bytes();
            let mut kept = sequence.matching(text);
            loop {
                let end = sequence.bytes(kept);
                // The matched bytes may end inside a character of the new text.
                let rest = self.tokenize_bytes(text.get(end..).unwrap_or_default(), kept == 0);
                let appended = kept == sequence.len()
                    || rest.first().is_none_or(|token| self.model.vocab().is_control(*token));
                if kept == 0 || appended || !joined(text, end) {
                    return (kept, rest);
                }
                // The tokenizer might join the text on both sides of `end` into one token.
                kept -= 1;
            }
        }
        let tokens = self.tokenize(text, true);
        let kept = sequence.tokens().iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        (kept, tokens[kept..].to_vec())
    }

    pub(crate) fn tokenize(&self, text: &str, start: bool) -> Vec<LlamaToken> {
        self.tokenize_bytes(text.as_bytes(), start)
    }

    pub(crate) fn tokenize_bytes(&self, text: &[u8], start: bool) -> Vec<LlamaToken> {
        if text.is_empty() {
            return Vec::new();
        }
        let vocab = self.model.vocab();
        // Most templates already start the text with this token.
        let bos = vocab.bos();
        let first = start && vocab.should_add_bos() && {
            let piece = vocab.token_to_piece(bos, true, None);
            piece.is_empty() || !text.starts_with(&piece)
        };
        let mut tokens = Vec::new();
        if first {
            tokens.push(bos);
        }
        tokens.extend(vocab.tokenize(text, false, true));
        tokens
    }

    /// Records that tokens were evaluated at the end of a sequence.
    pub(crate) fn extend(&mut self, at: usize, tokens: &[LlamaToken]) {
        let vocab = self.model.vocab();
        let sequence = &mut self.sequences[at];
        for token in tokens {
            // A token that only marks the start does not spell any text.
            let marks_start = sequence.len() == 0 && *token == vocab.bos() && vocab.should_add_bos();
            let piece = if marks_start { Vec::new() } else { vocab.token_to_piece(*token, true, None) };
            sequence.push(*token, &piece);
        }
    }

    /// Removes all but the first `kept` tokens of a sequence. Returns `false` if the model does not
    /// support this.
    pub(crate) fn roll_back(&mut self, at: usize, kept: usize) -> bool {
        let from = u32::try_from(kept).ok();
        let removed = self.context.kv_cache_seq_rm(at as i32, from, None).is_ok();
        if removed {
            self.sequences[at].truncate(kept);
        }
        removed
    }
}

/// Returns whether a single token could span this position. It could if the bytes on both sides are
/// of the same kind (word, number, whitespace or punctuation), if whitespace precedes the position,
/// or if punctuation precedes it and whitespace follows.
fn joined(text: &[u8], at: usize) -> bool {
    let class = |byte: u8| match byte {
        b'0'..=b'9' => 0,
        b' ' | b'\t' | b'\n' | b'\r' => 1,
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => 2,
        _ => 3,
    };
    let Some((Some(before), after)) = text.get(..at).map(|before| before.last()).zip(text.get(at)) else {
        return false;
    };
    class(*before) == class(*after) || class(*before) == 1 || (class(*before), class(*after)) == (3, 1)
}
