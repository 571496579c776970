//! Where the model might have written something else: the `logprobs` of a chunk, which OpenAI's and Ollama's servers write alike.

use serde_json::Value;

use crate::Delta;

/// The doubt about the text of a chunk, if the chunk is one token and there were others. A chunk of several tokens, or of a part of a
/// character, cannot be placed in the text, so it tells nothing.
pub(crate) fn read(tokens: &Value, text: &Value) -> Option<Delta> {
    placed(tokens, text.as_str()?).filter(|(at, _)| *at == 0).map(|(_, doubt)| doubt)
}

/// As [`read`], of a chunk whose token may have other text before it, with where in the chunk the token begins: Ollama's first chunk of a
/// continued message repeats that message, and its log probabilities are those of the new token.
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
    fn a_chunk_of_one_token_tells_what_else_it_might_have_been() {
        let tokens = json!([{"token": " -", "logprob": -0.7, "top_logprobs": [{"token": " -", "logprob": -0.7}, {"token": " +", "logprob": -0.8}]}]);
        let doubt = Delta::Doubt { chosen: " -".into(), others: vec![(" +".into(), -0.8)] };
        assert_eq!(read(&tokens, &json!(" -")), Some(doubt.clone()));
        assert_eq!(placed(&tokens, "return a -"), Some((8, doubt)), "behind what is repeated");
        assert_eq!(read(&tokens, &json!(" -x")), None, "it cannot be placed");
        assert_eq!(read(&json!(null), &json!(" -")), None);
        assert_eq!(read(&json!([{"token": "a"}]), &json!("a")), None);
    }
}
