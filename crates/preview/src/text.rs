//! Decodes notebooks, and files in encodings other than UTF-8, for display.

use text_view::View;

use super::{FileChange, Image};

/// Replaces the bytes of the file, before and after the change, with the text to display.
pub(super) fn readable(change: &FileChange) -> FileChange {
    let mut change = change.clone();
    let path = change.path.clone();
    for image in [&mut change.before, &mut change.after].into_iter().flatten().filter(|image| !image.link) {
        let Image { bytes, .. } = image;
        *bytes = match View::of(&path, std::mem::take(bytes)) {
            Ok(view) if view.is_plain() => view.into_bytes(),
            Ok(view) => view.text().to_vec(),
            Err(bytes) => bytes,
        };
    }
    change
}
