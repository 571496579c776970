//! Reads arbitrary text as a patch, in every dialect. The parsers and the engine must not panic, a
//! patch that applies must change the file, and a patch that was refused while it was still
//! streaming must not apply once it is complete.
//!
//! The first byte selects a prefix, and the second selects the chunk size. They are followed by the
//! file, which ends at the first byte with the value 255, and then by the patch.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patch::{PathState, Watch, apply, parse};

const BEGINNINGS: [&str; 8] = [
    "",
    "--- a/x\n+++ b/x\n",
    "diff --git a/x b/x\n",
    "*** Begin Patch\n*** Update File: x\n",
    "*** Begin Patch\n",
    "x\n<<<<<<< SEARCH\n",
    "[{\"path\": \"x\", ",
    "```\n",
];

/// Returns whether the complete patch applies if every file has this content.
fn applies(file: &[u8], text: &str) -> bool {
    let Ok(patches) = parse(text) else { return false };
    patches.iter().all(|patch| match apply(Some(file), patch) {
        Ok(applied) => {
            let same = applied.bytes.as_deref() == Some(file);
            // A patch may create an empty file where one already exists.
            let may = file.is_empty() || patch.from.is_some() || patch.executable.is_some();
            assert!(!same || may, "the file did not change");
            true
        }
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            false
        }
    })
}

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let cut = rest.iter().position(|b| *b == 255).unwrap_or(rest.len() / 2);
    let (file, patch) = (&rest[..cut], &rest[(cut + 1).min(rest.len())..]);
    let Ok(patch) = std::str::from_utf8(patch) else { return };
    let text = format!("{}{patch}", BEGINNINGS[usize::from(*choice) % BEGINNINGS.len()]);
    let applied = applies(file, &text);
    let there = file.to_vec();
    let mut watch = Watch::new(None, move |_| PathState::File(there.clone()));
    let characters: Vec<char> = text.chars().collect();
    for piece in characters.chunks(usize::from(*size).max(1)) {
        if let Err(stop) = watch.feed(&piece.iter().collect::<String>()) {
            assert!(!applied, "refused early but applies: {stop:?}");
            return;
        }
    }
});
