//! Finds secrets by their shape: API keys with a vendor's prefix and length, private key blocks,
//! tokens in a standard format, and passwords in URLs.

use std::ops::Range;

use crate::assigned::is_example;
use crate::scan::{run, word};

/// The shape of a vendor's keys.
struct Shape {
    prefix: &'static str,
    of: fn(u8) -> bool,
    /// Minimum and maximum number of characters after the prefix.
    length: (usize, usize),
    /// Minimum number of digits among these characters. This excludes ordinary words, which have no
    /// digits.
    digits: usize,
}

const fn shape(prefix: &'static str, of: fn(u8) -> bool, min: usize, max: usize, digits: usize) -> Shape {
    Shape { prefix, of, length: (min, max), digits }
}

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

fn hex(b: u8) -> bool {
    b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
}

fn url_safe(b: u8) -> bool {
    word(b) || b == b'-'
}

fn dotted(b: u8) -> bool {
    url_safe(b) || b == b'.'
}

fn base64(b: u8) -> bool {
    alnum(b) || matches!(b, b'+' | b'/' | b'=')
}

fn slashed(b: u8) -> bool {
    url_safe(b) || b == b'/'
}

/// The shapes of vendors' keys, from the vendors' documentation.
const SHAPES: &[Shape] = &[
    shape("AKIA", upper, 16, 16, 0), // AWS
    shape("ASIA", upper, 16, 16, 0),
    shape("ABIA", upper, 16, 16, 0),
    shape("ACCA", upper, 16, 16, 0),
    shape("ghp_", alnum, 36, 255, 1), // GitHub
    shape("gho_", alnum, 36, 255, 1),
    shape("ghu_", alnum, 36, 255, 1),
    shape("ghs_", alnum, 36, 255, 1),
    shape("ghr_", alnum, 36, 255, 1),
    shape("github_pat_", word, 60, 255, 1),
    shape("glpat-", url_safe, 20, 255, 1), // GitLab
    shape("gldt-", url_safe, 20, 64, 1),
    shape("glrt-", url_safe, 20, 64, 1),
    shape("glptt-", url_safe, 20, 64, 1),
    shape("glcbt-", url_safe, 20, 64, 1),
    shape("glsoat-", url_safe, 20, 64, 1),
    shape("xoxb-", url_safe, 20, 255, 6), // Slack
    shape("xoxp-", url_safe, 20, 255, 6),
    shape("xoxa-", url_safe, 20, 255, 6),
    shape("xoxr-", url_safe, 20, 255, 6),
    shape("xoxs-", url_safe, 20, 255, 6),
    shape("xoxe-", url_safe, 20, 255, 6),
    shape("xoxe.xoxp-", url_safe, 20, 255, 6),
    shape("xapp-", url_safe, 20, 255, 6),
    shape("hooks.slack.com/services/", slashed, 30, 128, 2),
    shape("discord.com/api/webhooks/", slashed, 60, 160, 10),
    shape("sk-", url_safe, 32, 255, 3), // OpenAI, Anthropic, DeepSeek, OpenRouter
    shape("AIza", url_safe, 35, 35, 1), // Google
    shape("ya29.", url_safe, 20, 1024, 2),
    shape("GOCSPX-", url_safe, 28, 28, 1),
    shape("sk_live_", alnum, 16, 255, 1), // Stripe
    shape("rk_live_", alnum, 16, 255, 1),
    shape("sk_test_", alnum, 16, 255, 1),
    shape("rk_test_", alnum, 16, 255, 1),
    shape("whsec_", base64, 24, 255, 1),
    shape("npm_", alnum, 36, 36, 1),
    shape("pypi-AgE", url_safe, 50, 1024, 1),
    shape("rubygems_", hex, 48, 48, 4),
    shape("dckr_pat_", url_safe, 27, 64, 1), // Docker Hub
    shape("hf_", alnum, 34, 40, 1),          // Hugging Face
    shape("gsk_", alnum, 48, 64, 2),         // Groq
    shape("xai-", alnum, 60, 120, 2),
    shape("pplx-", alnum, 40, 64, 2),
    shape("r8_", alnum, 37, 40, 2),
    shape("SG.", dotted, 60, 80, 2),  // SendGrid
    shape("SK", hex, 32, 32, 4),      // Twilio
    shape("dop_v1_", hex, 64, 64, 4), // DigitalOcean
    shape("doo_v1_", hex, 64, 64, 4),
    shape("dor_v1_", hex, 64, 64, 4),
    shape("shpat_", alnum, 32, 64, 2), // Shopify
    shape("shpss_", alnum, 32, 64, 2),
    shape("shpca_", alnum, 32, 64, 2),
    shape("shppa_", alnum, 32, 64, 2),
    shape("dapi", hex, 32, 34, 4),       // Databricks
    shape("lin_api_", alnum, 40, 64, 2), // Linear
    shape("figd_", url_safe, 40, 64, 2),
    shape("glsa_", word, 41, 41, 2), // Grafana
    shape("glc_", base64, 50, 400, 2),
    shape("hvs.", url_safe, 24, 255, 2), // HashiCorp Vault
    shape("hvb.", url_safe, 24, 255, 2),
    shape("ATATT3", |b| url_safe(b) || b == b'=', 60, 255, 2), // Atlassian
    shape("PMAK-", url_safe, 59, 64, 4),                       // Postman
    shape("dp.pt.", alnum, 40, 48, 2),                         // Doppler
    shape("NRAK-", upper, 27, 27, 2),                          // New Relic
    shape("sntrys_", |b| base64(b) || b == b'_', 60, 400, 2),  // Sentry
    shape("sbp_", hex, 40, 40, 4),                             // Supabase
    shape("pscale_tkn_", dotted, 32, 64, 1),                   // PlanetScale
    shape("sq0atp-", url_safe, 22, 22, 1),                     // Square
    shape("sq0csp-", url_safe, 43, 43, 1),
    shape("key-", hex, 32, 32, 4),               // Mailgun
    shape("LTAI", alnum, 16, 24, 2),             // Alibaba Cloud
    shape("AGE-SECRET-KEY-1", upper, 58, 58, 4), // age
];

/// Examines the text around an anchor and appends the ranges of the secrets that it finds.
type Judge = fn(&[u8], Range<usize>, &mut Vec<Range<usize>>);

/// Anchors for secrets that a [`Shape`] cannot describe.
const SPECIAL: &[(&str, Judge)] = &[
    ("-----BEGIN ", private_key),
    ("eyJ", web_token),
    ("://", address),
    ("bearer ", bearer),
    ("basic ", basic),
    (":AA", telegram),
];

pub(crate) fn anchors() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|s| s.prefix).chain(SPECIAL.iter().map(|(anchor, _)| *anchor))
}

/// Examines the text at an anchor. `index` is the position of the anchor in [`anchors`].
pub(crate) fn judge(index: usize, text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    match SHAPES.get(index) {
        Some(shape) => spans.extend(shape.judge(text, at)),
        None => {
            if let Some((_, judge)) = SPECIAL.get(index - SHAPES.len()) {
                judge(text, at, spans);
            }
        }
    }
}

impl Shape {
    fn judge(&self, text: &[u8], at: Range<usize>) -> Option<Range<usize>> {
        let (min, max) = self.length;
        let begins = &text[at.clone()] == self.prefix.as_bytes()
            && (at.start == 0 || !word(text[at.start - 1]) || follows_escape(text, at.start));
        if !begins {
            return None;
        }
        let length = run(text, at.end, max + 1, self.of);
        let rest = text.get(at.end..at.end + length.min(max))?;
        let digits = rest.iter().filter(|b| b.is_ascii_digit()).count();
        let fits = (min..=max).contains(&length) && digits >= self.digits;
        (fits && !is_example(rest)).then_some(at.start..at.end + length)
    }
}

/// Returns whether the letter before `at` is part of an escape (`\n`, `\t`) rather than a word.
fn follows_escape(text: &[u8], at: usize) -> bool {
    at >= 2 && text[at - 2] == b'\\' && matches!(text[at - 1], b'n' | b'r' | b't')
}

/// Finds a JSON web token, which has three parts, the first two of which are JSON.
fn web_token(text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    if at.start > 0 && dotted(text[at.start - 1]) && !follows_escape(text, at.start)
        || &text[at.clone()] != b"eyJ"
    {
        return;
    }
    let length = run(text, at.start, 8 << 10, dotted);
    let mut parts = text[at.start..at.start + length].split(|b| *b == b'.');
    let (head, claims, signature) = (parts.next(), parts.next(), parts.next());
    let fits = |part: Option<&[u8]>, min| part.is_some_and(|p| p.len() >= min);
    if fits(head, 12) && claims.is_some_and(|c| c.len() >= 12 && c.starts_with(b"ey")) && fits(signature, 16)
    {
        let whole = [head, claims, signature].into_iter().flatten().map(<[u8]>::len).sum::<usize>() + 2;
        spans.push(at.start..at.start + whole);
    }
}

/// Finds the token of a Telegram bot, which consists of digits, a colon and 35 characters.
fn telegram(text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    let digits = text[..at.start].iter().rev().take(11).take_while(|b| b.is_ascii_digit()).count();
    let start = at.start - digits;
    let length = run(text, at.start + 1, 36, url_safe);
    let bounded = start == 0 || !word(text[start - 1]);
    if &text[at.clone()] == b":AA" && (8..=10).contains(&digits) && length == 35 && bounded {
        spans.push(start..at.start + 36);
    }
}

/// Finds the token after `Bearer`, as in an `Authorization` header.
fn bearer(text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    let length = run(text, at.end, 4096, |b| dotted(b) || base64(b) || b == b'~');
    let token = &text[at.end..at.end + length];
    if starts_word(text, &at) && length >= 20 && crate::assigned::is_random(token) {
        spans.push(at.end..at.end + length);
    }
}

/// Finds the encoded name and password after `Basic`, as in an `Authorization` header.
fn basic(text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    let length = run(text, at.end, 1024, base64);
    let token = &text[at.end..at.end + length];
    let mixed = token.iter().any(u8::is_ascii_lowercase) && token.iter().any(u8::is_ascii_uppercase);
    if starts_word(text, &at)
        && length >= 16
        && length.is_multiple_of(4)
        && mixed
        && crate::assigned::is_random(token)
    {
        spans.push(at.end..at.end + length);
    }
}

fn starts_word(text: &[u8], at: &Range<usize>) -> bool {
    at.start == 0 || !word(text[at.start - 1])
}

/// Finds the password in a URL such as `scheme://name:password@host`.
fn address(text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    const MAX_AUTHORITY: usize = 512;
    if at.start == 0 || !word(text[at.start - 1]) {
        return;
    }
    let inside = |b: u8| !b.is_ascii_whitespace() && !b.is_ascii_control() && !b"/?#\"'`<>\\|".contains(&b);
    let length = run(text, at.end, MAX_AUTHORITY, inside);
    let authority = &text[at.end..at.end + length];
    let Some(end) = authority.iter().rposition(|b| *b == b'@') else { return };
    let Some(colon) = authority[..end].iter().position(|b| *b == b':') else { return };
    let (name, password) = (&authority[..colon], &authority[colon + 1..end]);
    let templated = password.iter().any(|b| b"${}*[](),".contains(b));
    let host = authority.get(end + 1).is_some_and(|b| alnum(*b) || *b == b'[');
    let long = password.len() >= 8 || password.len() >= 6 && password.iter().any(u8::is_ascii_digit);
    if long && password != name && host && !templated && !is_example(password) {
        spans.push(at.end + colon + 1..at.end + end);
    }
}

/// Finds the lines of a private key. The key may be in a string literal or a patch, and its lines
/// may be preceded by line numbers.
fn private_key(text: &[u8], at: Range<usize>, spans: &mut Vec<Range<usize>>) {
    /// The maximum length of a label such as `ENCRYPTED PRIVATE KEY`, in bytes.
    const MAX_LABEL: usize = 48;
    /// The maximum length of a key, in bytes. An RSA key of 16,384 bits takes 13 KB.
    const MAX_KEY: usize = 64 << 10;
    /// The minimum length of a line in a key. Only the last line may be shorter.
    const MIN_LINE: usize = 16;
    /// The maximum number of bytes between the base64 text of two lines, such as line breaks,
    /// indentation, quotes, line numbers and headers.
    const MAX_GAP: usize = 120;
    let label = run(text, at.end, MAX_LABEL, |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ');
    let named = memchr::memmem::find(&text[at.end..at.end + label], b"PRIVATE KEY").is_some();
    let body = at.end + label;
    if !named || !text[body..].starts_with(b"-----") {
        return;
    }
    let max = text.len().min(body + MAX_KEY);
    let mut pos = body + 5;
    let (mut line_end, mut lines, mut short) = (pos, 0, None);
    while pos < max {
        if text[pos..].starts_with(b"-----") {
            // `short` is the last line of the key. If it is the only line, this is code that
            // contains key markers, not a key.
            spans.extend(short.filter(|_| lines > 0));
            return;
        }
        if text[pos] == b'\\' {
            pos += 2; // an escape is not part of the key
            continue;
        }
        let begins_line = matches!(text[pos - 1], b'\n' | b'"' | b'\'');
        if !base64(text[pos]) || begins_line && text[pos] == b'+' {
            pos += 1;
            if pos - line_end > MAX_GAP {
                return;
            }
            continue;
        }
        let length = run(text, pos, max - pos, base64);
        let span = pos..pos + length;
        pos += length;
        if length >= MIN_LINE {
            spans.push(span);
            (line_end, lines, short) = (pos, lines + 1, None);
        } else {
            // A number before a bar is a line number, slashes alone are a comment, and a line with
            // a second word is not part of a key.
            if text.get(pos) != Some(&b'|') && text[span.clone()].iter().any(|b| alnum(*b)) {
                let alone = short
                    .as_ref()
                    .is_none_or(|other: &Range<usize>| text[other.end..span.start].contains(&b'\n'));
                short = Some(span).filter(|_| alone);
            }
            if pos - line_end > MAX_GAP {
                return;
            }
        }
    }
}
