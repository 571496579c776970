//! Finds values that are secret because of the name they are assigned to: `DB_PASSWORD=…`,
//! `"api_key": "…"`, `password: …`.
//!
//! Masking a harmless value hides code from the model, so this module errs on the side of showing
//! values. In code, only values that look random are masked. On a line of a `.env` file, less
//! evidence is enough.

use std::ops::Range;

use crate::scan::{run, word};

/// Endings of the names that secrets are assigned to, in lowercase.
pub(crate) const NAMES: &str = "password passwd passphrase secret token _key -key apikey accesskey \
    privatekey accountkey signingkey encryptionkey secretkey masterkey credential credentials _auth \
    _pass pwd";

/// Suffixes that may follow such an ending.
const ENDINGS: &str = "_base _value key _key -key _key_base";
const LONGEST_NAME: usize = 64;
/// The maximum length, in bytes, of the text before the name in a `.env` line, such as a line
/// number, a diff marker or `export`.
const MAX_LEAD: usize = 24;
const LONGEST: usize = 1024;
const SHORTEST: usize = 8;

/// Words that are used in place of a real value.
const WORDS: &str = "password passwd passphrase changeme postgres postgresql required optional \
    disabled enabled undefined username development production localhost default password1 \
    password123 secret123 testpass testing unknown anonymous userpass mypassword mysecret secretkey \
    mysecretpassword guest";

/// Substrings that mark a value as fake.
const PARTS: &str = "example your placeholder change-me changeme change_me xxxx **** .... todo \
    redacted replace insert dummy sample 1234567890 abcdefgh 0000000 < { }";

/// Returns whether a value is an example that documentation uses in place of a real secret.
pub(crate) fn is_example(value: &[u8]) -> bool {
    let value = String::from_utf8_lossy(value).to_ascii_lowercase();
    let mut letters: Vec<u8> = value.bytes().collect();
    letters.sort_unstable();
    letters.dedup();
    WORDS.split(' ').any(|word| word == value)
        || PARTS.split(' ').any(|part| value.contains(part))
        || letters.len() < 4
}

/// Returns whether a value looks random: it contains digits, it is not made of words, and either
/// its letters alternate with digits or it contains symbols.
pub(crate) fn is_random(value: &[u8]) -> bool {
    let digit = |b: &u8| b.is_ascii_digit();
    let digits = value.iter().filter(|b| digit(b)).count();
    if digits == 0 || digits == value.len() || is_words(value) || is_example(value) {
        return false;
    }
    let alternations = value
        .windows(2)
        .filter(|w| {
            w[0].is_ascii_alphanumeric() && w[1].is_ascii_alphanumeric() && digit(&w[0]) != digit(&w[1])
        })
        .count();
    let symbols =
        value.iter().any(|b| matches!(b, b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'*' | b'~' | b'?'));
    alternations >= 2 || symbols
}

/// Returns whether a value consists only of words, numbers, and words that end with a number, with
/// any separators.
fn is_words(value: &[u8]) -> bool {
    value.split(|b| !b.is_ascii_alphanumeric()).all(|part| {
        let letters = part.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let digits = part[letters..].iter().take_while(|b| b.is_ascii_digit()).count();
        let humps =
            part.windows(2).filter(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase()).count();
        letters + digits == part.len() && digits <= 4 && humps * 4 <= part.len()
    })
}

/// The kind of line that assigns a value, which determines how much evidence is needed to mask the
/// value.
#[derive(Clone, Copy, PartialEq)]
enum Context {
    /// A `NAME=…` line in a `.env` file, where the name can only mean a secret.
    EnvFile,
    /// Anything else.
    Code,
}

/// Finds the value that is assigned to a name. `at` is the position of one of [`NAMES`] in that
/// name. Returns the value's span if it looks like a real secret.
pub(crate) fn judge(text: &[u8], at: Range<usize>) -> Option<Range<usize>> {
    let mut end = at.end;
    if text.get(end).is_some_and(|b| word(*b) || *b == b'-') {
        let rest = &text[end..text.len().min(end + 12)];
        let ending = ENDINGS
            .rsplit(' ')
            .find(|e| rest.len() >= e.len() && rest[..e.len()].eq_ignore_ascii_case(e.as_bytes()));
        end += ending.map_or(0, |e| e.len());
        // A number after the name, as in `API_KEY_2`.
        let joined =
            usize::from(text.get(end) == Some(&b'_') && text.get(end + 1).is_some_and(u8::is_ascii_digit));
        end += joined + run(text, end + joined, 3, |b| b.is_ascii_digit());
        if text.get(end).is_some_and(|b| word(*b)) {
            return None;
        }
    }
    let before = text[..at.end]
        .iter()
        .rev()
        .take(LONGEST_NAME)
        .take_while(|b| word(**b) || matches!(b, b'-' | b'.'))
        .count();
    let start = at.end - before;
    let name = &text[start..end];
    let anchor = text[at.clone()].to_ascii_lowercase();
    // The name `pwd` often means the working directory, so mask its value only if `=` follows the
    // name directly.
    if anchor == b"pwd" && name.eq_ignore_ascii_case(b"pwd") && text.get(end) != Some(&b'=') {
        return None;
    }
    let (value, quoted) = value(text, start, end)?;
    let shown = &text[value.clone()];
    if shown.len() < SHORTEST
        || shown.iter().any(|b| !(0x21..0x7f).contains(b))
        || memchr::memmem::find(shown, b"[secret-").is_some()
    {
        return None;
    }
    if anchor == b"pwd" && shown[0] == b'/' || shown.starts_with(b"./") || shown.starts_with(b"~/") {
        return None; // a path
    }
    let secret = match context(text, start, end, &anchor) {
        Context::EnvFile => may_be_secret(shown),
        Context::Code => {
            let code = shown.iter().any(|b| b"[](){}|\\<>$`,; ".contains(b));
            // An unquoted expression such as `self.key`.
            let part = |b: &u8| word(*b) || *b == b'.';
            let expression =
                !quoted && shown.contains(&b'.') && shown.iter().all(part) && !shown[0].is_ascii_digit();
            let address = memchr::memmem::find(shown, b"://").is_some();
            // Names with these endings, such as `sort_key`, do not necessarily denote secrets, so
            // mask only long values.
            let long =
                !matches!(anchor.as_slice(), b"_key" | b"-key" | b"_auth" | b"credential" | b"credentials")
                    || shown.len() >= 16;
            let sure = quoted || shown.len() >= 12;
            !code && !expression && !address && long && sure && is_random(shown)
        }
    };
    secret.then_some(value)
}

/// Returns whether a value from a `.env` file may be a real secret.
fn may_be_secret(value: &[u8]) -> bool {
    let template = value.iter().any(|b| b"$()`<>{}".contains(b));
    let address = memchr::memmem::find(value, b"://").is_some() || matches!(value[0], b'/' | b'.' | b'~');
    let number = value.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    let name = value.iter().all(|b| b.is_ascii_uppercase() || *b == b'_');
    let constant = value.iter().all(|b| b.is_ascii_lowercase()) && value.len() < 12;
    !template && !address && !number && !name && !constant && !is_example(value)
}

/// Determines the kind of line. A line in a `.env` file starts with `NAME=`, where the name is in
/// capitals and is not followed by a space.
fn context(text: &[u8], start: usize, end: usize, anchor: &[u8]) -> Context {
    let name = &text[start..end];
    let certain = matches!(
        anchor,
        b"password" | b"passwd" | b"passphrase" | b"secret" | b"_pass" | b"token" | b"_key" | b"apikey"
    );
    let capitals = name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
    let line = text[..start].iter().rev().take(MAX_LEAD).take_while(|b| **b != b'\n').count();
    let mut before = &text[start - line..start];
    if let Some(bar) = before.iter().position(|b| *b == b'|') {
        before = &before[bar + 1..]; // after a line number
    }
    let before = before.trim_ascii_start();
    let before =
        before.strip_prefix(b"+").or_else(|| before.strip_prefix(b"-")).unwrap_or(before).trim_ascii();
    let first = before.is_empty() || before == b"export" || before.ends_with(b".env:") || before == b"ENV";
    let whole = line < MAX_LEAD || start == line;
    if certain && capitals && first && whole && text.get(end) == Some(&b'=') {
        Context::EnvFile
    } else {
        Context::Code
    }
}

/// Returns the span of the value assigned to a name, and whether it is quoted.
fn value(text: &[u8], start: usize, end: usize) -> Option<(Range<usize>, bool)> {
    let blank = |b: u8| b == b' ' || b == b'\t';
    let mut at = end + run(text, end, 2, |b| b == b'\\');
    let closing = run(text, at, 1, |b| matches!(b, b'"' | b'\'' | b'`'));
    at += closing;
    at += run(text, at, 1, |b| b == b']');
    at += run(text, at, 32, blank);
    let tight = at == end;
    // A type annotation, as in `let key: &str = …`.
    if text.get(at) == Some(&b':') && text.get(at + 1) != Some(&b'=') {
        let typed =
            run(text, at + 1, 32, |b| word(b) || matches!(b, b' ' | b'&' | b'\'' | b'?' | b'<' | b'>'));
        if text.get(at + 1 + typed) == Some(&b'=') && typed > 1 {
            at += 1 + typed;
        }
    }
    let sign = text.get(at)?;
    at += match (sign, text.get(at + 1)) {
        (b':', Some(b'=')) | (b'=', Some(b'=' | b'>' | b'~')) | (b'!', Some(b'=')) => 2,
        (b'=' | b':', _) => 1,
        (b',', _) if closing == 1 => 1,
        (b'>', _) if tight => return element(text, at + 1).map(|value| (value, true)),
        _ => return None,
    };
    at += run(text, at, 1, |b| b == b'='); // as in `===`
    let compact = tight && at == end + 1;
    at += run(text, at, 32, blank);
    at += run(text, at, 2, |b| matches!(b, b'r' | b'b' | b'u' | b'B' | b'@')).min(literal_prefix(text, at));
    at += run(text, at, 2, |b| b == b'\\');
    match text.get(at)? {
        quote @ (b'"' | b'\'' | b'`') => {
            let from = at + 1;
            let length = run(text, from, LONGEST + 1, |b| b != *quote && b != b'\n');
            let closed = text.get(from + length) == Some(quote) && length <= LONGEST;
            let inner = &text[from..from + length];
            let inner = inner.strip_suffix(b"\\").unwrap_or(inner); // the quote itself was escaped
            closed.then_some((from..from + inner.len(), true))
        }
        _ => unquoted(text, start, at, compact).map(|value| (value, false)),
    }
}

/// Returns the number of prefix letters before a quote, as in `r"…"`.
fn literal_prefix(text: &[u8], at: usize) -> usize {
    let letters = run(text, at, 2, |b| matches!(b, b'r' | b'b' | b'u' | b'B' | b'@'));
    if matches!(text.get(at + letters), Some(b'"' | b'\'')) { letters } else { 0 }
}

/// Finds the value in `<password>…</password>`.
fn element(text: &[u8], from: usize) -> Option<Range<usize>> {
    let length = run(text, from, LONGEST, |b| b != b'<' && !b.is_ascii_whitespace());
    (text.get(from + length) == Some(&b'<')).then_some(from..from + length)
}

/// Returns the span of an unquoted value, which extends to the next whitespace, quote, `&` or `;`,
/// or `None` if that character cannot end a value. Which characters can end it depends on where the
/// name is: in a URL, in a connection string or elsewhere.
fn unquoted(text: &[u8], start: usize, from: usize, compact: bool) -> Option<Range<usize>> {
    let length = run(text, from, LONGEST, |b| {
        !b.is_ascii_whitespace() && !matches!(b, b'"' | b'\'' | b'`' | b'&' | b';')
    });
    let end = text.get(from + length).copied().unwrap_or(b'\n');
    let before = if start == 0 { b'\n' } else { text[start - 1] };
    let before = if before == b'"' || before == b'\'' { b' ' } else { before };
    let fits = match before {
        b'?' | b'&' => compact && matches!(end, b'&' | b'"' | b'\'' | b'`' | b'\n' | b'\r' | b' '),
        b';' => compact && matches!(end, b';' | b'"' | b'\'' | b'\n' | b'\r' | b' '),
        _ => matches!(end, b'\n' | b'\r' | b' ' | b'\t') && (compact || line_begins(text, start)),
    };
    fits.then_some(from..from + length)
}

/// Returns whether a name comes first on its line, as in YAML.
fn line_begins(text: &[u8], start: usize) -> bool {
    let before = text[..start].iter().rev().take(64).take_while(|b| **b != b'\n').count();
    text[start - before..start]
        .iter()
        .all(|b| matches!(b, b' ' | b'\t' | b'-' | b'+' | b'"' | b'\'' | b'|' | b'0'..=b'9'))
}
