//! Handles turns that begin with plain words instead of tokens.

use crate::event::Event;
use crate::parser::{Flow, Parser};
use crate::window::Window;

impl Parser {
    /// Handles `Observation:` after a ReAct call, where it begins a tool result that the model
    /// invents.
    pub(crate) fn observation(&mut self, win: Window<'_>) -> Flow {
        match self.word_here(win, b"Observation:") {
            None => Flow::More,
            Some(invented) => {
                self.foreign |= invented;
                self.plain(1)
            }
        }
    }

    /// Handles `User:` and `Human:` in the first column, which mean that the model has started to
    /// write the user's turn.
    pub(crate) fn invented_turn(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        for word in [&b"User:"[..], b"Human:"] {
            match self.word_here(win, word) {
                None => return Flow::More,
                Some(invented) => self.foreign |= invented,
            }
        }
        self.literal(win, out)
    }

    /// Handles `### Instruction:`, `### Response:` and the like, which begin turns in
    /// deepseek-coder v1.
    pub(crate) fn instruction(&mut self, win: Window<'_>) -> Flow {
        let turns = [
            (&b"### Instruction:"[..], true),
            (b"### User:", true),
            (b"### Human:", true),
            (b"### Response:", false),
            (b"### Assistant:", false),
        ];
        for (word, foreign) in turns {
            match self.word_here(win, word) {
                None => return Flow::More,
                Some(false) => {}
                Some(true) => {
                    self.foreign = foreign || self.follows_invented_turn();
                    return self.plain(word.len());
                }
            }
        }
        self.plain(1)
    }

    /// Handles the role after `<|im_start|>`. A turn with any role other than the assistant's is
    /// invented.
    pub(crate) fn role(&mut self, win: Window<'_>, out: &mut Vec<Event>) -> Flow {
        let rest = win.from(self.pos);
        let len = rest.iter().take(16).position(|b| !b.is_ascii_lowercase());
        let Some(len) = len else {
            return if rest.len() >= 16 || win.eof { self.plain(1) } else { Flow::More };
        };
        match &rest[..len] {
            b"assistant" | b"model" => self.foreign = self.follows_invented_turn(),
            b"user" | b"system" | b"tool" | b"developer" | b"ipython" | b"environment" | b"function"
            | b"observation" => self.foreign = true,
            _ => return self.plain(1),
        }
        self.role_follows = false;
        self.skip(win, self.pos + len, out);
        Flow::Go
    }

    /// Returns whether `word` is at this position, or `None` if more bytes are needed.
    fn word_here(&self, win: Window<'_>, word: &[u8]) -> Option<bool> {
        let rest = win.from(self.pos);
        if rest.len() < word.len() && word.starts_with(rest) && !win.eof {
            return None;
        }
        Some(rest.starts_with(word))
    }
}
