//! Writes small GGUF files, both valid and invalid ones.

/// The value of a metadata key.
#[derive(Clone)]
pub enum Value {
    /// A 32-bit number.
    U32(u32),
    /// A signed 32-bit number.
    I32(i32),
    /// A 64-bit number.
    U64(u64),
    /// The bytes of a string, which are UTF-8 in a valid file.
    Text(Vec<u8>),
    /// A list of strings.
    Texts(Vec<Vec<u8>>),
    /// A list of 32-bit numbers.
    Numbers(Vec<u32>),
    /// A type code, which may be invalid, and the bytes of the value.
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    format: u32,
    offset: Option<u64>,
}

/// Builds a GGUF file.
#[derive(Clone)]
pub struct Writer {
    keys: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

/// Returns a valid file with two tensors.
#[must_use]
pub fn valid() -> Writer {
    let text = |text: &str| Value::Text(text.as_bytes().to_vec());
    let keys = [
        ("general.architecture", text("qwen2")),
        ("general.name", text("Tiny")),
        ("general.file_type", Value::U32(15)),
        ("general.alignment", Value::U32(32)),
        ("qwen2.block_count", Value::U32(2)),
        ("qwen2.context_length", Value::U32(32_768)),
        ("qwen2.embedding_length", Value::U32(64)),
        ("qwen2.attention.head_count", Value::U32(4)),
        ("qwen2.attention.head_count_kv", Value::U32(2)),
        ("qwen2.rope.freq_base", Value::Raw(6, 1e6_f32.to_le_bytes().to_vec())),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.tokens", Value::Texts(vec![b"a".to_vec(), vec![0xff], Vec::new()])),
        ("tokenizer.ggml.add_bos_token", Value::Raw(7, vec![0])),
        ("tokenizer.chat_template", text("{{ messages }}")),
    ];
    let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Writer { keys, tensors: Vec::new() }.tensor("blk.0.weight", &[256, 4], 12).tensor("norm", &[64], 0)
}

impl Writer {
    /// Sets a key.
    #[must_use]
    pub fn set(mut self, key: &str, value: Value) -> Self {
        match self.keys.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value,
            None => self.keys.push((key.to_owned(), value)),
        }
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(k, _)| k != key);
        self
    }

    /// Repeats a key.
    #[must_use]
    pub fn twice(mut self, key: &str) -> Self {
        let pair = self.keys.iter().find(|(k, _)| k == key).unwrap().clone();
        self.keys.push(pair);
        self
    }

    /// Changes the architecture.
    #[must_use]
    pub fn renamed(mut self, to: &str) -> Self {
        for (key, value) in &mut self.keys {
            *key = key.replace("qwen2.", &format!("{to}."));
            if key == "general.architecture" {
                *value = Value::Text(to.as_bytes().to_vec());
            }
        }
        self
    }

    /// Adds a tensor with the element type `format`.
    #[must_use]
    pub fn tensor(mut self, name: &str, dimensions: &[u64], format: u32) -> Self {
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        self.tensors.push(Tensor { name, dimensions, format, offset: None });
        self
    }

    /// Changes the offset of a tensor.
    #[must_use]
    pub fn offset(mut self, tensor: usize, offset: u64) -> Self {
        self.tensors[tensor].offset = Some(offset);
        self
    }

    /// Removes all tensors.
    #[must_use]
    pub fn no_tensors(mut self) -> Self {
        self.tensors.clear();
        self
    }

    /// Returns the bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let alignment = self.keys.iter().find_map(|(key, value)| match value {
            Value::U32(alignment) if key == "general.alignment" && *alignment > 0 => Some(*alignment),
            _ => None,
        });
        let alignment = u64::from(alignment.unwrap_or(32));
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key.as_bytes());
            let (number, bytes) = value.encoded();
            out.extend(number.to_le_bytes());
            out.extend(bytes);
        }
        let mut end = 0_u64;
        for tensor in &self.tensors {
            text(&mut out, tensor.name.as_bytes());
            out.extend(u32::try_from(tensor.dimensions.len()).unwrap().to_le_bytes());
            for dimension in &tensor.dimensions {
                out.extend(dimension.to_le_bytes());
            }
            out.extend(tensor.format.to_le_bytes());
            let start = end.next_multiple_of(alignment);
            out.extend(tensor.offset.unwrap_or(start).to_le_bytes());
            let elements = tensor.dimensions.iter().fold(1_u64, |all, one| all.saturating_mul(*one));
            // The size is limited so that the file fits in memory. A reader refuses larger tensors
            // before it reads their bytes.
            end = start + (elements.min(1 << 20) * if tensor.format == 12 { 144 } else { 1024 }) / 256;
        }
        out.resize(out.len().next_multiple_of(usize::try_from(alignment).unwrap()), 0);
        out.resize(out.len() + usize::try_from(end).unwrap(), 0);
        out
    }
}

impl Value {
    fn encoded(&self) -> (u32, Vec<u8>) {
        match self {
            Value::U32(n) => (4, n.to_le_bytes().to_vec()),
            Value::I32(n) => (5, n.to_le_bytes().to_vec()),
            Value::U64(n) => (10, n.to_le_bytes().to_vec()),
            Value::Text(bytes) => {
                let mut out = Vec::new();
                text(&mut out, bytes);
                (8, out)
            }
            Value::Texts(texts) => {
                let mut out = list(8, texts.len());
                texts.iter().for_each(|bytes| text(&mut out, bytes));
                (9, out)
            }
            Value::Numbers(numbers) => {
                let mut out = list(4, numbers.len());
                numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
                (9, out)
            }
            Value::Raw(number, bytes) => (*number, bytes.clone()),
        }
    }
}

fn list(of: u32, length: usize) -> Vec<u8> {
    [&of.to_le_bytes()[..], &(length as u64).to_le_bytes()].concat()
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}
