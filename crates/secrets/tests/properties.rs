//! Properties that hold for any text.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use proptest::prelude::*;
use secrets::{Secrets, known};

const KNOWN: [&str; 4] = ["Zx81-spectrum+9", "a\"quoted\\value", "Zx81-spectrum", "päßwörter-überall"];

fn secrets() -> Secrets {
    Secrets::new("session", KNOWN.map(str::to_owned).to_vec())
}

/// Generates text from whole secrets, parts of secrets, and things that may surround them.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv", "AKIA", "Q3VZLN5XKJWT7R2D", "sk-", "3f9a1c7e5b2d8f4a6c0e9b7d5f3a1c8e",
            "eyJhbGciOiJIUzI1NiJ9", ".", "eyJzdWIiOiJhbGljZSJ9", "://", "app:", "@db", "DB_PASSWORD", "api_key", "token", "password",
            "=", ": ", "\"", "'", "`", "hunter2-very-secret", "Zk3mQ7xRtVbLpW2s", "\n", "\r\n", " ", "\\n", "+", "-", "12|", ";", "&", "<", ">",
            "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw", "q8Zk==", "Bearer ", "Basic ",
            concat!("7283746501:", "AAFk3mQ7xRtVbLpW2sYcNdHfGjK4uXoEiTz"), "[secret-", "[secret-0a1b2c]", "0a1b2c]", "é", "🦀",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        2 => prop::sample::select(KNOWN.to_vec()).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => "[a-zA-Z0-9+/=_.-]{0,80}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split(|b| *b == b'\n').collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn masking_is_idempotent_and_keeps_line_endings(text in texts()) {
        let secrets = secrets();
        let once = secrets.mask_bytes(&text).into_owned();
        let twice = secrets.mask_bytes(&once).into_owned();
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(lines(&once).len(), lines(&text).len());
        for (before, after) in lines(&text).into_iter().zip(lines(&once)) {
            prop_assert_eq!(before.ends_with(b"\r"), after.ends_with(b"\r"));
        }
        // Invalid bytes can be part of a password, so the masked text may be valid when the
        // original is not.
        prop_assert!(std::str::from_utf8(&once).is_ok() || std::str::from_utf8(&text).is_err());
    }

    #[test]
    fn masked_text_is_restored_by_a_process_that_knows_only_the_file(text in texts()) {
        let Ok(text) = String::from_utf8(text) else { return Ok(()) };
        let masked = secrets().mask(&text).into_owned();
        let other = secrets();
        other.learn(text.as_bytes());
        // An incomplete placeholder is refused if a value has been masked.
        let whole = text.matches("[secret-").count() == text.matches("[secret-0a1b2c]").count();
        match other.restore(&masked, &[text.as_bytes()]) {
            Ok(restored) => prop_assert_eq!(restored.as_ref(), text.as_str()),
            Err(why) => prop_assert!(!whole, "{}", why),
        }
    }

    #[test]
    fn no_known_value_remains(text in texts()) {
        let masked = secrets().mask_bytes(&text).into_owned();
        for value in KNOWN {
            prop_assert!(!masked.windows(value.len()).any(|w| w == value.as_bytes()), "{}", value);
        }
    }

    #[test]
    fn a_stream_is_masked_the_same_however_it_is_chunked(text in texts(), cuts in prop::collection::vec(1usize..9, 1..20)) {
        let text = String::from_utf8_lossy(&text).into_owned();
        let secrets = secrets();
        let whole = secrets.mask_known(text.as_bytes()).into_owned();
        let mut stream = secrets.mask_stream().unwrap();
        let (mut out, mut rest, mut cuts) = (String::new(), text.as_str(), cuts.iter().cycle());
        while !rest.is_empty() {
            let at = rest.char_indices().nth(*cuts.next().unwrap()).map_or(rest.len(), |(at, _)| at);
            out += &stream.feed(&rest[..at]);
            rest = &rest[at..];
        }
        out += &stream.end();
        prop_assert_eq!(out.as_bytes(), whole.as_slice());
    }
}

#[test]
fn a_value_is_found_in_every_common_encoding() {
    let value = "Zx81 spectrum+9/\"48k\"";
    let secrets = Secrets::new("s", known::secret_values([("DB_PASSWORD", value)]));
    for text in [
        "Zx81 spectrum+9/\"48k\"",
        r#"{"x":"Zx81 spectrum+9/\"48k\""}"#,
        "Zx81%20spectrum%2B9%2F%2248k%22",
        "Wng4MSBzcGVjdHJ1bSs5LyI0OGsi",         // base64 of the value
        "dXNlcjpaeDgxIHNwZWN0cnVtKzkvIjQ4ayI=", // base64 of user:value
    ] {
        let masked = secrets.mask(text);
        assert!(masked.contains("[secret-") && !masked.contains("spectrum"), "{text}: {masked}");
        assert!(!masked.contains("zcGVjdHJ1bSs") && !masked.contains("HNwZWN0cnVt"), "{text}: {masked}");
    }
}

#[test]
fn placeholders_differ_between_sessions_and_are_stable_within_one() {
    let text = "DB_PASSWORD=hunter2-very-secret\n";
    let mask = |session: &str| Secrets::new(session, Vec::new()).mask(text).into_owned();
    assert_eq!(mask("a"), mask("a"));
    assert_ne!(mask("a"), mask("b"));
}

#[test]
fn a_found_value_is_masked_wherever_it_reappears() {
    let secrets = Secrets::new("s", Vec::new());
    let trace = "AssertionError: 'hunter2-very-secret' != ''";
    assert_eq!(secrets.mask(trace), trace);
    let shown = secrets.mask("DB_PASSWORD=hunter2-very-secret\n").into_owned();
    let name = shown.trim_start_matches("DB_PASSWORD=").trim_end();
    assert_eq!(secrets.mask(trace), format!("AssertionError: '{name}' != ''"));
}

#[test]
fn an_incomplete_placeholder_is_refused_once_a_value_has_been_masked() {
    let secrets = Secrets::new("s", Vec::new());
    assert!(secrets.restore("about [secret-…]", &[]).is_ok(), "text about placeholders should be accepted");
    secrets.learn(b"DB_PASSWORD=hunter2-very-secret\n");
    for broken in ["x = '[secret-…]'", "x = '[secret-12", "[secret-ABCDEF]"] {
        assert!(secrets.restore(broken, &[]).unwrap_err().contains("not a complete placeholder"), "{broken}");
    }
    assert!(
        secrets.restore("[secret-…]", &[b"it says [secret-\xe2\x80\xa6] here"]).is_ok(),
        "text that occurs literally in the file should be accepted"
    );
    assert!(
        secrets.restore("[secret-123456]", &[]).unwrap_err().contains("is not the placeholder for any value")
    );
}

#[test]
fn nothing_is_masked_or_refused_when_masking_is_off() {
    let (secrets, text) = (Secrets::disabled(), "DB_PASSWORD=hunter2-very-secret [secret-123456]");
    assert_eq!(secrets.mask(text), text);
    assert_eq!(secrets.restore(text, &[]).unwrap(), text);
}
