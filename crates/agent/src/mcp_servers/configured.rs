//! Finds the configured MCP servers: those in the user's `mcp.json`, and those in the repository's
//! `.mcp.json` if the user has approved its exact content.

use std::path::{Path, PathBuf};

use mcp::config::{self, Author};
use mcp::{Config, Entry};
use sha2::{Digest, Sha256};

use crate::exit::{Failure, Result};
use crate::layers::{self, Environment};

/// The repository's file.
pub(crate) const REPOSITORY_FILE: &str = ".mcp.json";
/// The user's file, beside `config.toml`.
const USER_FILE: &str = "mcp.json";
/// The subfolder of the state folder that holds one file per approval.
const APPROVED: &str = "mcp-approved";

/// The servers that may be started.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    /// The user's servers, then the repository's.
    pub(crate) entries: Vec<Entry>,
    pub(crate) warnings: Vec<String>,
    /// The repository's file, if the user has not approved it.
    pub(crate) unapproved: Option<RepositoryFile>,
}

/// A repository's `.mcp.json`.
#[derive(Debug)]
pub(crate) struct RepositoryFile {
    path: PathBuf,
    /// The digest of its path and its content.
    digest: String,
    /// The names of its servers.
    pub(crate) names: Vec<String>,
    config: Config,
}

impl RepositoryFile {
    /// Reads the file. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// If it cannot be read or parsed.
    pub(crate) fn read(root: &Path) -> Result<Option<Self>> {
        let path = root.join(REPOSITORY_FILE);
        let Some(text) = layers::read_file(&path)? else { return Ok(None) };
        let config = config::parse(&text, Author::Repository, &|_| None)
            .map_err(|why| Failure::misuse(format!("cannot use {}: {why}", path.display())))?;
        let mut hasher = Sha256::new();
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update([0]);
        hasher.update(&text);
        let digest = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let names = config.servers.iter().map(|entry| entry.name.clone()).collect();
        Ok(Some(Self { path, digest, names, config }))
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.config.servers
    }

    pub(crate) fn warnings(&self) -> &[String] {
        &self.config.warnings
    }

    pub(crate) fn is_approved(&self, state: &Path) -> bool {
        state.join(APPROVED).join(&self.digest).is_file()
    }

    /// Remembers that the user approved this content at this path.
    ///
    /// # Errors
    /// If the state folder cannot be written.
    pub(crate) fn approve(&self, state: &Path) -> Result<()> {
        let folder = state.join(APPROVED);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(&self.digest), self.path.as_os_str().as_encoded_bytes())?;
        Ok(())
    }

    /// Returns a warning that the servers are not used, including what to do about it.
    pub(crate) fn warning(&self) -> String {
        format!(
            "the MCP servers in {REPOSITORY_FILE} are not used ({}): read the file, then approve it with `agent mcp approve`",
            self.names.join(", ")
        )
    }
}

/// Returns the servers that a session in this repository may start.
pub(crate) fn configured(environment: &Environment, root: &Path, state: &Path) -> Configured {
    let (Config { servers: entries, warnings }, _) = of_user(environment);
    let mut configured = Configured { entries, warnings, unapproved: None };
    match RepositoryFile::read(root) {
        Ok(None) => {}
        Ok(Some(file)) if file.is_approved(state) => {
            configured.warnings.extend(file.warnings().iter().cloned());
            for entry in file.config.servers {
                if configured.entries.iter().any(|own| own.name == entry.name) {
                    let name = &entry.name;
                    let note = format!(
                        "the MCP server {name} in {REPOSITORY_FILE} is left out: your mcp.json has a server with that name"
                    );
                    configured.warnings.push(note);
                } else {
                    configured.entries.push(entry);
                }
            }
        }
        Ok(file) => configured.unapproved = file,
        Err(failure) => configured.warnings.push(format!("{:#}", failure.error)),
    }
    configured
}

/// Returns the servers in the user's own file, and the file's path. A file that cannot be used
/// results in a warning.
pub(crate) fn of_user(environment: &Environment) -> (Config, Option<PathBuf>) {
    let Some(path) = environment.user_file().map(|path| path.with_file_name(USER_FILE)) else {
        return Default::default();
    };
    let variable = |name: &str| environment.get(name).map(str::to_owned);
    let config = match layers::read_file(&path) {
        Ok(None) => Config::default(),
        Ok(Some(text)) => config::parse(&text, Author::User, &variable).unwrap_or_else(|why| {
            let warning = format!("cannot use {}: {why}", path.display());
            Config { servers: Vec::new(), warnings: vec![warning] }
        }),
        Err(failure) => Config { servers: Vec::new(), warnings: vec![format!("{:#}", failure.error)] },
    };
    (config, Some(path))
}
