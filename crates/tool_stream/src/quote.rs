//! Decides which quote ends a string.
//!
//! Models sometimes forget the backslash before a quote inside a string. A quote therefore ends its
//! string only if it is followed by text that may come after a string. In an object, the quote must
//! be followed by a comma and the next key with its colon, or by a closing brace and text that may
//! follow the object. In an array, the quote must be followed by a comma and another element, or by
//! the closing bracket. Every closing quote in valid JSON meets these conditions, so valid JSON is
//! never reinterpreted.
//!
//! Once a string is known to contain unescaped quotes, the rules are stricter. If the brackets
//! inside the string do not balance, the quote is one more inner quote. If the inner quotes do not
//! come in pairs, the call is ambiguous and refused. After the object, the line must end, or a tag,
//! a fence, a bracket or a comma must follow. In an array, a string with inner quotes must be on a
//! line of its own.

use crate::event::Repair;
use crate::json::{Frame, Node};
use crate::window::Window;

/// How a string is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quote {
    Double,
    Single,
    Backtick,
    SmartDouble,
    SmartSingle,
    TripleDouble,
    TripleSingle,
    /// Gemma 4's `<|"|>`, a token.
    Gemma,
    /// FunctionGemma's `<escape>`, a token.
    Escape,
}

impl Quote {
    pub(crate) fn repair(self) -> Option<Repair> {
        match self {
            Quote::Double => None,
            Quote::Single => Some(Repair::SingleQuotes),
            Quote::Backtick => Some(Repair::BacktickQuotes),
            Quote::SmartDouble | Quote::SmartSingle => Some(Repair::SmartQuotes),
            Quote::TripleDouble | Quote::TripleSingle => Some(Repair::TripleQuotes),
            Quote::Gemma | Quote::Escape => None,
        }
    }

    /// Returns whether a backslash is an escape in a string with this delimiter.
    pub(crate) fn escapes(self) -> bool {
        !matches!(self, Quote::Gemma | Quote::Escape)
    }

    /// Returns the quote token at the start of `rest`, `Some(None)` if there is none, or `None` if
    /// more bytes are needed.
    pub(crate) fn token(rest: &[u8], eof: bool) -> Option<Option<Quote>> {
        let quotes = [Quote::Gemma, Quote::Escape];
        if let Some(quote) = quotes.into_iter().find(|q| rest.starts_with(q.spelling())) {
            return Some(Some(quote));
        }
        let undecided = !eof && quotes.iter().any(|q| q.spelling().starts_with(rest));
        if undecided { None } else { Some(None) }
    }

    fn spelling(self) -> &'static [u8] {
        match self {
            Quote::Gemma => b"<|\"|>",
            Quote::Escape => b"<escape>",
            _ => b"",
        }
    }

    /// Returns the length of the delimiter in bytes.
    pub(crate) fn len(self) -> usize {
        match self {
            Quote::Double | Quote::Single | Quote::Backtick => 1,
            Quote::Gemma | Quote::Escape => self.spelling().len(),
            _ => 3,
        }
    }

    pub(crate) fn first_byte(self) -> u8 {
        match self {
            Quote::Double | Quote::TripleDouble => b'"',
            Quote::Single | Quote::TripleSingle => b'\'',
            Quote::Backtick => b'`',
            Quote::SmartDouble | Quote::SmartSingle => 0xE2,
            Quote::Gemma | Quote::Escape => b'<',
        }
    }

    /// Returns whether `rest` starts with the delimiter, or `None` if more bytes are needed.
    pub(crate) fn matches(self, rest: &[u8], eof: bool) -> Option<bool> {
        if self.len() == 1 {
            return Some(true);
        }
        if !self.escapes() {
            return Quote::token(rest, eof).map(|quote| quote == Some(self));
        }
        let triple = matches!(self, Quote::TripleDouble | Quote::TripleSingle);
        if rest.len() >= 3 + usize::from(triple && !eof) {
            return Some(match self {
                Quote::SmartDouble => matches!(rest, [0xE2, 0x80, 0x9C..=0x9F, ..]),
                Quote::SmartSingle => matches!(rest, [0xE2, 0x80, 0x98..=0x9B, ..]),
                // Of four quotes in a row, the last three end the string.
                _ => rest[1] == rest[0] && rest[2] == rest[0] && rest.get(3) != Some(&rest[0]),
            });
        }
        if eof { Some(false) } else { None }
    }
}

/// A string being read.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) quote: Quote,
    pub(crate) is_key: bool,
    /// Offset of the first byte after the opening quote.
    pub(crate) body: usize,
    /// Whether the opening quote is the first thing on its line.
    pub(crate) line_start: bool,
    /// Number of quotes so far that are part of the text.
    pub(crate) inner: usize,
    /// Offset of the quote being examined.
    pub(crate) candidate: usize,
    pub(crate) lookahead: Option<Lookahead>,
    /// Python's `r"…"`: backslashes are literal.
    pub(crate) raw: bool,
    balance: Balance,
}

impl Text {
    pub(crate) fn new(quote: Quote, is_key: bool, body: usize, line_start: bool) -> Text {
        let balance = Balance { upto: body, ..Balance::default() };
        Text {
            quote,
            is_key,
            body,
            line_start,
            inner: 0,
            candidate: body,
            lookahead: None,
            raw: false,
            balance,
        }
    }

    /// Returns whether only line breaks can distinguish inner quotes from the closing one, which is
    /// the case if the string is in an array and has inner quotes.
    pub(crate) fn needs_lines(&self, stack: &[Frame]) -> bool {
        self.inner > 0 && matches!(stack.last(), Some(Frame { node: Node::Array(_), .. }))
    }
}

/// Counts the brackets in a string up to the offset `upto`, to tell whether they balance.
#[derive(Debug, Default)]
struct Balance {
    upto: usize,
    depth: [i64; 3],
    negative: bool,
}

impl Balance {
    fn is_balanced(&mut self, win: Window<'_>, to: usize) -> bool {
        for &b in win.slice(self.upto, to) {
            let (kind, step) = match b {
                b'{' => (0, 1),
                b'}' => (0, -1),
                b'[' => (1, 1),
                b']' => (1, -1),
                b'(' => (2, 1),
                b')' => (2, -1),
                _ => continue,
            };
            self.depth[kind] += step;
            self.negative |= self.depth[kind] < 0;
        }
        self.upto = to;
        !self.negative && self.depth == [0; 3]
    }
}

/// The result of examining a quote.
pub(crate) enum Verdict {
    More,
    Closes,
    Inner,
    /// Both interpretations make sense.
    Unclear,
}

/// Examines the bytes after a quote one by one. When more bytes arrive, resumes where it left off.
#[derive(Debug)]
pub(crate) struct Lookahead {
    pos: usize,
    phase: Phase,
    newline: bool,
    /// Number of containers closed after the quote.
    closed: usize,
    /// Whether a plus sign and another quote follow, which may be an expression that joins two
    /// strings or part of this string.
    joined: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    AfterQuote,
    Plus,
    Slash,
    AfterCloser,
    AfterComma,
    Key(u8),
    KeyEscape(u8),
    BareKey,
    KeyEnd,
    AfterElement,
    AfterTop,
}

impl Lookahead {
    pub(crate) fn new(pos: usize) -> Lookahead {
        Lookahead { pos, phase: Phase::AfterQuote, newline: false, closed: 0, joined: false }
    }

    /// Examines bytes until the quote can be judged. `doubt` means that unescaped quotes have been
    /// seen in this object, so the rules are stricter.
    pub(crate) fn run(&mut self, win: Window<'_>, stack: &[Frame], doubt: bool, text: &mut Text) -> Verdict {
        loop {
            let Some(byte) = win.get(self.pos) else {
                // After a closed object, the end of the stream is treated as the end of a line.
                let ends = win.eof && matches!(self.phase, Phase::AfterTop);
                return if ends { self.closing(win, text, stack) } else { Verdict::More };
            };
            let done = self.byte(byte, stack, doubt, text);
            self.pos += 1;
            match done {
                None => {}
                Some(true) => return self.closing(win, text, stack),
                Some(false) => return Verdict::Inner,
            }
        }
    }

    /// Judges a quote that is followed by text that may come after a string. If the string is in an
    /// object and has inner quotes, its brackets must balance, and the inner quotes must come in
    /// pairs unless the string is in single quotes.
    fn closing(&self, win: Window<'_>, text: &mut Text, stack: &[Frame]) -> Verdict {
        if self.joined {
            return Verdict::Unclear;
        }
        if text.inner == 0 || text.needs_lines(stack) {
            return Verdict::Closes;
        }
        if !text.balance.is_balanced(win, text.candidate) {
            return Verdict::Inner;
        }
        let paired = matches!(text.quote, Quote::Single | Quote::SmartSingle) || text.inner.is_multiple_of(2);
        if paired { Verdict::Closes } else { Verdict::Unclear }
    }

    /// Examines the next byte. Returns `Some(true)` if the bytes after the quote show that it may
    /// end the string, `Some(false)` if they show that it cannot, and `None` if undecided.
    fn byte(&mut self, byte: u8, stack: &[Frame], doubt: bool, text: &Text) -> Option<bool> {
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
            && !matches!(self.phase, Phase::Key(_) | Phase::KeyEscape(_))
        {
            return self.blank(byte, text, stack);
        }
        match self.phase {
            Phase::AfterQuote => self.after_quote(byte, stack, doubt, text),
            Phase::Plus => {
                self.joined = matches!(byte, b'"' | b'\'');
                Some(self.joined)
            }
            Phase::Slash => Some(matches!(byte, b'/' | b'*')),
            Phase::AfterCloser => match byte {
                b',' | b'#' => Some(true),
                b'}' | b']' => self.closer(byte, stack, doubt),
                b'/' => self.to(Phase::Slash),
                _ => Some(false),
            },
            Phase::AfterComma => match byte {
                b'"' | b'\'' => self.to(Phase::Key(byte)),
                0xE2 => self.to(Phase::Key(0xE2)),
                b'}' | b'#' => Some(true),
                b'/' => self.to(Phase::Slash),
                b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => self.to(Phase::BareKey),
                _ => Some(false),
            },
            Phase::Key(quote) => match byte {
                b'\n' => Some(false),
                b'\\' => self.to(Phase::KeyEscape(quote)),
                // A typographic quote has several bytes, so a key in such quotes is assumed to end
                // at the next colon.
                _ if byte == quote && quote != 0xE2 => self.to(Phase::KeyEnd),
                b':' if quote == 0xE2 => Some(true),
                _ => None,
            },
            Phase::KeyEscape(quote) => self.to(Phase::Key(quote)),
            Phase::BareKey => match byte {
                b':' => Some(true),
                b'_' | b'$' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => None,
                _ => Some(false),
            },
            Phase::KeyEnd => Some(byte == b':'),
            Phase::AfterElement if text.needs_lines(stack) => Some(false),
            Phase::AfterElement => match byte {
                b'/' => self.to(Phase::Slash),
                b'"' | b'\'' | b'{' | b'[' | b']' | b'-' | b'0'..=b'9' | b'#' | 0xE2 => Some(true),
                b't' | b'f' | b'n' | b'T' | b'F' | b'N' => Some(true),
                _ => Some(false),
            },
            Phase::AfterTop => Some(matches!(byte, b'<' | b'`' | b']' | b'[' | b',' | b'}')),
        }
    }

    fn to(&mut self, phase: Phase) -> Option<bool> {
        self.phase = phase;
        None
    }

    fn blank(&mut self, byte: u8, text: &Text, stack: &[Frame]) -> Option<bool> {
        match self.phase {
            Phase::BareKey => self.to(Phase::KeyEnd),
            Phase::AfterTop if byte == b'\n' => Some(true),
            // If only line breaks can decide, a quote before a comma at the end of a line ends the
            // string.
            Phase::AfterElement if byte == b'\n' && text.needs_lines(stack) => Some(true),
            Phase::Slash => Some(false),
            _ => {
                self.newline |= byte == b'\n';
                None
            }
        }
    }

    fn after_quote(&mut self, byte: u8, stack: &[Frame], doubt: bool, text: &Text) -> Option<bool> {
        let in_object = matches!(stack.last(), Some(Frame { node: Node::Object { .. }, .. }));
        match byte {
            b',' => self.to(if in_object { Phase::AfterComma } else { Phase::AfterElement }),
            b']' if !self.newline && text.needs_lines(stack) => Some(false),
            b'}' | b']' => self.closer(byte, stack, doubt),
            b'/' if text.inner == 0 => self.to(Phase::Slash),
            b'+' if text.inner == 0 => self.to(Phase::Plus),
            // A key begins on the next line, so the comma between the two members is missing.
            b'"' | b'\'' if in_object && self.newline => self.to(Phase::Key(byte)),
            _ => Some(false),
        }
    }

    /// Handles a closing bracket after the quote, which must close the innermost container that is
    /// still open.
    fn closer(&mut self, byte: u8, stack: &[Frame], doubt: bool) -> Option<bool> {
        let open = stack.len().checked_sub(1 + self.closed).and_then(|i| stack.get(i));
        let fits = match open {
            Some(Frame { node: Node::Object { .. }, .. }) => byte == b'}',
            Some(Frame { node: Node::Array(_), .. }) => byte == b']',
            None => false,
        };
        if !fits {
            return Some(false);
        }
        self.closed += 1;
        if self.closed == stack.len() {
            return if doubt { self.to(Phase::AfterTop) } else { Some(true) };
        }
        if self.closed >= 2 && !doubt {
            return Some(true);
        }
        self.to(Phase::AfterCloser)
    }
}
