//! Where a command works: the folder, the repository around it, the environment, the sessions.

use std::path::{Path, PathBuf};

use journal::Store;

use crate::exit::{Failure, Result};
use crate::layers::{self, Environment, Resolved};

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// The process's variables.
    pub(crate) environment: Environment,
    /// The folder it was started in, or `-C`; absolute.
    pub(crate) directory: PathBuf,
    /// The root of the repository around it: the nearest folder upwards that has a `.git`.
    pub(crate) repository: Option<PathBuf>,
}

impl Context {
    /// Looks around once.
    ///
    /// # Errors
    /// When the current folder is gone.
    pub(crate) fn new(environment: Environment) -> Result<Self> {
        let directory = std::env::current_dir()
            .and_then(|d| d.canonicalize())
            .map_err(|e| Failure::misuse(format!("cannot work in the current folder: {e}")))?;
        // A home that is a repository itself (of dotfiles) is not the project of what lies below it.
        let home = environment.variables.get("HOME").and_then(|home| Path::new(home).canonicalize().ok());
        let repository = directory
            .ancestors()
            .take_while(|d| *d == directory || Some(*d) != home.as_deref())
            .find(|d| d.join(".git").exists())
            .map(Path::to_owned);
        Ok(Self { environment, directory, repository })
    }

    /// The settings with their origins; what a person should know about them goes to standard error.
    ///
    /// # Errors
    /// As [`layers::resolve`].
    pub(crate) fn resolve(&self, flags: &[(&'static str, String)]) -> Result<Resolved> {
        let resolved = layers::resolve(flags, &self.environment, self.repository.as_deref())?;
        for note in &resolved.notes {
            crate::console::say(format_args!("warning: {}", crate::sanitize::line(note)));
        }
        Ok(resolved)
    }

    /// The folder that holds all sessions and caches.
    ///
    /// # Errors
    /// When neither `AGENT_STATE_DIR`, `XDG_STATE_HOME` nor `HOME` is set.
    pub(crate) fn state_dir(&self) -> Result<PathBuf> {
        let set = self.environment.variables.get("AGENT_STATE_DIR").filter(|v| !v.trim().is_empty());
        set.map(|dir| self.directory.join(dir)).or_else(|| self.environment.state_dir()).ok_or_else(|| {
            Failure::misuse("there is no place to keep sessions: neither HOME nor AGENT_STATE_DIR is set")
        })
    }

    /// The sessions.
    ///
    /// # Errors
    /// As [`Context::state_dir`].
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::new(self.state_dir()?))
    }
}
