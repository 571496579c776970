//! The context of a command: its folder, the repository, the environment and the sessions.

use std::path::{Path, PathBuf};

use journal::Store;
use workspace::Own;

use crate::exit::{Failure, Result};
use crate::layers::{self, Environment, Resolved};

/// The context passed to every command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The environment variables of the process.
    pub(crate) environment: Environment,
    /// The absolute path of the current folder, or of the folder given with `-C`.
    pub(crate) directory: PathBuf,
    /// The root of the repository: the closest folder that has a `.git`, searching upward from
    /// `directory`.
    pub(crate) repository: Option<PathBuf>,
}

impl Context {
    /// Finds the folder and its repository.
    ///
    /// # Errors
    /// If the current folder does not exist.
    pub(crate) fn new(environment: Environment) -> Result<Self> {
        let directory = std::env::current_dir()
            .and_then(|d| d.canonicalize())
            .map_err(|e| Failure::misuse(format!("cannot open the current folder: {e}")))?;
        Ok(Self::of(environment, directory))
    }

    /// Finds the repository of a folder. The folder's path must be absolute and must not contain
    /// symbolic links.
    pub(crate) fn of(environment: Environment, directory: PathBuf) -> Self {
        // If the home folder is itself a repository (of dotfiles), the folders below it are not
        // part of that project.
        let home = environment.variables.get("HOME").and_then(|home| Path::new(home).canonicalize().ok());
        let repository = directory
            .ancestors()
            .take_while(|d| *d == directory || Some(*d) != home.as_deref())
            .find(|d| d.join(".git").exists())
            .map(Path::to_owned);
        Self { environment, directory, repository }
    }

    /// Resolves the settings, and prints warnings about them to standard error.
    ///
    /// # Errors
    /// Same as [`layers::resolve`].
    pub(crate) fn resolve(&self, flags: &[(&'static str, String)]) -> Result<Resolved> {
        self.resolve_in(self.repository.as_deref(), flags)
    }

    /// Like [`Context::resolve`], but for the given repository, or without a repository.
    pub(crate) fn resolve_in(
        &self,
        repository: Option<&Path>,
        flags: &[(&'static str, String)],
    ) -> Result<Resolved> {
        let resolved = layers::resolve(flags, &self.environment, repository)?;
        for note in &resolved.notes {
            crate::console::say(format_args!("warning: {}", crate::sanitize::line(note)));
        }
        Ok(resolved)
    }

    /// Returns the folder that contains all sessions and other state.
    ///
    /// # Errors
    /// If none of `AGENT_STATE_DIR`, `XDG_STATE_HOME` and `HOME` is set.
    pub(crate) fn state_dir(&self) -> Result<PathBuf> {
        let set = self.environment.variables.get("AGENT_STATE_DIR").filter(|v| !v.trim().is_empty());
        set.map(|dir| self.directory.join(dir))
            .or_else(|| self.environment.state_dir())
            .ok_or_else(|| Failure::misuse("cannot store sessions: neither HOME nor AGENT_STATE_DIR is set"))
    }

    /// Returns the tree to work in: the repository, or the current folder if there is none.
    ///
    /// # Errors
    /// If the folder is in a bare repository, which has no files.
    pub(crate) fn tree(&self) -> Result<&Path> {
        let repository = self.repository.as_deref();
        let below = self.directory.ancestors().take_while(|dir| Some(*dir) != repository);
        let mut bare = below.filter(|dir| is_bare(dir));
        let Some(dir) = bare.next() else { return Ok(repository.unwrap_or(&self.directory)) };
        let hint =
            "create a work tree with `git worktree add DIR BRANCH`, or clone the repository, and start there";
        let dir = dir.display();
        Err(Failure::misuse(format!("{dir} is a bare repository, which has no files to work on")).hint(hint))
    }

    /// Returns the files that belong to this process, not to the repository: its redirected output
    /// and its state folder. Must be called after the state folder has been created and before an
    /// overlay is entered.
    pub(crate) fn own(&self) -> Own {
        let mut own = Own::default();
        own.add_open(std::io::stdout());
        own.add_open(std::io::stderr());
        if let Ok(state) = self.state_dir() {
            own.add_folder(&state);
        }
        own
    }

    /// Returns the session store.
    ///
    /// # Errors
    /// Same as [`Context::state_dir`].
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::new(self.state_dir()?))
    }
}

/// Returns whether a folder is a bare repository. A `.git` folder is not, because it belongs to the
/// work tree that contains it.
fn is_bare(dir: &Path) -> bool {
    let parts = dir.join("HEAD").is_file() && dir.join("objects").is_dir() && dir.join("refs").is_dir();
    parts && !dir.join(".git").exists() && !dir.components().any(|part| part.as_os_str() == ".git")
}
