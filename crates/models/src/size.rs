//! Determines the size of a model from what a server reports, or from the model's name.

/// Parses a size such as `7.6B`, `494.03M` or `1.5b`, and returns it in billions.
pub(crate) fn billions(size: &str) -> Option<f32> {
    let number =
        |digits: &str| digits.parse::<f32>().ok().filter(|number| number.is_finite() && *number > 0.0);
    let digits = size.trim().strip_suffix(|unit: char| unit.is_ascii_alphabetic())?;
    match size.trim().as_bytes().last()?.to_ascii_uppercase() {
        b'B' => number(digits),
        b'M' => Some(number(digits)? / 1e3),
        b'T' => Some(number(digits)? * 1e3),
        _ => None,
    }
}

/// Reads the number of parameters, in billions, from a model's name, such as
/// `qwen2.5-coder:1.5b-instruct`, `DeepSeek-R1-Distill-Qwen-7B` or `smollm2-135m`.
pub(crate) fn parameters_in(name: &str) -> Option<f32> {
    // Quantization names such as q4_K_M never have a unit right after the digits.
    name.split(['-', ':', '/', '_', ' '])
        .rev()
        .filter(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        .find_map(billions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_with_their_units() {
        assert_eq!(billions("494.03M"), Some(0.49403));
        assert_eq!(billions("1.5b"), Some(1.5));
        for odd in ["b", "", "é", "7", "-1b", "infb", "nanb"] {
            assert_eq!(billions(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn sizes_are_found_in_names() {
        for (name, size) in [
            ("qwen2.5-coder:1.5b-instruct-q4_K_M", Some(1.5)),
            ("DeepSeek-R1-Distill-Qwen-7B", Some(7.0)),
            ("smollm2-135m", Some(0.135)),
            ("deepseek-coder-v2:16b", Some(16.0)),
            ("deepseek-flash", None),
            ("gpt-4", None),
        ] {
            assert_eq!(parameters_in(name), size, "{name}");
        }
    }
}
