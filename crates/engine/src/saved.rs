//! Keeps evaluated prefixes on disk. The system prompt's KV cache is saved, so that the next
//! session does not have to evaluate the prompt again.
//!
//! Each file holds the state of one sequence in llama.cpp's format. Its name is a digest of
//! everything that the state depends on. A file that cannot be read is deleted and rewritten.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::token::LlamaToken;
use sha2::{Digest, Sha256};

/// The number of prefixes to keep across all models. A user who alternates between approaches or
/// edit formats needs one for each. 700 tokens of a 1.5-billion-parameter model take 20 MB.
const KEPT: usize = 8;

/// The name of the folder for prefixes, within the cache folder.
const PREFIXES: &str = "prefixes";

/// Returns a name that changes whenever the model file or the engine's version changes.
pub(crate) fn file_key(model: &Path) -> Option<String> {
    let metadata = model.metadata().ok()?;
    let changed = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let (model, length, changed) = (model.display(), metadata.len(), changed.as_nanos());
    Some(digest(&format!("{}\n{model}\n{length}\n{changed}", crate::VERSION)))
}

fn digest(text: &str) -> String {
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The saved prefixes of one model.
#[derive(Debug, Clone)]
pub(crate) struct Saved {
    folder: PathBuf,
    /// The [`file_key`] of the model. A state depends only on this key and the prefix.
    basis: String,
}

impl Saved {
    /// Opens the prefixes saved in the cache folder for this model file. Returns `None` if the
    /// file's metadata cannot be read.
    pub(crate) fn new(cache: &Path, model: &Path) -> Option<Self> {
        Some(Self { folder: cache.join(PREFIXES), basis: file_key(model)? })
    }

    fn file(&self, prefix: &str) -> PathBuf {
        self.folder.join(digest(&format!("{}\n{prefix}", self.basis)) + ".kv")
    }

    /// Loads the state of a prefix into an empty sequence and returns its tokens.
    pub(crate) fn load(
        &self,
        context: &mut LlamaContext<'_>,
        sequence: i32,
        prefix: &str,
    ) -> Option<Vec<LlamaToken>> {
        let file = self.file(prefix);
        if !file.is_file() {
            return None;
        }
        match context.state_seq_load_file(&file, sequence, prefix.len() + 1) {
            Ok((tokens, _)) => {
                // Mark the file as used, because `prune` deletes the least recently used files.
                let now = std::fs::FileTimes::new().set_modified(SystemTime::now());
                let _ = std::fs::File::open(&file).and_then(|file| file.set_times(now));
                Some(tokens)
            }
            Err(why) => {
                tracing::debug!(%why, file = %file.display(), "cannot load the saved prefix");
                let _ = std::fs::remove_file(&file);
                None
            }
        }
    }

    /// Saves the state of a sequence that holds exactly this prefix. A failure is only logged,
    /// because the next session simply evaluates the prefix again.
    pub(crate) fn save(
        &self,
        context: &LlamaContext<'_>,
        sequence: i32,
        prefix: &str,
        tokens: &[LlamaToken],
    ) {
        let written = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let part = tempfile::Builder::new().suffix(".part").tempfile_in(&self.folder)?;
            context
                .state_seq_save_file(part.path(), sequence, tokens)
                .map_err(|why| std::io::Error::other(why.to_string()))?;
            part.persist(self.file(prefix))?;
            Ok(())
        };
        match written() {
            Ok(()) => self.prune(),
            Err(why) => tracing::debug!(%why, "cannot save the evaluated prefix"),
        }
    }

    /// Keeps the most recently used files and deletes the others, including temporary files left by
    /// killed processes.
    fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        for (_, file) in files.into_iter().skip(KEPT) {
            let _ = std::fs::remove_file(file);
        }
    }
}
