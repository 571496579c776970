//! Reads the header of a GGUF file, checks it against the length of the file and summarizes it
//! before an engine maps the file.
//!
//! llama.cpp trusts its input more than a downloaded file deserves. [`read`] accepts only files
//! that llama.cpp can load: version 2 or 3, little-endian, one file per model, no gaps between
//! tensors, and no tensor past the end of the file. It reads only the header, which takes
//! milliseconds regardless of the file size. Before allocating memory for a count, it checks the
//! count against the length of the file.
//!
//! ```no_run
//! let header = model_files::gguf::read("qwen2.5-coder-1.5b.gguf".as_ref())?;
//! println!("{} layers, {} bytes of cache per token", header.layers, header.kv_bytes_per_token);
//! # Ok::<(), model_files::gguf::Error>(())
//! ```
//!
//! The format is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod input;
mod keys;
mod tensors;
mod types;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use input::Input;
use keys::Keys;
use serde::Serialize;

pub use keys::ARCHITECTURES;

/// Bytes per value in the KV cache, which llama.cpp stores as 16-bit floats.
const KV_BYTES: u64 = 2;

/// The size of the read buffer, in bytes. A header is about 6 MB, nearly all of which is the
/// vocabulary.
const BUFFER: usize = 256 << 10;

/// The contents of a valid header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// The version of the format: 2 or 3.
    pub version: u32,
    /// The model's architecture, such as `qwen2` or `deepseek2`.
    pub architecture: String,
    /// Whether [`ARCHITECTURES`] contains the architecture. The engine rejects all others.
    pub known: bool,
    /// The model's name, if the file has one.
    pub name: Option<String>,
    /// The number of parameters, which is the number of elements in all tensors.
    pub parameters: u64,
    /// The quantization, such as `Q4_K_M`. If the file does not specify one, this is the element
    /// type that takes up the most bytes.
    pub quantization: String,
    /// The context window that the model was trained with, in tokens.
    pub trained_window: u64,
    /// The number of transformer layers.
    pub layers: u64,
    /// The size of an embedding.
    pub embedding: u64,
    /// The largest number of attention heads in a layer; 0 for models without attention.
    pub heads: u64,
    /// The largest number of key/value heads in a layer.
    pub kv_heads: u64,
    /// The length of one head's key.
    pub key_length: u64,
    /// The length of one head's value.
    pub value_length: u64,
    /// Bytes that one token of context takes up in a KV cache of 16-bit floats. This is an upper
    /// bound: architectures with a sliding window or recurrent layers need less.
    pub kv_bytes_per_token: u64,
    /// The number of tokens in the vocabulary.
    pub vocabulary: u64,
    /// The Jinja template that turns a conversation into a prompt.
    pub chat_template: Option<String>,
    /// The size of all tensors, in bytes. This is the memory that the model takes up without the KV
    /// cache.
    pub tensor_bytes: u64,
    /// The size of the file, in bytes.
    pub file_bytes: u64,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not a model that can be loaded.
    #[error("cannot use {}: {fault}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is a folder, a device or a pipe.
    #[error("it is not a regular file")]
    NotAFile,
    /// The first four bytes are not `GGUF`.
    #[error("it is not a GGUF file: it starts with {0}, not `GGUF`")]
    Magic(String),
    /// The version is not supported.
    #[error("its GGUF version is {0}, but only versions 2 and 3 are supported; convert the model again")]
    Version(u32),
    /// The file is big-endian.
    #[error("it is a big-endian GGUF file; get the little-endian one")]
    BigEndian,
    /// The header needs more bytes than the file has.
    #[error(
        "it ends in the middle of its header, after {have} bytes: {what} needs a file of at least {needs} bytes; download it again"
    )]
    Header {
        /// The item being read.
        what: String,
        /// The size of the file, in bytes.
        have: u64,
        /// How many bytes the file would need.
        needs: u64,
    },
    /// Tensors extend past the end of the file.
    #[error("it is truncated: it has {have} bytes, but its tensors need {needs}; download it again")]
    Truncated {
        /// The size of the file, in bytes.
        have: u64,
        /// How many bytes the file would need.
        needs: u64,
    },
    /// A count or length is larger than in any real model.
    #[error("{what} is {value}, more than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The value in the file.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// A key, a name or a text value is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotText(String),
    /// A key or a tensor appears twice.
    #[error("it has {0} twice")]
    Duplicate(String),
    /// A key that every model needs is missing.
    #[error("it has no key `{0}`, so it is not a complete language model")]
    Missing(String),
    /// A value has a type or size that its key does not allow.
    #[error("its key `{key}` {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with the value.
        why: String,
    },
    /// A tensor violates the format.
    #[error("its tensor `{name}` {why}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// There are no tensors. The file contains only metadata, such as a vocabulary.
    #[error("it has no tensors")]
    NoTensors,
    /// The file is one of several that make up a split model.
    #[error("it is one of {0} files of a split model; merge them with `llama-gguf-split --merge`")]
    Split(u64),
    /// The file cannot be read.
    #[error("reading it failed: {0}")]
    Io(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error.to_string())
    }
}

/// Reads and checks the header of a file.
///
/// # Errors
/// If the file cannot be read, or is not a model that can be loaded.
pub fn read(path: &Path) -> Result<Header, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let invalid = |fault| Error::Invalid { path: path.to_owned(), fault };
    // Opening a pipe would block until it has a writer.
    if !path.metadata().map_err(io)?.is_file() {
        return Err(invalid(Fault::NotAFile));
    }
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    parse(BufReader::with_capacity(BUFFER, file), length).map_err(invalid)
}

/// Reads and checks a header. `reader` must be at the start of a file of `length` bytes.
///
/// # Errors
/// If it is not the header of a model that can be loaded.
pub fn parse<R: Read + Seek>(reader: BufReader<R>, length: u64) -> Result<Header, Fault> {
    let mut input = Input::new(reader, length);
    let magic = input.bytes::<4>("the magic number")?;
    if magic != *b"GGUF" {
        return Err(Fault::Magic(format!("`{}`", magic.escape_ascii())));
    }
    let version = input.u32("the version")?;
    match version {
        2 | 3 => {}
        // Version 2 or 3 in big-endian byte order.
        0x0200_0000 | 0x0300_0000 => return Err(Fault::BigEndian),
        other => return Err(Fault::Version(other)),
    }
    let tensors = input.u64("the number of tensors")?;
    let pairs = input.u64("the number of keys")?;
    let keys = Keys::read(&mut input, pairs)?;
    let tensors = tensors::read(&mut input, tensors, keys.alignment()?)?;
    let layers = keys.layers()?;
    let (heads, kv_heads) = (keys.heads()?, keys.kv_heads()?);
    let (embedding, widest) = (keys.embedding()?, heads.widest());
    let per_head = embedding.checked_div(widest).unwrap_or(0);
    let key_length = keys.key_length()?.unwrap_or(per_head);
    let value_length = keys.value_length()?.unwrap_or(per_head);
    let per_token = key_length.saturating_add(value_length).saturating_mul(KV_BYTES);
    Ok(Header {
        version,
        architecture: keys.architecture().to_owned(),
        known: ARCHITECTURES.contains(&keys.architecture()),
        name: keys.name().map(str::to_owned),
        parameters: tensors.parameters,
        quantization: keys.file_type()?.unwrap_or(tensors.most).to_owned(),
        trained_window: keys.window()?,
        layers,
        embedding,
        heads: widest,
        kv_heads: kv_heads.widest(),
        key_length,
        value_length,
        kv_bytes_per_token: kv_heads.sum(layers).saturating_mul(per_token),
        vocabulary: keys.vocabulary()?,
        chat_template: keys.chat_template().map(str::to_owned),
        tensor_bytes: tensors.bytes,
        file_bytes: length,
    })
}
