//! Remembers, in one small file per address, what earlier runs learned about a server: its kind,
//! and the message roles and request fields that it refuses.
//!
//! This memory exists only to avoid repeating requests. A server that no longer behaves as
//! remembered is detected again, and entries expire after a week.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::roles::Roles;

/// How long a detection stays valid. Servers change when they are updated, not from run to run.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Maximum number of models to remember per address.
const MAX_MODELS: usize = 64;

/// The memory: a folder with one file per address. The default has no folder and remembers nothing.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    folder: Option<PathBuf>,
}

/// What is known about the server at one address.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    base: String,
    /// When the kind was detected, in seconds since the Unix epoch.
    at: u64,
    /// `ollama`, or the name of a kind of OpenAI-compatible server.
    pub(crate) server: String,
    pub(crate) version: Option<String>,
    /// What the server refuses, by model.
    #[serde(default)]
    pub(crate) models: BTreeMap<String, Kept>,
}

/// What a server refuses for one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub(crate) roles: Roles,
    pub(crate) content_parts: bool,
    pub(crate) completion_tokens: bool,
    pub(crate) dropped: Vec<String>,
}

impl Memory {
    /// Creates a memory in this folder. The folder itself is created on the first write.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder) }
    }

    fn file(&self, base: &str) -> Option<PathBuf> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        // The FNV-1a hash distinguishes addresses that differ only in replaced or truncated
        // characters.
        let hash = base.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let name: String = base.chars().map(plain).take(80).collect();
        Some(self.folder.as_ref()?.join(format!("{name}-{hash:016x}.json")))
    }

    /// Returns the entry for an address, unless it has expired.
    pub(crate) fn recall(&self, base: &str) -> Option<Known> {
        let text = std::fs::read(self.file(base)?).ok()?;
        let known: Known = serde_json::from_slice(&text).ok()?;
        let age = now().checked_sub(known.at)?;
        (known.base == base && age < LIFETIME.as_secs()).then_some(known)
    }

    /// Records a detected server. If the kind of server has changed, forgets what was learned about
    /// its models.
    pub(crate) fn detected(&self, base: &str, server: &str, version: Option<String>) {
        let mut known = self.recall(base).unwrap_or_default();
        if known.server != server {
            known.models.clear();
        }
        known = Known { base: base.to_owned(), at: now(), server: server.to_owned(), version, ..known };
        self.write(&known);
    }

    /// Records what a server refuses for a model.
    pub(crate) fn learned(&self, base: &str, server: &str, model: &str, kept: Kept) {
        let mut known = self.recall(base).unwrap_or_else(|| Known {
            base: base.to_owned(),
            at: now(),
            server: server.to_owned(),
            ..Known::default()
        });
        if known.models.len() >= MAX_MODELS && !known.models.contains_key(model) {
            known.models.clear();
        }
        known.models.insert(model.to_owned(), kept);
        self.write(&known);
    }

    /// Forgets an address whose server did not behave as remembered.
    pub(crate) fn forget(&self, base: &str) {
        if let Some(file) = self.file(base) {
            let _ = std::fs::remove_file(file);
        }
    }

    /// Writes an entry. If this fails, later runs merely send a few extra requests.
    fn write(&self, known: &Known) {
        let Some(file) = self.file(&known.base) else { return };
        let written = || {
            let text = serde_json::to_vec(known)?;
            std::fs::create_dir_all(file.parent().unwrap_or(&file))?;
            let draft = file.with_extension(format!("{}.new", std::process::id()));
            std::fs::write(&draft, text)?;
            std::fs::rename(&draft, &file)
        };
        if let Err(why) = written() {
            tracing::debug!("cannot remember the server in {}: {why}", file.display());
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
