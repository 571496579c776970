//! Applies a patch to a file's text and converts the result back: to the file's encoding, or to the
//! notebook whose cells were shown.

use patch::{Applied, Dialect, FilePatch, RefusalKind, Rung};
use text_view::{Unwritable, View};
use workspace::CleanPath;

/// The content of an existing file before the patch.
pub(crate) enum Before {
    Text(View),
    Binary(Vec<u8>),
}

impl Before {
    pub(crate) fn shown(&self) -> &[u8] {
        match self {
            Self::Text(view) => view.text(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(view) => view.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// Why a patch cannot be applied.
pub(crate) enum Refusal {
    Engine(patch::Refusal),
    Unwritable(Unwritable),
}

/// Returns the file's bytes after the patch.
pub(crate) fn apply(
    before: Option<&Before>,
    patch: &FilePatch,
    path: &CleanPath,
) -> Result<Applied, Refusal> {
    let applied = match patch::apply(before.map(Before::shown), patch) {
        Ok(applied) => applied,
        Err(refused) => return as_json(before, patch).ok_or(Refusal::Engine(refused)),
    };
    let Some(text) = &applied.bytes else { return Ok(applied) };
    let bytes = match before {
        Some(Before::Text(view)) if !view.bytes().is_empty() => view.write(text),
        _ => text_view::new_file(path.as_str(), text),
    };
    let bytes = bytes.map_err(Refusal::Unwritable)?;
    match before {
        Some(Before::Text(view)) if view.is_notebook() && bytes == view.bytes() && patch.from.is_none() => {
            let message = "it changes no cell: blank lines at the end of a cell only separate cells".into();
            Err(Refusal::Engine(patch::Refusal {
                kind: RefusalKind::NoChange,
                hunk: 0,
                of: 0,
                line: None,
                message,
            }))
        }
        _ => Ok(Applied { bytes: Some(bytes), ..applied }),
    }
}

/// Applies a diff of a notebook's JSON, as git produces it. Its lines must match exactly, and the
/// result must be a notebook.
fn as_json(before: Option<&Before>, patch: &FilePatch) -> Option<Applied> {
    let Some(Before::Text(view)) = before else { return None };
    if !view.is_notebook() || patch.dialect != Dialect::Unified {
        return None;
    }
    let applied = patch::apply(Some(view.bytes()), patch).ok()?;
    let exact = matches!(applied.summary.rung, Rung::Named | Rung::Exact);
    let whole = applied.bytes.as_deref().is_some_and(text_view::is_valid_notebook);
    (exact && whole).then_some(applied)
}
