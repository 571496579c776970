//! Placeholders in what a model writes, and secrets in what it is told.
//!
//! Values are put back before the patch is applied to the file as it lies on disk, so that a model that knows a value, because it wrote it itself,
//! and one that has only seen the placeholder can both edit the line. A refusal is made of the file as the model has seen it: its lines may be
//! cut, and a part of a secret is found by nobody.

use std::borrow::Cow;

use patch::{FilePatch, Refused};
use workspace::CleanPath;

use crate::refusal::Why;
use crate::{ApplyPatch, Arguments};

impl ApplyPatch {
    /// The patches with the values that placeholders stand for, and as they were written where that is not the same. Values are looked for in
    /// the files that the patches name, and among those that were masked before.
    pub(crate) fn with_values(
        &self,
        arguments: Arguments,
    ) -> Result<(Vec<FilePatch>, Option<Vec<FilePatch>>), String> {
        let mut restored = arguments.clone();
        if !restored.strings().any(|text| secrets::hinted(text)) {
            return Ok((arguments.patches()?, None));
        }
        let written = arguments.patches()?;
        let paths = written.iter().flat_map(|p| [Some(&p.path), p.from.as_ref()]).flatten();
        let files: Vec<Vec<u8>> = paths
            .filter_map(|path| self.0.target(path).ok())
            .filter_map(|path| match self.0.read(&path) {
                Ok(file) => Some(file.text().to_vec()),
                Err(_) => self.0.read_bytes(&path, workspace::READ_LIMIT).ok(),
            })
            .collect();
        files.iter().for_each(|file| self.2.learn(file));
        let literal: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        for text in restored.strings() {
            if let Cow::Owned(with_values) = self.2.restore(text, &literal)? {
                *text = with_values;
            }
        }
        let patches = restored.patches()?;
        let as_many = patches.len() == written.len();
        Ok((patches, Some(written).filter(|_| as_many)))
    }

    /// The engine's refusal, without the secrets of the file.
    pub(crate) fn told(
        &self,
        path: &CleanPath,
        file: Option<&[u8]>,
        refused: Refused,
        written: &FilePatch,
    ) -> Why {
        let shown = file.map(|file| self.2.mask_bytes(file));
        let refused = match shown {
            Some(Cow::Owned(shown)) => patch::apply(Some(&shown), written).err().unwrap_or(refused),
            _ => refused,
        };
        let mut why = Why::of(path.clone(), &refused, written.dialect);
        if let Cow::Owned(masked) = self.2.mask(&why.message) {
            why.message = masked;
        }
        why
    }
}
