//! Normalizes the parts of a command's output that vary between runs. Only the output of commands
//! that a replay runs again is compared this leniently. Requests are compared byte for byte.

/// Replaces the volatile parts of the text: durations, times and dates, memory addresses, and names
/// of temporary files.
pub(crate) fn normalize(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let between = |c: char| c.is_whitespace() || "()[],;='\"".contains(c);
    let mut words = text.split_inclusive(between).peekable();
    while let Some(word) = words.next() {
        let body = word.trim_end_matches(between);
        let end = &word[body.len()..];
        let unit = |w: &&str| is_unit(w.trim().trim_end_matches(|c: char| !c.is_alphanumeric()));
        let spaced_duration = is_decimal(body) && end == " " && words.peek().is_some_and(unit);
        if spaced_duration || is_duration(body) {
            out.push('⏱');
        } else if is_clock(body) {
            out.push('🕐');
        } else if is_address(body) {
            out.push_str("0x…");
        } else if body.starts_with("/tmp/") || body.starts_with("/var/tmp/") {
            out.push_str("/tmp/…");
        } else {
            out.push_str(body);
        }
        out.push_str(end);
    }
    out
}

fn is_unit(word: &str) -> bool {
    matches!(
        word,
        "s" | "ms" | "us" | "µs" | "ns" | "sec" | "secs" | "second" | "seconds" | "minutes" | "minute"
    )
}

fn is_decimal(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match word.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(word),
    }
}

/// Whether a word is a duration such as `0.12s`, `12ms` or `1m2.5s`, with optional punctuation.
fn is_duration(word: &str) -> bool {
    let word = word.trim_end_matches(['.', ':']);
    let mut rest = word;
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let unit = rest[number..].len() - rest[number..].trim_start_matches(char::is_alphabetic).len();
        let known =
            is_unit(&rest[number..number + unit]) || matches!(&rest[number..number + unit], "m" | "h");
        if !is_decimal(&rest[..number]) || !known {
            return false;
        }
        rest = &rest[number + unit..];
        parts += 1;
    }
    parts > 0
}

/// Whether a word is a time or date such as `12:34:56`, `2026-11-22` or `2026-11-22T12:34:56Z`.
fn is_clock(word: &str) -> bool {
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let shape = shape.trim_end_matches(['.', 'Z']).split('.').next().unwrap_or_default();
    matches!(shape, "99:99:99" | "9999-99-99" | "9999-99-99T99:99:99" | "9999/99/99")
}

fn is_address(word: &str) -> bool {
    let word = word.trim_end_matches(['>', '.', ':']);
    word.strip_prefix("0x").is_some_and(|hex| hex.len() >= 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::normalize;

    #[test]
    fn only_times_addresses_and_temporary_files_are_ignored() {
        for (one, other) in [
            ("3 passed in 0.12s", "3 passed in 1.02s"),
            ("Ran 3 tests in 0.001 s", "Ran 3 tests in 0.010 s"),
            ("finished in 12ms.", "finished in 9ms."),
            ("took 1m2.5s", "took 59s"),
            ("at 12:34:56 on 2026-11-22", "at 01:00:00 on 2027-01-01"),
            ("<Foo object at 0x7f00aa11>", "<Foo object at 0x7f00aa22>"),
            ("wrote /tmp/x1/out.log", "wrote /tmp/y2/out.log"),
        ] {
            assert_eq!(normalize(one), normalize(other));
        }
        for (one, other) in [
            ("3 passed", "2 passed"),
            ("line 12", "line 13"),
            ("add 2 3 is 5", "add 2 3 is 6"),
            ("a 1s b", "a b"),
            ("version 1.2", "version 1.3"),
            ("/srv/a", "/srv/b"),
        ] {
            assert_ne!(normalize(one), normalize(other));
        }
    }
}
