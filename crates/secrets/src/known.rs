//! Values that are secret because of the variable that holds them, and the forms in which they come back.

use crate::scan;

/// The shortest value that is looked for: a shorter one may be a part of anything.
const SHORTEST: usize = 8;
/// The longest; what is longer is no key.
const LONGEST: usize = 16 << 10;
/// Lines of a value (a private key) that are looked for by themselves, from this length.
const LINE: usize = 16;

/// Words of a variable's name that say what it holds.
const TELLING: &[&str] = &[
    "KEY",
    "APIKEY",
    "TOKEN",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "PASSPHRASE",
    "PWD",
    "CREDENTIAL",
    "CREDENTIALS",
    "AUTH",
    "COOKIE",
    "BEARER",
    "JWT",
    "PAT",
];

/// Words behind which such a word means something else (`TOKEN_URL`, `KEY_FILE`, `SSH_AUTH_SOCK`).
const ABOUT: &[&str] = &[
    "FILE",
    "PATH",
    "DIR",
    "URL",
    "URI",
    "HOST",
    "NAME",
    "USER",
    "SOCK",
    "SOCKET",
    "TYPE",
    "METHOD",
    "TTL",
    "EXPIRY",
    "LENGTH",
    "SIZE",
    "COUNT",
    "LIMIT",
    "MODE",
    "SCOPE",
    "SCOPES",
    "PERMISSIONS",
    "ENABLED",
    "REQUIRED",
    "PORT",
    "DOMAIN",
    "REGION",
    "ALGORITHM",
];

/// The values of these variables that must not be shown: of those whose name says so, and of any what has the shape of a secret.
#[must_use]
pub fn values<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for (name, value) in variables {
        let value = value.trim();
        if value.len() < SHORTEST || value.len() > LONGEST {
            continue;
        }
        // What has a shape of its own is secret whatever holds it: an address with a password, JSON with tokens in it.
        let shaped = scan::find(value.as_bytes());
        let whole = shaped.is_empty() && says_so(name) && !trivial(value) && !value.contains("://");
        out.extend(shaped.into_iter().filter_map(|s| value.get(s).map(str::to_owned)));
        out.extend(whole.then(|| value.to_owned()));
    }
    out.retain(|value| value.len() >= SHORTEST);
    out.sort();
    out.dedup();
    out
}

/// Returns a value to mask whatever variable holds it, unless it is too short, too long or too common.
#[must_use]
pub fn whole(value: &str) -> Option<String> {
    let value = value.trim();
    let fits = (SHORTEST..=LONGEST).contains(&value.len()) && !trivial(value);
    fits.then(|| value.to_owned())
}

fn says_so(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words: Vec<&str> = name.split(['_', '-', '.']).collect();
    let telling = words.iter().any(|w| {
        TELLING.contains(w) || ["APIKEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|t| w.ends_with(t))
    });
    telling && !words.last().is_some_and(|w| ABOUT.contains(w))
}

/// What would make a bad password and stands in any text: a word, a number, a path.
fn trivial(value: &str) -> bool {
    let one_case =
        value.bytes().all(|b| b.is_ascii_lowercase()) || value.bytes().all(|b| b.is_ascii_uppercase());
    (one_case && value.len() < 12)
        || value.bytes().all(|b| b.is_ascii_digit() || b == b'.') && value.len() < 12
        || value.starts_with(['/', '~', '.'])
        || value.bytes().all(|b| b == value.as_bytes()[0])
}

/// A value as it may come back: as it is, escaped in JSON, in an address, in base64 wherever in it, and its lines.
pub(crate) fn encodings(value: &str) -> Vec<Vec<u8>> {
    if value.len() < SHORTEST {
        return Vec::new();
    }
    let mut out = vec![value.as_bytes().to_vec(), escaped(value), percent(value)];
    for alphabet in [b"+/", b"-_"] {
        out.extend(
            (0..3).map(|before| base64(value.as_bytes(), before, *alphabet)).filter(|e| e.len() >= 10),
        );
    }
    if value.contains('\n') {
        let lines = value.lines().map(|line| line.trim().as_bytes().to_vec());
        out.extend(lines.filter(|l| l.len() >= LINE && !l.starts_with(b"-----")));
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

fn percent(value: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for b in value.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~') {
            out.push(b);
        } else {
            out.extend(format!("%{b:02X}").bytes());
        }
    }
    out
}

/// The characters of a base64 text that depend on this value alone, when `before` bytes stand before it in a group of three.
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
    fn a_value_to_mask_whole_is_not_a_common_word_or_number() {
        assert_eq!(whole(" postgres://localhost/test\n").as_deref(), Some("postgres://localhost/test"));
        for common in ["debug", "production", "12345678", "/usr/local/bin"] {
            assert_eq!(whole(common), None, "{common}");
        }
    }

    #[test]
    fn base64_is_found_wherever_the_value_stands_in_it() {
        let text = |v: Vec<u8>| String::from_utf8(v).unwrap();
        // printf 'hunter2-xyz' | base64, then with one and two bytes before it
        assert!("aHVudGVyMi14eXo=".contains(&text(base64(b"hunter2-xyz", 0, *b"+/"))));
        assert!("dTpodW50ZXIyLXh5eg==".contains(&text(base64(b"hunter2-xyz", 2, *b"+/"))));
        assert!("Omh1bnRlcjIteHl6".contains(&text(base64(b"hunter2-xyz", 1, *b"+/"))));
        assert_eq!(base64(b"hunter2-xyz", 0, *b"+/").len(), 14);
    }

    #[test]
    fn variables_are_secret_by_name_unless_their_value_is_trivial() {
        let secret = |name: &str, value: &str| !values([(name, value)]).is_empty();
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
        let config = r#"{"auths": {"hub": {"auth": "x"}}, "password": "Zx81spectrum48k"}"#;
        assert_eq!(values([("DOCKER_CONFIG_JSON", config)]), ["Zx81spectrum48k"]);
        assert_eq!(values([("DATABASE_URL", "postgres://app:Zx81-spectrum@db/app")]), ["Zx81-spectrum"]);
    }
}
