//! Restores placeholders in patches, and masks secrets in refusals.
//!
//! Placeholders are replaced with the actual values before the patch is applied to the file on
//! disk. A model can therefore edit a line with a secret even if it has only seen the placeholder.
//! A patch may also contain the value itself, for example because the model wrote it to the file.
//! The lines that a refusal quotes are masked before they are truncated, because part of a secret
//! would not be recognized.

use std::borrow::Cow;

use patch::{FilePatch, Refusal};
use secrets::may_contain_placeholder;
use workspace::CleanPath;

use crate::refusal::Why;
use crate::{ApplyPatch, Arguments};

impl ApplyPatch {
    /// Returns the patches with values in place of placeholders and, if there are placeholders, the
    /// patches as written. The values come from the files that the patches refer to, and from text
    /// that was masked earlier.
    pub(crate) fn with_values(
        &self,
        arguments: Arguments,
    ) -> Result<(Vec<FilePatch>, Option<Vec<FilePatch>>), String> {
        let mut written = arguments.patches()?;
        if !written.iter_mut().any(has_placeholder) {
            return Ok((written, None));
        }
        let mut patches = written.clone();
        let paths = written.iter().flat_map(|p| [Some(&p.path), p.from.as_ref()]).flatten();
        let files: Vec<Vec<u8>> = paths
            .filter_map(|path| self.workspace.target(path).ok())
            .filter_map(|path| match self.workspace.read(&path) {
                Ok(file) => Some(file.text().to_vec()),
                Err(_) => self.workspace.read_bytes(&path, workspace::READ_LIMIT).ok(),
            })
            .collect();
        files.iter().for_each(|file| self.secrets.learn(file));
        let literal: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let mut refused = None;
        let mut restore = |text: &str| match self.secrets.restore(text, &literal) {
            Ok(Cow::Owned(restored)) => Some(restored),
            Ok(Cow::Borrowed(_)) => None,
            Err(why) => {
                refused.get_or_insert(why);
                None
            }
        };
        for patch in &mut patches {
            for path in [Some(&mut patch.path), patch.from.as_mut()].into_iter().flatten() {
                if let Some(restored) = restore(path) {
                    *path = restored;
                }
            }
            patch.for_each_text(&mut |text| {
                if let Some(restored) = std::str::from_utf8(text).ok().and_then(&mut restore) {
                    *text = restored.into_bytes();
                }
            });
        }
        refused.map_or(Ok((patches, Some(written))), Err)
    }

    /// Converts a refusal from the engine and masks the file's secrets in its message.
    pub(crate) fn masked_refusal(
        &self,
        path: &CleanPath,
        file: Option<&[u8]>,
        refused: Refusal,
        written: &FilePatch,
    ) -> Why {
        let shown = file.map(|file| self.secrets.mask_bytes(file));
        let refused = match shown {
            Some(Cow::Owned(shown)) => patch::apply(Some(&shown), written).err().unwrap_or(refused),
            _ => refused,
        };
        let mut why = Why::of(path.clone(), &refused, written.dialect);
        if let Cow::Owned(masked) = self.secrets.mask(&why.message) {
            why.message = masked;
        }
        why
    }
}

/// Returns whether a patch may contain a placeholder.
fn has_placeholder(patch: &mut FilePatch) -> bool {
    let mut found =
        [Some(&patch.path), patch.from.as_ref()].into_iter().flatten().any(|p| may_contain_placeholder(p));
    patch.for_each_text(&mut |text| found |= std::str::from_utf8(text).is_ok_and(may_contain_placeholder));
    found
}
