//! Finds secrets in environment variables, and lists the encodings in which their values may
//! reappear.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};

use crate::scan;

/// The bytes that are escaped in URLs: everything except the unreserved characters of RFC 3986.
const IN_URLS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The shortest value to search for. A shorter one may occur in unrelated text.
const MIN_VALUE: usize = 8;
/// The longest value to search for. A longer one is not a key.
const MAX_VALUE: usize = 16 << 10;
/// The shortest line that is searched for on its own, if a value (such as a private key) has
/// several lines.
const MIN_LINE: usize = 16;

/// Words in a variable's name that mark its value as secret.
const SECRET_WORDS: &str = "KEY APIKEY TOKEN SECRET SECRETS PASSWORD PASSWD PASS PASSPHRASE PWD \
    CREDENTIAL CREDENTIALS AUTH COOKIE BEARER JWT PAT";

/// Words at the end of a variable's name that mark its value as not secret (`TOKEN_URL`,
/// `KEY_FILE`, `SSH_AUTH_SOCK`).
const METADATA_WORDS: &str = "FILE PATH DIR URL URI HOST NAME USER SOCK SOCKET TYPE METHOD TTL \
    EXPIRY LENGTH SIZE COUNT LIMIT MODE SCOPE SCOPES PERMISSIONS ENABLED REQUIRED PORT DOMAIN REGION \
    ALGORITHM";

/// Returns the values that must not be shown. If parts of a variable's value have the shape of a
/// secret, only those parts are returned. Otherwise, the whole value is returned, provided that the
/// variable's name marks it as secret and that it is neither too common nor a URL.
#[must_use]
pub fn secret_values<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (name, value) in variables {
        let value = value.trim();
        if value.len() < MIN_VALUE || value.len() > MAX_VALUE {
            continue;
        }
        // A part that has the shape of a secret (the password in a URL, a token in JSON) is secret
        // regardless of the variable's name.
        let shaped = scan::find(value.as_bytes());
        let whole = shaped.is_empty() && is_secret_name(name) && !is_trivial(value) && !value.contains("://");
        out.extend(shaped.into_iter().filter_map(|s| value.get(s).map(str::to_owned)));
        out.extend(whole.then(|| value.to_owned()));
        out.extend(header_values(name, value));
    }
    out.retain(|value| value.len() >= MIN_VALUE);
    out.sort();
    out.dedup();
    out
}

/// Returns the values in a list of HTTP headers in the format of OpenTelemetry's exporter:
/// `api-key=…,authorization=Bearer%20…`.
fn header_values(name: &str, list: &str) -> impl Iterator<Item = String> {
    let is_list = name.starts_with("OTEL_EXPORTER_OTLP_") && name.ends_with("HEADERS");
    let headers = list.split(',').filter(move |_| is_list).filter_map(|header| header.split_once('='));
    headers.filter_map(|(_, value)| {
        let value = percent_decode_str(value).decode_utf8_lossy();
        // The token without a scheme such as `Bearer` is also a secret.
        whole(value.split_whitespace().next_back()?)
    })
}

/// Trims a value that must be masked regardless of its variable's name. Returns `None` if the value
/// is too short, too long or too common.
#[must_use]
pub fn whole(value: &str) -> Option<String> {
    let value = value.trim();
    let fits = (MIN_VALUE..=MAX_VALUE).contains(&value.len()) && !is_trivial(value);
    fits.then(|| value.to_owned())
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words: Vec<&str> = name.split(['_', '-', '.']).collect();
    let is_one_of = |word: &str, list: &str| list.split(' ').any(|other| other == word);
    let secret = words.iter().any(|w| {
        is_one_of(w, SECRET_WORDS) || ["APIKEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|t| w.ends_with(t))
    });
    secret && !words.last().is_some_and(|w| is_one_of(w, METADATA_WORDS))
}

/// Returns whether a value is too common to be a secret: a short word or number, a path, or a
/// single repeated character.
fn is_trivial(value: &str) -> bool {
    let one_case =
        value.bytes().all(|b| b.is_ascii_lowercase()) || value.bytes().all(|b| b.is_ascii_uppercase());
    (one_case && value.len() < 12)
        || value.bytes().all(|b| b.is_ascii_digit() || b == b'.') && value.len() < 12
        || value.starts_with(['/', '~', '.'])
        || value.bytes().all(|b| b == value.as_bytes()[0])
}

/// Returns the forms in which a value may reappear: unchanged, escaped for JSON, percent-encoded,
/// or in base64 at any offset. Each long line of a multi-line value may also reappear on its own.
pub(crate) fn encodings(value: &str) -> Vec<Vec<u8>> {
    if value.len() < MIN_VALUE {
        return Vec::new();
    }
    let percent = percent_encoding::utf8_percent_encode(value, IN_URLS).to_string().into_bytes();
    let mut out = vec![value.as_bytes().to_vec(), escaped(value), percent];
    for alphabet in [b"+/", b"-_"] {
        out.extend(
            (0..3).map(|before| base64(value.as_bytes(), before, *alphabet)).filter(|e| e.len() >= 10),
        );
    }
    if value.contains('\n') {
        let lines = value.lines().map(|line| line.trim().as_bytes().to_vec());
        out.extend(lines.filter(|l| l.len() >= MIN_LINE && !l.starts_with(b"-----")));
    }
    out.sort();
    out.dedup();
    out
}

fn escaped(value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for b in value.bytes() {
        match b {
            b'"' | b'\\' => out.extend([b'\\', b]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            b => out.push(b),
        }
    }
    out
}

/// Returns the base64 characters that depend only on `value`, given that `before` other bytes
/// precede it in its first group of three bytes.
fn base64(value: &[u8], before: usize, last: [u8; 2]) -> Vec<u8> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let letter = |six: usize| LETTERS.get(six).copied().unwrap_or_else(|| last[six - 62]);
    let (from, to) = ((before * 8).div_ceil(6), (before + value.len()) * 8 / 6);
    let bit = |at: usize| {
        let byte = (at / 8).checked_sub(before).and_then(|i| value.get(i)).copied().unwrap_or(0);
        usize::from(byte >> (7 - at % 8) & 1)
    };
    (from..to).map(|c| letter((0..6).fold(0, |six, i| six << 1 | bit(c * 6 + i)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_words_numbers_and_paths_are_not_secret_values() {
        assert_eq!(whole(" postgres://localhost/test\n").as_deref(), Some("postgres://localhost/test"));
        for common in ["debug", "production", "12345678", "/usr/local/bin"] {
            assert_eq!(whole(common), None, "{common}");
        }
    }

    #[test]
    fn the_base64_of_a_value_is_found_however_many_bytes_precede_the_value() {
        let text = |v: Vec<u8>| String::from_utf8(v).unwrap();
        // The outputs of `base64` for the value alone, with two bytes before it, and with one byte
        // before it.
        assert!("aHVudGVyMi14eXo=".contains(&text(base64(b"hunter2-xyz", 0, *b"+/"))));
        assert!("dTpodW50ZXIyLXh5eg==".contains(&text(base64(b"hunter2-xyz", 2, *b"+/"))));
        assert!("Omh1bnRlcjIteHl6".contains(&text(base64(b"hunter2-xyz", 1, *b"+/"))));
        assert_eq!(base64(b"hunter2-xyz", 0, *b"+/").len(), 14);
    }

    #[test]
    fn variables_are_secret_by_name_unless_their_value_is_trivial() {
        let secret = |name: &str, value: &str| !secret_values([(name, value)]).is_empty();
        for name in [
            "DB_PASSWORD",
            "GITHUB_TOKEN",
            "aws_secret_access_key",
            "MY_API_KEY",
            "SESSION_COOKIE",
            "NPM_AUTH",
            "PGPASSWORD",
        ] {
            assert!(secret(name, "Zx81-spectrum"), "{name}");
        }
        for name in
            ["HOME", "TOKEN_URL", "SSH_AUTH_SOCK", "KEYBOARD", "MONKEY", "TOKENIZERS_PARALLELISM", "KEY_FILE"]
        {
            assert!(!secret(name, "Zx81-spectrum"), "{name}");
        }
        for value in
            ["true", "required", "/run/secrets/key", "123456789", "aaaaaaaaaaaaaa", "~/.netrc", "short1"]
        {
            assert!(!secret("API_TOKEN", value), "{value}");
        }
        let headers = "api-key=Zx81-spectrum, authorization=Bearer%20Zx80-spectrum,x-tenant=shop";
        assert_eq!(
            secret_values([("OTEL_EXPORTER_OTLP_HEADERS", headers)]),
            ["Zx80-spectrum", "Zx81-spectrum"]
        );
        let config = r#"{"auths": {"hub": {"auth": "x"}}, "password": "Zx81spectrum48k"}"#;
        assert_eq!(secret_values([("DOCKER_CONFIG_JSON", config)]), ["Zx81spectrum48k"]);
        assert_eq!(
            secret_values([("DATABASE_URL", "postgres://app:Zx81-spectrum@db/app")]),
            ["Zx81-spectrum"]
        );
    }
}
