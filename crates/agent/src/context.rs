//! Where a command works: the folder, the repository around it, the environment, the sessions.

use std::path::{Path, PathBuf};

use journal::Store;
use workspace::Own;

use crate::exit::{Failure, Result};
use crate::layers::{self, Environment, Resolved};

/// What every command is given.
#[derive(Debug, Clone)]
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

    /// The tree to work in: the repository, or the folder itself where there is none.
    ///
    /// # Errors
    /// Where that is a bare repository, which has no files of its own.
    pub(crate) fn tree(&self) -> Result<&Path> {
        let repository = self.repository.as_deref();
        let below = self.directory.ancestors().take_while(|dir| Some(*dir) != repository);
        let mut bare = below.filter(|dir| is_bare(dir));
        match bare.next() {
            Some(dir) => Err(Failure::misuse(format!(
                "{} is a bare repository: it has no files to work on",
                dir.display()
            ))
            .hint("make a work tree with `git worktree add DIR BRANCH`, or clone it, and start there")),
            None => Ok(repository.unwrap_or(&self.directory)),
        }
    }

    /// What of the tree belongs to this process: where its output goes, and where it keeps its state. Asked once there is a state folder, and before
    /// an overlay is entered.
    pub(crate) fn own(&self) -> Own {
        let mut own = Own::default();
        own.add_open(std::io::stdout());
        own.add_open(std::io::stderr());
        if let Ok(state) = self.state_dir() {
            own.add_folder(&state);
        }
        own
    }

    /// The sessions.
    ///
    /// # Errors
    /// As [`Context::state_dir`].
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::new(self.state_dir()?))
    }
}

/// Whether a folder is a repository without a work tree. A `.git` belongs to the tree around it.
fn is_bare(dir: &Path) -> bool {
    let parts = dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir();
    parts && !dir.join(".git").exists() && !dir.components().any(|part| part.as_os_str() == ".git")
}
