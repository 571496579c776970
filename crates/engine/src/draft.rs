//! Guesses the next tokens from the text so far (prompt lookup decoding). An answer that repeats a
//! file from the prompt is mostly a copy of it, and evaluating several guessed tokens takes hardly
//! any longer than evaluating one. A guessed token is used only if the sampler chooses the same
//! one, so guesses change an answer only where two tokens are so close in probability that rounding
//! decides between them.

use llama_cpp_2::token::LlamaToken;

/// Maximum number of tokens to guess at once.
const MOST: usize = 16;
/// The length of the first guess.
const FIRST: usize = 4;
/// Minimum number of tokens to guess at once.
const LEAST: usize = 2;
/// The shortest match to base a guess on, in tokens. A shorter one says too little about what
/// follows.
const LEAST_COMMON: usize = 3;
/// The longest match to look for, in tokens. A longer one says no more about what follows.
const MOST_COMMON: usize = 32;

/// The length of the next guess for an answer. It adapts to how many guessed tokens turn out to be
/// right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draft {
    length: usize,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self { length: FIRST }
    }

    /// Finds the longest sequence at the end of `tokens` that also occurs earlier. Returns up to
    /// `limit` of the tokens that follow its most recent earlier occurrence.
    pub(crate) fn guess(self, tokens: &[LlamaToken], limit: usize) -> &[LlamaToken] {
        let Some((last, before)) = tokens.split_last() else { return &[] };
        let occurrences = (0..before.len()).rev().filter(|at| before[*at] == *last);
        let common = |at: usize| {
            let pairs = tokens[..=at].iter().rev().zip(tokens.iter().rev());
            pairs.take(MOST_COMMON).take_while(|(a, b)| a == b).count()
        };
        let mut best = (LEAST_COMMON - 1, None);
        for at in occurrences {
            let common = common(at);
            if common > best.0 {
                best = (common, Some(at + 1));
            }
            if common >= MOST_COMMON {
                break;
            }
        }
        let Some(start) = best.1 else { return &[] };
        &tokens[start..tokens.len().min(start + self.length.min(limit))]
    }

    /// Adapts the length after a guess of `all` tokens, the first `right` of which were correct.
    pub(crate) fn learn(&mut self, right: usize, all: usize) {
        if right < all {
            self.length = right.max(LEAST);
        } else if all > 0 {
            self.length = (self.length * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &str, limit: usize) -> String {
        let tokens: Vec<LlamaToken> = text.bytes().map(|byte| LlamaToken(byte.into())).collect();
        let guess = Draft { length: MOST }.guess(&tokens, limit);
        guess.iter().map(|token| char::from(token.0 as u8)).collect()
    }

    #[test]
    fn the_text_after_the_longest_earlier_match_is_guessed() {
        assert_eq!(guess("if a then b. or a then c. so if a then", 3), " b.");
        assert_eq!(guess("abc1 abc2 abc", 1), "2", "the latest of equally long matches");
        assert_eq!(guess("abcabc", 9), "abc");
        assert_eq!(guess("ab ab", 9), "", "a match of two tokens is too short");
        assert_eq!((guess("", 9), guess("aaaa", 0)), (String::new(), String::new()));
    }

    #[test]
    fn guesses_get_longer_when_right_and_shorter_when_wrong() {
        let mut draft = Draft::new();
        draft.learn(4, 4);
        assert_eq!(draft.length, 8);
        draft.learn(8, 8);
        draft.learn(16, 16);
        assert_eq!(draft.length, MOST);
        draft.learn(5, 16);
        assert_eq!(draft.length, 5);
        draft.learn(0, 5);
        draft.learn(0, 0);
        assert_eq!(draft.length, LEAST);
    }
}
