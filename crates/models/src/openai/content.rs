//! Reads content and reasoning in the various shapes that servers send: a string, a part, or a list
//! of parts.

use serde_json::Value;

/// Returns the text and the reasoning in a `content` field. Mistral and others send reasoning in
/// separate parts.
pub(super) fn content(value: Value) -> (String, String) {
    let (mut text, mut inside) = (String::new(), String::new());
    match value {
        Value::String(whole) => text = whole,
        Value::Array(parts) => {
            for part in parts {
                let (more, thoughts) = content(part);
                text.push_str(&more);
                inside.push_str(&thoughts);
            }
        }
        Value::Object(mut part) => {
            let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
            if kind.contains("think") || kind.contains("reason") || part.contains_key("thinking") {
                inside = thoughts(&Value::Object(part));
            } else if let Some(value) = part.remove("text").or_else(|| part.remove("value")) {
                return content(value);
            }
        }
        _ => {}
    }
    (text, inside)
}

/// Returns the text of a reasoning field, regardless of its shape.
pub(super) fn thoughts(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(thoughts).collect(),
        Value::Object(part) => ["thinking", "text", "reasoning", "content", "summary"]
            .iter()
            .filter_map(|key| part.get(*key))
            .map(thoughts)
            .find(|text| !text.is_empty())
            .unwrap_or_default(),
        _ => String::new(),
    }
}
