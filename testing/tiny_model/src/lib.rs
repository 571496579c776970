//! A model file with random weights, for tests of the engine.
//!
//! [`write`] makes a GGUF file that llama.cpp loads in milliseconds: one layer of the `llama`
//! architecture, a byte-level tokenizer with a few merges, and ChatML as its chat template. Other
//! functions write variants of that file. The weights come from a fixed seed, so the same prompt
//! always gets the same answer at temperature 0: nonsense, mostly in printable characters.

use std::io;
use std::path::Path;

const EMBEDDING: u64 = 32;
const HEADS: u32 = 4;
const FEED_FORWARD: u64 = 64;
/// The training context length that the file specifies for its model, in tokens.
pub const WINDOW: u32 = 32_768;

/// The pairs of tokens that the tokenizer merges, in order of priority.
const MERGES: [(&str, &str); 8] =
    [("t", "h"), ("th", "e"), ("i", "n"), ("e", "r"), ("a", "n"), ("r", "e"), ("o", "n"), ("Ġ", "the")];
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The type codes of GGUF metadata values.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Writes the model file.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write(path: &Path) -> io::Result<()> {
    write_with(path, &byte_pairs(&[]), false)
}

/// Writes a model whose layer passes its input on unchanged. Each token therefore depends only on
/// the token before it, and answers soon repeat themselves.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_repeating(path: &Path) -> io::Result<()> {
    write_with(path, &byte_pairs(&[]), true)
}

/// Writes a model with a SentencePiece tokenizer, which adds a space to the start of any text.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_sentence_piece(path: &Path) -> io::Result<()> {
    write_with(path, &sentence_piece(), false)
}

/// Writes a model with a 3000-byte token, which it never generates.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_with_long_token(path: &Path) -> io::Result<()> {
    write_with(path, &byte_pairs(&["x".repeat(3000)]), false)
}

/// The types of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// A tokenizer's name and its tokens, each with its type. The last tokens are [`SPECIAL`].
struct Vocabulary {
    tokenizer: &'static str,
    tokens: Vec<(String, i32)>,
}

fn write_with(path: &Path, vocabulary: &Vocabulary, repeating: bool) -> io::Result<()> {
    let tokens: Vec<String> = vocabulary.tokens.iter().map(|(token, _)| token.clone()).collect();
    let tensors = tensors(tokens.len() as u64);
    let mut file = Vec::new();
    file.extend(b"GGUF");
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    let mut keys = Keys::default();
    keys.text("general.architecture", "llama");
    keys.text("general.name", "tiny");
    for (key, value) in [
        ("context_length", WINDOW),
        ("embedding_length", EMBEDDING as u32),
        ("block_count", 1),
        ("feed_forward_length", FEED_FORWARD as u32),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", HEADS),
        ("rope.dimension_count", EMBEDDING as u32 / HEADS),
        ("vocab_size", tokens.len() as u32),
    ] {
        keys.number(&format!("llama.{key}"), value);
    }
    keys.float("llama.attention.layer_norm_rms_epsilon", 1e-5);
    keys.text("tokenizer.ggml.model", vocabulary.tokenizer);
    keys.text("tokenizer.ggml.pre", "qwen2");
    keys.texts("tokenizer.ggml.tokens", &tokens);
    keys.floats("tokenizer.ggml.scores", tokens.iter().map(|token| token.len() as f32));
    keys.numbers("tokenizer.ggml.token_type", vocabulary.tokens.iter().map(|(_, kind)| *kind));
    keys.texts("tokenizer.ggml.merges", &MERGES.map(|(left, right)| format!("{left} {right}")));
    let normal = tokens.len() - SPECIAL.len();
    keys.number("tokenizer.ggml.bos_token_id", normal as u32);
    keys.number("tokenizer.ggml.eos_token_id", normal as u32 + 2);
    keys.text("tokenizer.chat_template", TEMPLATE);
    file.extend(keys.count.to_le_bytes());
    file.extend(keys.bytes);
    let mut offset = 0_u64;
    for (name, shape) in &tensors {
        text(&mut file, name);
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| file.extend(size.to_le_bytes()));
        file.extend(0_u32.to_le_bytes()); // F32
        file.extend(offset.to_le_bytes());
        offset += (shape.iter().product::<u64>() * 4).next_multiple_of(32);
    }
    let mut random = fastrand::Rng::with_seed(7);
    for (name, shape) in &tensors {
        file.resize(file.len().next_multiple_of(32), 0);
        let row = shape[0] as usize;
        for index in 0..shape.iter().product::<u64>() as usize {
            let value = match name.as_str() {
                norm if norm.contains("norm") => 1.0,
                "blk.0.attn_output.weight" | "blk.0.ffn_down.weight" if repeating => 0.0,
                // Answers should be text, so every unprintable token gets a logit of 0, which is
                // rarely the highest.
                "output.weight" if !printable(&tokens[index / row]) => 0.0,
                _ => random.f32() - 0.5,
            };
            file.extend(value.to_le_bytes());
        }
    }
    std::fs::write(path, file)
}

fn printable(token: &str) -> bool {
    let space = |c| c == 'Ġ' || c == '▁';
    token.chars().all(|c| c.is_ascii_graphic() || space(c))
        && !SPECIAL.contains(&token)
        && !(token.starts_with('<') && token.len() > 1)
        && token.len() < 100
}

fn special() -> impl Iterator<Item = (String, i32)> {
    SPECIAL.iter().map(|token| ((*token).to_owned(), CONTROL))
}

/// Returns a GPT-2 vocabulary: the character that the tokenizer uses for each byte, the merges, and
/// the tokens in `more`.
fn byte_pairs(more: &[String]) -> Vocabulary {
    let mut next = 256;
    let byte = |byte: u8| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            next += 1;
            char::from_u32(next - 1).unwrap_or(' ')
        }
    };
    let mut tokens: Vec<String> = (0..=255).map(byte).map(String::from).collect();
    tokens.extend(MERGES.map(|(left, right)| format!("{left}{right}")));
    tokens.extend_from_slice(more);
    let tokens = tokens.into_iter().map(|token| (token, NORMAL)).chain(special()).collect();
    Vocabulary { tokenizer: "gpt2", tokens }
}

/// Returns a SentencePiece vocabulary: the bytes, the printable characters, and the merges.
fn sentence_piece() -> Vocabulary {
    let mut tokens = vec![(String::from("<unk>"), UNKNOWN)];
    tokens.extend((0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
    let characters = (b'!'..=b'~').map(char::from).chain(['▁']).map(String::from);
    let merges = MERGES.map(|(left, right)| format!("{left}{right}").replace('Ġ', "▁"));
    tokens.extend(characters.chain(merges).map(|token| (token, NORMAL)));
    tokens.extend(special());
    Vocabulary { tokenizer: "llama", tokens }
}

fn tensors(vocabulary: u64) -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![
        (String::from("token_embd.weight"), vec![EMBEDDING, vocabulary]),
        (String::from("output_norm.weight"), vec![EMBEDDING]),
        (String::from("output.weight"), vec![EMBEDDING, vocabulary]),
    ];
    let block: [(&str, &[u64]); 9] = [
        ("attn_norm", &[EMBEDDING]),
        ("attn_q", &[EMBEDDING, EMBEDDING]),
        ("attn_k", &[EMBEDDING, EMBEDDING]),
        ("attn_v", &[EMBEDDING, EMBEDDING]),
        ("attn_output", &[EMBEDDING, EMBEDDING]),
        ("ffn_norm", &[EMBEDDING]),
        ("ffn_gate", &[EMBEDDING, FEED_FORWARD]),
        ("ffn_up", &[EMBEDDING, FEED_FORWARD]),
        ("ffn_down", &[FEED_FORWARD, EMBEDDING]),
    ];
    tensors.extend(block.map(|(name, shape)| (format!("blk.0.{name}.weight"), shape.to_vec())));
    tensors
}

/// The metadata of a model file, encoded for GGUF.
#[derive(Default)]
struct Keys {
    count: u64,
    bytes: Vec<u8>,
}

impl Keys {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, STRING);
        text(&mut self.bytes, value);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, U32);
        self.bytes.extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, F32);
        self.bytes.extend(value.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) {
        self.key(key, ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }

    fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, STRING, values.len());
        values.iter().for_each(|value| text(&mut self.bytes, value));
    }

    fn floats(&mut self, key: &str, values: impl ExactSizeIterator<Item = f32>) {
        self.array(key, F32, values.len());
        values.for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    fn numbers(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, I32, values.len());
        values.for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
