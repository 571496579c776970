//! Builds the text of a prompt. A link becomes its path. An embedded file becomes its path, and its
//! content is appended to the prompt in a code fence.

use std::path::Path;

use agent_client_protocol::v1::schema::{ContentBlock, EmbeddedResourceResource};
use percent_encoding::percent_decode_str;
use preview::sanitize;

use crate::bounded;
use crate::fence::fenced;

/// The maximum number of blocks in a prompt.
pub const MAX_BLOCKS: usize = 256;

/// Returns the text of a prompt for a session in `root`. Paths of files in `root` become relative
/// to it.
///
/// # Errors
/// If the prompt is empty, has too many blocks, or contains a kind of block that the agent does not
/// accept. The error is a message for the user.
pub fn text(blocks: &[ContentBlock], root: &Path) -> Result<String, String> {
    if blocks.len() > MAX_BLOCKS {
        return Err(format!("the prompt has more than {MAX_BLOCKS} blocks"));
    }
    let (mut text, mut appendix) = (String::new(), String::new());
    for block in blocks {
        match block {
            ContentBlock::Text(block) => text.push_str(&block.text),
            // Editors put links in the middle of a sentence.
            ContentBlock::ResourceLink(link) => text.push_str(&name_of(&link.uri, root)),
            ContentBlock::Resource(embedded) => match &embedded.resource {
                EmbeddedResourceResource::TextResourceContents(file) => {
                    let name = name_of(&file.uri, root);
                    text.push_str(&name);
                    appendix.push_str(&format!("\n\n{name}:\n{}", fenced("", &bounded(&file.text))));
                }
                EmbeddedResourceResource::BlobResourceContents(file) => {
                    let name = name_of(&file.uri, root);
                    text.push_str(&format!("{name} (binary, not shown)"));
                }
                _ => return Err("the prompt has an embedded resource of an unknown kind".into()),
            },
            ContentBlock::Image(_) => return Err("this agent does not accept images".into()),
            ContentBlock::Audio(_) => return Err("this agent does not accept audio".into()),
            _ => return Err("the prompt has a block of an unknown kind".into()),
        }
    }
    if text.trim().is_empty() {
        return Err("the prompt is empty; describe what to do".into());
    }
    Ok(format!("{}{appendix}", text.trim_end()))
}

/// Returns the path of a resource, relative to `root` if it is inside `root`. URIs with a scheme
/// other than `file` are left unchanged.
fn name_of(uri: &str, root: &Path) -> String {
    let Some(path) = uri.strip_prefix("file://") else { return sanitize::line(uri).into_owned() };
    // The fragment may be a range of lines, such as `#L10-20`.
    let (path, lines) = path.split_once('#').unwrap_or((path, ""));
    let path = percent_decode_str(path).decode_utf8_lossy();
    let path = Path::new(&*path);
    let path = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let range = lines.trim_start_matches('L').replace(":L", "-").replace("-L", "-").replace(':', "-");
    let is_range = !range.is_empty() && range.chars().all(|c| c.is_ascii_digit() || c == '-');
    let name = if is_range { format!("{path} (lines {range})") } else { path };
    sanitize::line(&name).into_owned()
}

#[cfg(test)]
mod tests {
    use agent_client_protocol::v1::schema::{
        BlobResourceContents, EmbeddedResource, ImageContent, ResourceLink, TextContent, TextResourceContents,
    };

    use super::*;

    fn words(text: &str) -> ContentBlock {
        ContentBlock::Text(TextContent::new(text))
    }

    fn embedded(resource: EmbeddedResourceResource) -> ContentBlock {
        ContentBlock::Resource(EmbeddedResource::new(resource))
    }

    #[test]
    fn links_and_embedded_files_become_paths_and_fenced_text() {
        let file = TextResourceContents::new("a\n```\nb", "file:///r/src/my%20a.rs#L10:12");
        let blob = BlobResourceContents::new("AAAA", "file:///r/logo.png");
        let blocks = [
            words("fix "),
            ContentBlock::ResourceLink(ResourceLink::new("b.rs", "file:///r/src/b.rs")),
            words(" like "),
            embedded(EmbeddedResourceResource::TextResourceContents(file)),
            words(", see "),
            ContentBlock::ResourceLink(ResourceLink::new("x", "https://example.org/x")),
            words(" and "),
            embedded(EmbeddedResourceResource::BlobResourceContents(blob)),
        ];
        assert_eq!(
            text(&blocks, Path::new("/r")).unwrap(),
            "fix src/b.rs like src/my a.rs (lines 10-12), see https://example.org/x and logo.png \
             (binary, not shown)\n\nsrc/my a.rs (lines 10-12):\n````\na\n```\nb\n````\n"
        );
    }

    #[test]
    fn a_prompt_that_cannot_be_a_task_is_refused_with_the_reason() {
        let root = Path::new("/r");
        let image = ContentBlock::Image(ImageContent::new("AAAA", "image/png"));
        assert_eq!(text(&[words("see"), image], root).unwrap_err(), "this agent does not accept images");
        assert!(text(&[words(" \n")], root).unwrap_err().contains("empty"));
        assert!(text(&[], root).unwrap_err().contains("empty"));
        let many = vec![words("x"); MAX_BLOCKS + 1];
        assert!(text(&many, root).unwrap_err().contains("256 blocks"));
    }

    #[test]
    fn a_large_embedded_file_is_truncated() {
        let file = TextResourceContents::new("é".repeat(crate::MAX_TEXT), "file:///r/a.txt");
        let blocks = [embedded(EmbeddedResourceResource::TextResourceContents(file))];
        let text = text(&blocks, Path::new("/r")).unwrap();
        assert!(text.len() < crate::MAX_TEXT + 200 && text.contains("left out]"), "{}", text.len());
    }
}
