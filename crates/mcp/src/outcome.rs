//! Turns the result of a call into the text that the model reads.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use sandbox::{Capture, OutputLimits};
use secrets::Secrets;
use serde_json::json;
use tool_api::Outcome;

/// How much of a result the model reads: 4 KiB or 60 lines at each end, the same as for commands.
const SHOWN: OutputLimits = OutputLimits {
    head_bytes: 4 << 10,
    head_lines: 60,
    tail_bytes: 4 << 10,
    tail_lines: 60,
    log_bytes: 0,
    total_bytes: u64::MAX,
};

/// The maximum length of a message from a server, in characters.
const MAX_MESSAGE: usize = 500;

/// Returns the outcome of a call that a server answered.
pub(crate) fn of(result: &CallToolResult, secrets: &Secrets) -> Outcome {
    let mut text =
        result.content.iter().map(|content| block(content, secrets)).collect::<Vec<_>>().join("\n");
    if let Some(value) = result.structured_content.as_ref().filter(|_| result.content.is_empty()) {
        text = value.to_string();
    }
    let bytes = text.len();
    let text = shown(&text, secrets);
    let text = if text.trim().is_empty() { "No output.".to_owned() } else { text };
    let outcome = if result.is_error == Some(true) { Outcome::failed(text) } else { Outcome::ok(text) };
    Outcome { facts: json!({ "output_bytes": bytes }), ..outcome }
}

/// Removes escape sequences, masks secrets, and keeps only the beginning and end of long text.
fn shown(text: &str, secrets: &Secrets) -> String {
    let plain = sandbox::plain(text.as_bytes());
    // Mask before truncating, because half a secret would not be recognized.
    let masked = secrets.mask(&plain);
    let mut capture = Capture::new(SHOWN, None);
    capture.feed(masked.as_bytes());
    let captured = capture.finish();
    let mut out = captured.text();
    if captured.omitted.is_some() {
        out = format!("{}\n[{} lines; ask for less to see others]", out.trim_end(), captured.total_lines);
    }
    out
}

/// Returns one part of a result as text. Anything that is not text is replaced with a short note.
fn block(block: &ContentBlock, secrets: &Secrets) -> String {
    let kib = |base64: &str| (base64.len() / 4 * 3).div_ceil(1024);
    let short = |text: &str, width| preview::sanitize::short(&secrets.mask(text), width);
    let kind = |kind: &str| short(kind, 60);
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => {
            format!("[an image is left out: {}, {} KiB]", kind(&image.mime_type), kib(&image.data))
        }
        ContentBlock::Audio(audio) => {
            format!("[a sound is left out: {}, {} KiB]", kind(&audio.mime_type), kib(&audio.data))
        }
        ContentBlock::Resource(resource) => match &resource.resource {
            ResourceContents::TextResourceContents { text, .. } => text.clone(),
            ResourceContents::BlobResourceContents { uri, blob, .. } => {
                format!("[binary data is left out: {}, {} KiB]", kind(uri), kib(blob))
            }
            _ => "[a resource is left out]".into(),
        },
        ContentBlock::ResourceLink(link) => {
            format!("[resource {}]", short(&link.uri, 200))
        }
        _ => "[content of an unknown kind is left out]".into(),
    }
}

/// Formats a message from a server for use within a sentence.
pub(crate) fn message(text: &str, secrets: &Secrets) -> String {
    // Mask before truncating, as in [`shown`].
    let head: String = secrets.mask(text).chars().take(4 * MAX_MESSAGE).collect();
    preview::sanitize::short(
        head.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.'),
        MAX_MESSAGE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bug_half_a_secret_reached_the_model() {
        let key = format!("sk-{}", "a1B2c3D4".repeat(5));
        let secrets = Secrets::new("session", vec![key.clone()]);
        let told = message(&format!("{} {key}", "x".repeat(480)), &secrets);
        let uri = format!("https://example.org/{}?k={key}", "x".repeat(170));
        let link = serde_json::from_value(json!({ "type": "resource_link", "uri": uri, "name": "n" }));
        let result = CallToolResult::success(vec![link.unwrap()]);
        for text in [told, of(&result, &secrets).text] {
            assert!(!text.contains("sk-a1B2"), "{text}");
        }
    }

    #[test]
    fn images_become_notes_and_long_texts_are_cut_in_the_middle() {
        let long = (0..10_000).map(|n| format!("line {n}\n")).collect::<String>();
        let content =
            vec![ContentBlock::image("AAAA".repeat(1000), "image/png\u{1b}"), ContentBlock::text(long)];
        let outcome = of(&CallToolResult::success(content), &Secrets::disabled());
        assert!(outcome.text.starts_with("[an image is left out: image/png␛, 3 KiB]\nline 0\n"));
        assert!(outcome.text.len() < 10_000 && outcome.text.contains("lines left out"), "{}", outcome.text);
        assert!(outcome.text.contains("line 9999\n[10001 lines; ask for less to see others]"));
    }
}
