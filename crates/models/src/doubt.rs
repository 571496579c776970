//! Reads the alternatives to a token from a chunk's `logprobs`, which have the same form in the
//! OpenAI and Ollama APIs.

use serde_json::Value;

use crate::Delta;

/// Returns the alternatives to a chunk's text, if the chunk is a single token with alternatives.
/// Returns `None` for a chunk that holds several tokens or only part of a character, because its
/// alternatives have no definite position in the text.
pub(crate) fn read(tokens: &Value, text: &Value) -> Option<Delta> {
    placed(tokens, text.as_str()?).filter(|(at, _)| *at == 0).map(|(_, doubt)| doubt)
}

/// Like [`read`], but the chunk may have other text before its token. Also returns the token's
/// offset in the chunk. When Ollama continues a message, its first chunk repeats that message
/// before the new token, but has log probabilities only for the new token.
pub(crate) fn placed(tokens: &Value, text: &str) -> Option<(usize, Delta)> {
    let [token] = tokens.as_array()?.as_slice() else { return None };
    let chosen = token["token"].as_str().filter(|chosen| !chosen.is_empty())?;
    let at = text.strip_suffix(chosen)?.len();
    let other = |other: &Value| {
        let text = other["token"]
            .as_str()
            .filter(|text| *text != chosen && !text.is_empty() && !text.contains('\u{fffd}'))?;
        Some((text.to_owned(), other["logprob"].as_f64()? as f32))
    };
    let others: Vec<_> = token["top_logprobs"].as_array()?.iter().filter_map(other).collect();
    (!others.is_empty()).then(|| (at, Delta::Doubt { chosen: chosen.to_owned(), others }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_chunk_of_one_token_has_its_alternatives() {
        let tokens = json!([{"token": " -", "logprob": -0.7, "top_logprobs": [{"token": " -", "logprob": -0.7}, {"token": " +", "logprob": -0.8}]}]);
        let doubt = Delta::Doubt { chosen: " -".into(), others: vec![(" +".into(), -0.8)] };
        assert_eq!(read(&tokens, &json!(" -")), Some(doubt.clone()));
        assert_eq!(placed(&tokens, "return a -"), Some((8, doubt)), "after the repeated text");
        assert_eq!(read(&tokens, &json!(" -x")), None, "the token has no definite position");
        assert_eq!(read(&json!(null), &json!(" -")), None);
        assert_eq!(read(&json!([{"token": "a"}]), &json!("a")), None);
    }
}
