//! The user's language servers: they check the files of each edit, and the model reads the errors
//! that the edit has caused. `docs/language-servers.md` describes them.

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use globset::{Glob, GlobSet, GlobSetBuilder};
use language_server::{Change, LanguageServer, Launch, describe};
use sandbox::{Command, OutputLimits};
use secrets::Secrets;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool_apply_patch::{Inspect, Preview};

use crate::confinement;
use crate::exit::{Failure, Result};
use crate::leftovers::SANDBOX;
use crate::settings::Settings;

/// The maximum time limit for a start or a check, in seconds.
const MAX_SECONDS: u64 = 600;
/// The number of bytes to keep from each end of a server's standard error.
const KEPT: usize = 2048;

/// A language server, as the user's settings define it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configured {
    /// A line for `sh -c`.
    pub(crate) command: String,
    /// Glob patterns of the files to check, separated by commas.
    pub(crate) files: String,
    /// The server's `initializationOptions`.
    #[serde(default)]
    pub(crate) options: Value,
    /// The time limit for the check of an edit, in seconds.
    #[serde(default = "seconds")]
    pub(crate) seconds: u64,
    /// The time limit for starting the server and loading the project, in seconds.
    #[serde(default = "start_seconds")]
    pub(crate) start_seconds: u64,
}

fn seconds() -> u64 {
    10
}

fn start_seconds() -> u64 {
    60
}

impl Configured {
    /// Checks the values of a server.
    ///
    /// # Errors
    /// If a value is invalid. The message continues a sentence that starts with the setting's name.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        self.patterns()?;
        if self.command.trim().is_empty() {
            return Err("must not contain an empty `command`".into());
        }
        let limits = [("seconds", self.seconds), ("start_seconds", self.start_seconds)];
        match limits.iter().find(|(_, seconds)| !(1..=MAX_SECONDS).contains(seconds)) {
            Some((key, _)) => Err(format!("must have `{key}` from 1 to {MAX_SECONDS}")),
            None => Ok(()),
        }
    }

    fn patterns(&self) -> std::result::Result<GlobSet, String> {
        let invalid = |e: globset::Error| format!("has an invalid pattern: {e}");
        let mut patterns = GlobSetBuilder::new();
        for pattern in self.files.split(',') {
            patterns.add(Glob::new(pattern.trim()).map_err(invalid)?);
        }
        patterns.build().map_err(invalid)
    }
}

/// The language servers of a run. Each starts at the first edit of a file that it checks.
pub(crate) struct LanguageServers {
    servers: Vec<One>,
    secrets: Secrets,
    warnings: Mutex<Vec<String>>,
}

struct One {
    command: String,
    files: GlobSet,
    server: LanguageServer,
}

impl fmt::Debug for LanguageServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|one| &one.command)).finish()
    }
}

impl LanguageServers {
    /// Prepares the servers of the settings for a work tree; `None` if there are none. The servers'
    /// private files go to `session`, or to the system's temporary folder.
    ///
    /// # Errors
    /// If the settings do not make a valid sandbox.
    pub(crate) fn new(
        settings: &Settings,
        root: &Path,
        session: Option<&Path>,
        variables: &[(OsString, OsString)],
        secrets: &Secrets,
    ) -> Result<Option<Self>> {
        let Some(list) = settings.language_servers.as_ref().filter(|list| !list.is_empty()) else {
            return Ok(None);
        };
        let one = |(number, configured): (usize, &Configured)| {
            let folder = session.map(|session| session.join(format!("{SANDBOX}-language-server-{number}")));
            let launch = Launch {
                // Like a confined hook, a server cannot write to the tree.
                sandbox: confinement::hook_sandbox(settings, root, folder, variables.to_vec(), true)?,
                command: Command { output: OutputLimits::bytes(KEPT), ..Command::shell(&configured.command) },
                root: root.to_owned(),
                options: configured.options.clone(),
                start_timeout: Duration::from_secs(configured.start_seconds),
                timeout: Duration::from_secs(configured.seconds),
            };
            let files = configured.patterns().map_err(Failure::misuse)?;
            Ok(One { command: configured.command.clone(), files, server: LanguageServer::new(launch) })
        };
        let servers = list.iter().enumerate().map(one).collect::<Result<_>>()?;
        Ok(Some(Self { servers, secrets: secrets.clone(), warnings: Mutex::default() }))
    }

    /// Starts all servers. Returns for each its command, and why it does not start.
    pub(crate) async fn try_all(&self) -> Vec<(&str, Option<String>)> {
        let started = join_all(self.servers.iter().map(|one| one.server.check(&[]))).await;
        let commands = self.servers.iter().map(|one| one.command.as_str());
        commands.zip(started.into_iter().map(std::result::Result::err)).collect()
    }

    /// Ends all servers. Returns a warning for each one that failed.
    pub(crate) async fn stop(&self) -> Vec<String> {
        join_all(self.servers.iter().map(|one| one.server.stop())).await;
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

#[async_trait]
impl Inspect for LanguageServers {
    async fn inspect(&self, files: &[Preview<'_>]) -> Option<String> {
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let files: Vec<_> =
            files.iter().map(|f| (f.path.to_string(), text(f.before), text(f.after))).collect();
        let mut found = Vec::new();
        for one in &self.servers {
            let checked = files.iter().filter(|(path, ..)| one.files.is_match(path));
            let changes: Vec<_> = checked
                .map(|(path, before, after)| Change {
                    path,
                    before: before.as_deref(),
                    after: after.as_deref(),
                })
                .collect();
            if changes.is_empty() {
                continue;
            }
            match one.server.check(&changes).await {
                Ok(problems) => found.extend(describe(&problems)),
                Err(why) => self.warn(format!("the language server `{}` failed: {why}", one.command)),
            }
        }
        (!found.is_empty()).then(|| self.secrets.mask(&found.join("\n")).into_owned())
    }
}
