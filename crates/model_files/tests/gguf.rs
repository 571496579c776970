//! Tests that the header of a valid GGUF file can be read, and that a damaged file does not cause a
//! panic or an allocation larger than the file.

use std::io::{BufReader, Cursor};

use fake_hub::gguf::{Value, Writer, valid};
use model_files::gguf::{self, Fault, Header};

fn parse(bytes: &[u8]) -> Result<Header, Fault> {
    gguf::parse(BufReader::new(Cursor::new(bytes)), bytes.len() as u64)
}

fn fault(writer: &Writer) -> String {
    parse(&writer.bytes()).unwrap_err().to_string()
}

#[test]
fn a_header_is_summarized() {
    let header = parse(&valid().bytes()).unwrap();
    let expected = Header {
        version: 3,
        architecture: String::from("qwen2"),
        known: true,
        name: Some(String::from("Tiny")),
        parameters: 256 * 4 + 64,
        quantization: String::from("Q4_K_M"),
        trained_window: 32_768,
        layers: 2,
        embedding: 64,
        heads: 4,
        kv_heads: 2,
        key_length: 16,
        value_length: 16,
        kv_bytes_per_token: 2 * 2 * (16 + 16) * 2,
        vocabulary: 3,
        chat_template: Some(String::from("{{ messages }}")),
        tensor_bytes: 4 * 144 + 64 * 4,
        file_bytes: valid().bytes().len() as u64,
    };
    assert_eq!(header, expected);
}

#[test]
fn optional_keys_may_be_missing_and_numbers_may_have_any_integer_type() {
    let header = parse(&valid().without("general.name").without("tokenizer.chat_template").bytes()).unwrap();
    assert_eq!((header.name, header.chat_template), (None, None));
    let header = parse(&valid().without("general.file_type").bytes()).unwrap();
    assert_eq!(header.quantization, "Q4_K", "the element type that takes the most bytes");
    let header = parse(&valid().without("qwen2.attention.head_count_kv").bytes()).unwrap();
    assert_eq!(header.kv_heads, 4, "as many as attention heads");
    let header = parse(&valid().set("qwen2.attention.key_length", Value::U64(192)).bytes()).unwrap();
    assert_eq!((header.key_length, header.kv_bytes_per_token), (192, 2 * 2 * (192 + 16) * 2));
    let header = parse(&valid().set("qwen2.block_count", Value::I32(2)).bytes()).unwrap();
    assert_eq!(header.layers, 2);
    let per_layer = Value::Numbers(vec![2, 0]);
    let header = parse(&valid().set("qwen2.attention.head_count_kv", per_layer).bytes()).unwrap();
    assert_eq!((header.kv_heads, header.kv_bytes_per_token), (2, 2 * (16 + 16) * 2), "a recurrent layer");
    assert!(!parse(&valid().renamed("mystery").bytes()).unwrap().known);
    let header = parse(&valid().set("general.alignment", Value::U32(64)).bytes());
    assert!(header.is_ok(), "{header:?}");
    let mut old = valid().bytes();
    old[4] = 2;
    assert_eq!(parse(&old).unwrap().version, 2);
}

#[test]
fn each_defect_is_described_in_one_sentence() {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    for (writer, expected) in [
        (valid().without("general.architecture"), "no key `general.architecture`"),
        (valid().without("qwen2.context_length"), "no key `qwen2.context_length`"),
        (valid().without("qwen2.block_count"), "no key `qwen2.block_count`"),
        (valid().without("qwen2.embedding_length"), "no key `qwen2.embedding_length`"),
        (valid().without("tokenizer.ggml.model"), "no key `tokenizer.ggml.model`"),
        (valid().without("tokenizer.ggml.tokens"), "no key `tokenizer.ggml.tokens`"),
        (
            valid().set("qwen2.context_length", text("x")),
            "`qwen2.context_length` has a value of the wrong type",
        ),
        (valid().set("qwen2.context_length", Value::U32(0)), "`qwen2.context_length` is 0"),
        (valid().set("qwen2.context_length", Value::I32(-1)), "wrong type"),
        (valid().set("qwen2.context_length", Value::U64(u64::MAX)), "more than the limit"),
        (valid().set("qwen2.block_count", Value::U32(100_000)), "more than the limit of 512"),
        (valid().set("qwen2.attention.head_count_kv", Value::Numbers(vec![2])), "not one per layer"),
        (valid().set("general.architecture", Value::U32(1)), "wrong type"),
        (
            valid().set("general.architecture", Value::Text(vec![0xff])),
            "the value of `general.architecture` is not UTF-8",
        ),
        (valid().set("tokenizer.chat_template", Value::Text(vec![0xff])), "is not UTF-8"),
        (valid().set("general.alignment", Value::U32(24)), "not a power of two"),
        (valid().set("general.alignment", Value::U32(0)), "not a power of two"),
        (valid().set("split.count", Value::U32(3)), "one of 3 files of a split model"),
        (valid().set("x", Value::Raw(99, vec![0; 8])), "unknown type 99"),
        (valid().set("x", Value::Raw(9, [&9_u32.to_le_bytes()[..], &[0; 8]].concat())), "unknown type 9"),
        (valid().twice("general.name"), "the key `general.name` twice"),
        (valid().set("", Value::U32(1)), "is empty"),
        (valid().tensor("blk.0.weight", &[256, 4], 12), "the tensor `blk.0.weight` twice"),
        (valid().tensor("x", &[0, 4], 0), "`x` is empty"),
        (valid().tensor("x", &[1, 1, 1, 1, 1], 0), "5 dimensions"),
        (valid().tensor("x", &[1 << 40, 1 << 40], 0), "overflows"),
        (valid().tensor("x", &[u64::MAX], 0), "overflows"),
        (valid().tensor("x", &[1 << 62], 0), "more than can be addressed"),
        (valid().tensor("x", &[100], 12), "rows of 100 elements, which Q4_K packs in blocks of 256"),
        (valid().tensor("x", &[4], 4), "type 4, which is unknown or was removed"),
        (valid().tensor("x", &[4], u32::MAX), "which is unknown"),
        (valid().tensor(&"x".repeat(64), &[4], 0), "more than the limit of 63"),
        (valid().offset(1, 833), "not a multiple of 32"),
        (valid().offset(1, !31_u64), "but the tensors before it end at 576"),
        (valid().offset(1, 0), "but the tensors before it end at 576"),
        (valid().no_tensors(), "has no tensors"),
    ] {
        let said = fault(&writer);
        assert!(said.contains(expected), "{said:?} should contain {expected:?}");
    }
    for (bytes, expected) in [
        (&b""[..], "ends in the middle of its header, after 0 bytes"),
        (b"GG", "ends in the middle"),
        (b"<!DOCTYPE html>", "starts with `<!DO`"),
        (b"GGML\x01\0\0\0", "starts with `GGML`"),
        (b"GGUF\x01\0\0\0", "its GGUF version is 1, but only versions 2 and 3"),
        (b"GGUF\x04\0\0\0", "its GGUF version is 4, but only"),
        (b"GGUF\0\0\0\x03", "big-endian"),
    ] {
        let said = parse(bytes).unwrap_err().to_string();
        assert!(said.contains(expected), "{said:?} should contain {expected:?}");
    }
}

/// The offsets of the two counts and of the length of the first key.
const TENSOR_COUNT: usize = 8;
const KEY_COUNT: usize = 16;
const FIRST_KEY: usize = 24;

#[test]
fn hostile_counts_and_lengths_are_refused_before_anything_is_allocated() {
    for at in [TENSOR_COUNT, KEY_COUNT, FIRST_KEY] {
        for value in [u64::MAX, u64::MAX / 2, 1 << 63, 1 << 40, 1 << 32, 1 << 20, 65_536] {
            let mut bytes = valid().bytes();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(parse(&bytes).is_err(), "{value} at {at}");
        }
    }
    for (of, length) in [(8_u32, u64::MAX), (4, u64::MAX), (0, u64::MAX), (10, 1 << 61), (8, 1 << 60)] {
        let value = Value::Raw(9, [&of.to_le_bytes()[..], &length.to_le_bytes()].concat());
        let said = fault(&valid().set("tokenizer.ggml.scores", value));
        assert!(said.contains("ends in the middle of its header"), "{said}");
    }
    let said = fault(&valid().set("general.name", Value::Raw(8, u64::MAX.to_le_bytes().to_vec())));
    assert!(said.contains("more than the limit"), "{said}");
}

#[test]
fn every_truncation_is_detected() {
    let bytes = valid().bytes();
    for length in 0..bytes.len() {
        assert!(parse(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    let said = parse(&bytes[..bytes.len() - 1]).unwrap_err().to_string();
    assert!(said.contains(&format!("its tensors need {}", bytes.len())), "{said}");
}

/// Each flipped bit either causes an error or leaves a header that still fits its file.
#[test]
fn every_flipped_bit_is_handled() {
    let bytes = valid().bytes();
    let header = bytes.len() - usize::try_from(parse(&bytes).unwrap().tensor_bytes).unwrap();
    for at in 0..header {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            if let Ok(header) = parse(&damaged) {
                assert!(header.tensor_bytes <= bytes.len() as u64, "bit {bit} of byte {at}");
                assert!(header.layers <= 512 && header.trained_window > 0, "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn a_large_vocabulary_is_skipped() {
    let tokens = (0..150_000).map(|n| format!("token-{n}").into_bytes()).collect();
    let bytes = valid().set("tokenizer.ggml.tokens", Value::Texts(tokens)).bytes();
    assert_eq!(parse(&bytes).unwrap().vocabulary, 150_000);
}

#[test]
fn only_regular_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    std::fs::write(&file, valid().bytes()).unwrap();
    assert_eq!(gguf::read(&file).unwrap().architecture, "qwen2");
    let said = gguf::read(folder.path()).unwrap_err().to_string();
    assert!(said.ends_with("it is not a regular file"), "{said}");
    let said = gguf::read("/dev/zero".as_ref()).unwrap_err().to_string();
    assert_eq!(said, "cannot use /dev/zero: it is not a regular file");
    let said = gguf::read(&folder.path().join("missing.gguf")).unwrap_err().to_string();
    assert!(said.contains("cannot read") && said.contains("No such file"), "{said}");
}
