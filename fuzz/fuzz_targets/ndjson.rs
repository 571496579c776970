//! Decodes arbitrary bytes as NDJSON. The decoder must not panic, and its result must not depend on
//! the chunk size. The first byte of the input is the chunk size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use models::frames::Ndjson;

/// The decoder's limit in bytes, small enough for the fuzzer to reach it.
const LIMIT: usize = 64;

fn decode(bytes: &[u8], size: usize) -> Vec<Result<serde_json::Value, models::Error>> {
    let mut decoder = Ndjson::with_limit(LIMIT);
    let mut out = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        decoder.push(piece);
        out.extend(std::iter::from_fn(|| decoder.next_value()));
    }
    decoder.finish();
    out.extend(std::iter::from_fn(|| decoder.next_value()));
    out
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    assert_eq!(decode(bytes, usize::from(*size)), decode(bytes, bytes.len()));
});
