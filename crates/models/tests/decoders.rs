//! Tests that the decoders never panic, and that their results depend only on the bytes, not on how
//! they are split into chunks.

use models::Error;
use models::frames::{Event, LineTooLong, Lines, Ndjson, Sse};
use proptest::prelude::*;
use serde_json::Value;

/// Maximum length of a line or an event, in bytes. It is kept small so that generated input exceeds
/// it.
const LIMIT: usize = 40;

/// Generates tokens that matter to a decoder, with noise in between.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let tokens = prop::sample::select(vec![
        &b"\n"[..],
        b"\r",
        b"\r\n",
        b"\n\n",
        b"data:",
        b"data: ",
        b"data",
        b"event: error",
        b"error: ",
        b": ",
        b"id: 1",
        b"[DONE]",
        b"{\"a\":1}",
        b"{\"a\":",
        b"[1, 2]",
        b"\xef\xbb\xbf",
        "é漢🦀".as_bytes(),
        b"\xff",
        b"\0",
        b" ",
        b"0123456789",
    ]);
    let noise = prop::collection::vec(any::<u8>(), 0..6);
    prop::collection::vec(prop_oneof![9 => tokens.prop_map(<[u8]>::to_vec), 1 => noise], 0..40)
        .prop_map(|parts| parts.concat())
}

/// Splits the bytes at the given positions.
fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> =
        cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn lines(pieces: &[&[u8]]) -> Vec<Result<Vec<u8>, LineTooLong>> {
    let mut decoder = Lines::with_limit(LIMIT);
    let mut out = Vec::new();
    for piece in pieces.iter().copied().map(Some).chain([None]) {
        match piece {
            Some(piece) => decoder.push(piece),
            None => decoder.finish(),
        }
        while let Some(line) = decoder.next_line() {
            out.push(line.map(<[u8]>::to_vec));
        }
    }
    out
}

fn ndjson(pieces: &[&[u8]]) -> Vec<Result<Value, Error>> {
    let mut decoder = Ndjson::with_limit(LIMIT);
    let mut out = Vec::new();
    for piece in pieces.iter().copied().map(Some).chain([None]) {
        match piece {
            Some(piece) => decoder.push(piece),
            None => decoder.finish(),
        }
        out.extend(std::iter::from_fn(|| decoder.next_value()));
    }
    out
}

fn sse(pieces: &[&[u8]]) -> Vec<Result<Event, Error>> {
    let mut decoder = Sse::with_limit(LIMIT);
    let mut out = Vec::new();
    for piece in pieces.iter().copied().map(Some).chain([None]) {
        match piece {
            Some(piece) => decoder.push(piece),
            None => decoder.finish(),
        }
        out.extend(std::iter::from_fn(|| decoder.next_event()));
    }
    out
}

proptest! {
    #[test]
    fn chunk_borders_change_nothing(bytes in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let cut = pieces(&bytes, &cuts);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        for cut in [&cut, &single] {
            prop_assert_eq!(lines(cut), lines(&[&bytes]));
            prop_assert_eq!(ndjson(cut), ndjson(&[&bytes]));
            prop_assert_eq!(sse(cut), sse(&[&bytes]));
        }
    }

    #[test]
    fn lines_contain_every_byte_except_line_endings(bytes in stream()) {
        let found = lines(&[&bytes]);
        prop_assume!(found.iter().all(Result::is_ok));
        let kept: Vec<u8> = found.into_iter().flat_map(Result::unwrap).collect();
        let expected: Vec<u8> = bytes.into_iter().filter(|byte| !b"\r\n".contains(byte)).collect();
        prop_assert_eq!(kept, expected);
    }
}
