//! Decodes arbitrary bytes as server-sent events. The decoder must not panic, and its result must
//! not depend on the chunk size. The first byte of the input is the chunk size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::frames::{Event, Sse};

/// The decoder's limit in bytes, small enough for the fuzzer to reach it.
const LIMIT: usize = 64;

fn decode(bytes: &[u8], size: usize) -> Vec<Result<Event, models::Error>> {
    let mut decoder = Sse::with_limit(LIMIT);
    let mut out = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        decoder.push(piece);
        out.extend(std::iter::from_fn(|| decoder.next_event()));
    }
    decoder.finish();
    out.extend(std::iter::from_fn(|| decoder.next_event()));
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    assert_eq!(decode(bytes, usize::from(*size)), decode(bytes, bytes.len()));
});
