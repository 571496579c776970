//! Applies generated cases from `patch_corpus`: clean patches must apply, and all others must apply
//! correctly or be refused. Wrong line endings in a result are permitted here, because in about
//! ten cases per million, the patch does not say which line endings are right. The corpus tests check line endings. The
//! target then damages the same patch and applies it again, and the engine must not panic on the
//! damaged patch.
//!
//! The first eight bytes select the case. Each group of three bytes after that encodes a position
//! in the patch and a kind of damage.
#![no_main]

#[path = "../../crates/patch/tests/judge/mod.rs"]
mod judge;

use judge::Verdict;
use libfuzzer_sys::fuzz_target;
use patch_corpus::{Case, Class, Input};

fn damaged(text: &str, damage: &[u8]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for change in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (text.len() + 1);
        let line =
            |from: usize| text[from..].iter().position(|c| *c == '\n').map_or(text.len(), |n| from + n + 1);
        match change[2] {
            0..64 => drop(text.drain(at..line(at))),
            64..96 => text.truncate(at),
            96..128 => {
                let again = text[at..line(at)].to_vec();
                text.splice(at..at, again);
            }
            byte => text.insert(at, char::from(byte - 128)),
        }
    }
    text.into_iter().collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, damage)) = data.split_first_chunk::<8>() else { return };
    let Some(case) = patch_corpus::generate_case(u64::from_le_bytes(*seed)) else { return };
    let (verdict, why) = judge::judge(&case);
    let refused = case.class == Class::Deformed && verdict == Verdict::Refused;
    let ends = || verdict == Verdict::Wrong && judge::is_right_but_for_line_ends(&case);
    assert!(verdict == Verdict::Right || refused || ends(), "{verdict:?} {:?} {}: {why}", case.class, case.name);
    if let Some(text) = case.input.text() {
        let _ = judge::run(&Case { input: Input::Text(damaged(&text, damage)), ..case });
    }
});
