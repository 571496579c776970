//! Converts file changes to diffs that an editor can show.

use std::path::Path;

use agent_client_protocol::v1::schema::{Diff, ToolCallContent, ToolCallLocation};
use preview::{FileChange, Image, sanitize};

use crate::MAX_TEXT;
use crate::updates::text_of;

/// The maximum number of files whose diffs are shown.
const MAX_DIFFS: usize = 50;

/// Returns the diffs for changes in `root`, and the location of the first change in each file. For
/// a large or non-text file, returns a line of text instead of a diff.
#[must_use]
pub fn diffs(changes: &[FileChange], root: &Path) -> (Vec<ToolCallContent>, Vec<ToolCallLocation>) {
    let (mut contents, mut locations) = (Vec::new(), Vec::new());
    for change in changes.iter().take(MAX_DIFFS) {
        let path = root.join(&change.path);
        let before = readable(change.before.as_ref());
        let after = readable(change.after.as_ref());
        locations.push(match (before, after) {
            (Some(before), Some(after)) => ToolCallLocation::new(&path).line(first_change(before, after)),
            _ => ToolCallLocation::new(&path),
        });
        contents.push(match (before, after) {
            (Some(before), Some(after)) => {
                let old = change.before.is_some().then(|| before.to_owned());
                ToolCallContent::Diff(Diff::new(path, after).old_text(old))
            }
            _ => {
                text_of(&format!("changed {} (not shown: large, or not text)", sanitize::line(&change.path)))
            }
        });
    }
    if changes.len() > MAX_DIFFS {
        contents.push(text_of(&format!("and {} more files", changes.len() - MAX_DIFFS)));
    }
    (contents, locations)
}

/// Returns the text of a file image, or an empty string if there is no file. Returns `None` if a
/// diff cannot show the file because it is a link, too large or not text.
fn readable(image: Option<&Image>) -> Option<&str> {
    let Some(image) = image else { return Some("") };
    let text = std::str::from_utf8(&image.bytes).ok()?;
    (!image.link && text.len() <= MAX_TEXT * 4 && !text.contains('\0')).then_some(text)
}

/// Returns the 1-based number of the first line that differs.
fn first_change(before: &str, after: &str) -> u32 {
    let same = before.lines().zip(after.lines()).take_while(|(a, b)| a == b).count();
    u32::try_from(same + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_large_or_binary_file_has_a_line_of_text_instead_of_a_diff() {
        let image = |bytes: Vec<u8>| Some(Image { bytes, mode: 0o644, link: false });
        let change =
            |after: Vec<u8>| FileChange { path: "a".into(), from: None, before: None, after: image(after) };
        let (contents, places) = diffs(
            &[change(vec![0xff]), change(vec![b'x'; MAX_TEXT * 4 + 1]), change(b"x".to_vec())],
            Path::new("/r"),
        );
        let kinds: Vec<_> =
            contents.iter().map(|c| serde_json::to_value(c).unwrap()["type"].clone()).collect();
        assert_eq!((kinds, places.len()), (vec![json!("content"), json!("content"), json!("diff")], 3));
    }
}
