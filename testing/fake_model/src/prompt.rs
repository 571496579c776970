//! Renders a conversation as the prompt that the model would see.

use serde_json::Value;

/// Renders a tool call as it appears in the prompt and in generated text.
pub(crate) fn rendered_call(name: &str, arguments: &Value) -> String {
    // In a history, arguments are JSON text (OpenAI) or a JSON value (Ollama). Both are rendered
    // the same way.
    let arguments = match arguments {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    format!("<tool_call>{name} {arguments}</tool_call>")
}

/// Renders the prompt of a chat: the tools, then the messages, then the start of the answer.
/// Reasoning in the history is left out.
pub(crate) fn rendered_chat(body: &Value) -> String {
    let mut prompt = String::new();
    if let Some(tools) = body["tools"].as_array().filter(|tools| !tools.is_empty()) {
        prompt.push_str(&format!("<|tools|>\n{}\n", Value::from(tools.clone())));
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        prompt.push_str(&format!("<|{}|>\n", message["role"].as_str().unwrap_or_default()));
        match &message["content"] {
            Value::String(text) => prompt.push_str(text),
            Value::Array(parts) => {
                parts.iter().filter_map(|part| part["text"].as_str()).for_each(|text| prompt.push_str(text));
            }
            _ => {}
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let name = call["function"]["name"].as_str().unwrap_or_default();
            prompt.push_str(&rendered_call(name, &call["function"]["arguments"]));
        }
        prompt.push('\n');
    }
    prompt.push_str("<|assistant|>\n");
    prompt
}
