//! Packs trajectories into compact text: JSON that is compressed and encoded in base64. The page
//! decompresses a trajectory when the reader opens it.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::trajectory::{Part, Step};

/// Maximum lengths to try for each piece of text in a trajectory, in characters. The first one that
/// makes the trajectory fit is used.
const LIMITS: [usize; 8] = [200_000, 50_000, 20_000, 8_000, 4_000, 2_000, 1_000, 300];

/// Packs a trajectory into at most about `share` characters. If the trajectory does not fit, cuts
/// out the middle of long pieces of text and, if that is not enough, the middle steps. Each part
/// that is cut out is replaced with a note.
pub(crate) fn pack(steps: &[Step], share: usize) -> String {
    let texts = steps.iter().flat_map(|step| &step.parts).map(|part| part.text.len());
    let longest = texts.max().unwrap_or(0);
    let mut packed = String::new();
    // All limits that do not shorten anything produce the same result, so try only the first of
    // them.
    for limit in LIMITS.into_iter().filter(|limit| *limit == LIMITS[0] || *limit < longest) {
        packed = encode(&shortened(steps, limit));
        if packed.len() <= share {
            return packed;
        }
    }
    let mut kept = steps.len();
    while packed.len() > share && kept > 4 {
        kept /= 2;
        packed = encode(&without_middle(&shortened(steps, LIMITS[LIMITS.len() - 1]), kept));
    }
    packed
}

fn encode(steps: &[Step]) -> String {
    // Encoding strings and numbers cannot fail, and neither can writing to memory.
    let json = serde_json::to_vec(steps).unwrap_or_default();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    let _ = encoder.write_all(&json);
    STANDARD.encode(encoder.finish().unwrap_or_default())
}

fn shortened(steps: &[Step], limit: usize) -> Vec<Step> {
    let mut steps = steps.to_vec();
    for part in steps.iter_mut().flat_map(|step| &mut step.parts) {
        shorten(&mut part.text, limit);
    }
    steps
}

/// If the text is longer than `limit` characters, replaces its middle with a note.
fn shorten(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let length = text.chars().count();
    let (head, tail) = (limit * 2 / 3, limit / 3);
    if length <= limit {
        return;
    }
    let at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let (from, to) = (at(head), at(length - tail));
    let left_out = preview::figures::thousands((length - head - tail) as u64);
    text.replace_range(from..to, &format!("\n[… {left_out} characters are left out of this report …]\n"));
}

fn without_middle(steps: &[Step], kept: usize) -> Vec<Step> {
    let (head, tail) = (kept - kept / 2, kept / 2);
    let left_out = steps.len().saturating_sub(head + tail) as u64;
    let title = format!("{} left out of this report", preview::figures::plural(left_out, "step"));
    let note = Part { kind: "note", title, ..Part::default() };
    let at = steps.get(head).map_or(0, |step| step.at);
    let gap = Step { at, parts: vec![note], ..Step::default() };
    let (first, last) = (steps.iter().take(head), steps.iter().skip(steps.len() - tail));
    first.cloned().chain([gap]).chain(last.cloned()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn unpack(packed: &str) -> serde_json::Value {
        let bytes = STANDARD.decode(packed).unwrap();
        let mut json = String::new();
        flate2::read::DeflateDecoder::new(bytes.as_slice()).read_to_string(&mut json).unwrap();
        serde_json::from_str(&json).unwrap()
    }

    /// Returns text that does not compress well.
    fn noise(seed: u32, length: usize) -> String {
        let mut state = seed;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'!' + (state >> 24) as u8 % 90)
        };
        (0..length).map(|_| letter()).collect()
    }

    fn step(turn: u32, length: usize) -> Step {
        let part =
            Part { kind: "result", title: "read".into(), text: noise(turn, length), ..Part::default() };
        Step { turn: Some(turn), parts: vec![part], ..Step::default() }
    }

    #[test]
    fn a_small_trajectory_is_complete() {
        let unpacked = unpack(&pack(&[step(1, 5_000)], 10_000));
        assert_eq!(unpacked[0]["parts"][0]["text"].as_str().unwrap().len(), 5_000);
    }

    #[test]
    fn long_texts_lose_their_middle_and_a_note_says_so() {
        let packed = pack(&[step(1, 50_000)], 10_000);
        assert!(packed.len() <= 10_000);
        let text = unpack(&packed)[0]["parts"][0]["text"].as_str().unwrap().to_owned();
        assert!(text.contains("[… 42,001 characters are left out of this report …]"), "{text}");
        assert!(
            noise(1, 50_000).starts_with(&text[..5_000])
                && noise(1, 50_000).ends_with(&text[text.len() - 2_000..])
        );
    }

    #[test]
    fn a_very_long_trajectory_loses_its_middle_steps() {
        let steps: Vec<_> = (1..=400).map(|turn| step(turn, 400)).collect();
        let packed = pack(&steps, 10_000);
        assert!(packed.len() <= 10_000, "{}", packed.len());
        let unpacked = unpack(&packed);
        let all = unpacked.as_array().unwrap();
        assert_eq!((all[0]["turn"].as_u64(), all.last().unwrap()["turn"].as_u64()), (Some(1), Some(400)));
        assert!(all.iter().any(|s| s["parts"][0]["title"].as_str().unwrap().contains("steps left out")));
    }

    #[test]
    fn characters_are_never_cut() {
        let mut text = "ä€".repeat(300);
        shorten(&mut text, 300);
        assert!(
            text.starts_with("ä€ä€") && text.ends_with("ä€") && text.contains("300 characters"),
            "{text}"
        );
    }
}
