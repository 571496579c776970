//! Compares model names, since the same model has different names in Ollama, on Hugging Face and on
//! disk.

/// Words that say nothing about the model.
const NOISE: [&str; 3] = ["gguf", "instruct", "latest"];

/// Returns the words in a name up to its quantization, in lowercase. Leaves out the organization,
/// the file extension and the words in `NOISE`.
pub(super) fn words(name: &str) -> Vec<String> {
    let name = name.to_lowercase();
    let name = name.rsplit('/').next().unwrap_or_default();
    name.trim_end_matches(".gguf")
        .split(['-', ':', '_', ' '])
        .filter(|word| !word.is_empty() && !NOISE.contains(word))
        .take_while(|word| !is_quantization(word))
        .map(str::to_owned)
        .collect()
}

/// Returns whether a word is the beginning of a quantization name, such as `q4`, `iq3` or `bf16`.
fn is_quantization(word: &str) -> bool {
    let digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let starts = |prefix: &str| word.strip_prefix(prefix).is_some_and(digit);
    ["q", "iq", "f", "fp", "bf", "mxfp", "int"].iter().any(|prefix| starts(prefix))
        || ["awq", "gptq"].contains(&word)
}

/// Returns whether the model's name contains these words consecutively.
pub(super) fn contains(model: &[String], words: &[String]) -> bool {
    words.is_empty() || model.windows(words.len()).any(|part| part == words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_name_have_the_same_words() {
        for name in [
            "qwen2.5-coder:1.5b",
            "qwen2.5-coder:1.5b-instruct-q4_K_M",
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
            "hf.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:Q4_K_M",
            "/models/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            "Qwen2.5-Coder-1.5B-IQ3_XS",
            "Qwen2.5_Coder_1.5B_BF16.GGUF",
        ] {
            assert_eq!(words(name), ["qwen2.5", "coder", "1.5b"], "{name}");
        }
        assert_eq!(words("qwq:latest"), ["qwq"], "a q without a digit is not a quantization");
    }

    #[test]
    fn a_name_is_matched_by_whole_words() {
        let matches = |model: &str, name: &str| contains(&words(model), &words(name));
        assert!(matches("deepseek-r1:8b", "deepseek-r1"));
        assert!(matches("DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1"));
        assert!(matches("Qwen_Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf", "qwen3-coder"));
        assert!(matches("qwen2.5-coder:7b", "Qwen2.5-Coder-7B-Instruct-GGUF"));
        assert!(!matches("deepseek-r10", "deepseek-r1"));
        assert!(!matches("deepseek-coder:6.7b", "deepseek-coder-v2"));
    }
}
