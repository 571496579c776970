//! Checks that the values marked in `fixtures/secrets` are masked, and that nothing else is.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use secrets::Secrets;

fn cases(name: &str) -> Vec<String> {
    let path = format!("{}/../../fixtures/secrets/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with("# One case"));
    let cases: Vec<_> = lines
        .map(|l| l.replace('¦', "").replace("\\\\", "\u{1}").replace("\\n", "\n").replace('\u{1}', "\\"))
        .collect();
    assert!(cases.len() > 30, "{name}");
    cases
}

/// Masks text and returns it with every masked value marked as `⟦value⟧`.
fn marked(text: &str) -> String {
    let secrets = Secrets::new("test", Vec::new());
    let masked = secrets.mask(text).into_owned();
    let mut out = String::new();
    let mut rest = masked.as_str();
    while let Some(name) = secrets::first_placeholder(rest) {
        let (before, after) = rest.split_once(name).unwrap();
        out += &format!("{before}⟦{}⟧", secrets.restore(name, &[]).unwrap());
        rest = after;
    }
    out + rest
}

#[test]
fn exactly_the_marked_secrets_are_masked() {
    let wrong: Vec<_> = cases("masked")
        .into_iter()
        .filter_map(|wanted| {
            let seen = marked(&wanted.replace(['⟦', '⟧'], ""));
            (seen != wanted).then(|| format!("wanted {wanted}\nseen   {seen}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn code_prose_hashes_and_examples_are_not_masked() {
    let wrong: Vec<_> = cases("kept")
        .into_iter()
        .map(|text| (marked(&text), text))
        .filter(|(seen, text)| seen != text)
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.iter().map(|w| w.0.clone()).collect::<Vec<_>>().join("\n"));
}
