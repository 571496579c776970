//! Parses arbitrary bytes as a GGUF header. The parser must not panic, and the sizes in a header
//! that it accepts must fit the file.
//!
//! The first byte of the input is a number N, which is not part of the header. The parser is told
//! that the file is N KiB longer than the remaining bytes, so that tensors can be larger than any
//! input.
#![no_main]

use std::io::{BufReader, Cursor};

use libfuzzer_sys::fuzz_target;
use model_files::gguf;

fuzz_target!(|data: &[u8]| {
    let Some((more, bytes)) = data.split_first() else { return };
    let length = bytes.len() as u64 + u64::from(*more) * 1024;
    let Ok(header) = gguf::parse(BufReader::new(Cursor::new(bytes)), length) else { return };
    assert!(header.tensor_bytes < length && header.file_bytes == length);
    // Even the smallest type uses more than one byte for 8 elements.
    assert!(header.parameters <= header.tensor_bytes * 8);
    assert!((1..=512).contains(&header.layers) && header.trained_window > 0 && header.vocabulary > 0);
    assert!(header.vocabulary < length && header.chat_template.is_none_or(|t| (t.len() as u64) < length));
});
