//! The user's language servers. They check the files in each edit, and the model is shown the
//! errors that the edit caused. See `docs/language-servers.md`.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use globset::{Glob, GlobSet, GlobSetBuilder};
use language_server::{Changed, Edited, LanguageServer, Launch, describe};
use sandbox::{Command, OutputLimits};
use secrets::Secrets;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tool_apply_patch::{Inspect, Preview};
use workspace::History;

use crate::confinement;
use crate::exit::{Failure, Result};
use crate::leftovers::SANDBOX;
use crate::session::STATE;
use crate::settings::Settings;

/// Maximum time limit for starting a server or checking an edit, in seconds.
const MAX_SECONDS: u64 = 600;
/// The number of bytes to keep from each end of a server's standard error.
const KEPT: usize = 2048;

/// A language server, as defined in the user's settings.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configured {
    /// A command line for `sh -c`.
    pub(crate) command: String,
    /// Comma-separated glob patterns for the files to check.
    pub(crate) files: String,
    /// The server's `initializationOptions`.
    #[serde(default)]
    pub(crate) options: Value,
    /// The time limit for checking an edit, in seconds.
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

/// The language servers of a run. Each one starts when a file that it checks is first edited.
pub(crate) struct LanguageServers {
    servers: Vec<One>,
    /// The folder with the tree's history, or `None` if there is no session.
    history: Option<PathBuf>,
    tracked: Mutex<Tracked>,
    warnings: Mutex<Vec<String>>,
}

/// State that is kept between edits.
#[derive(Default)]
struct Tracked {
    /// All files that the session has changed so far, even if it reverted them.
    changed: BTreeMap<String, Changed>,
    /// The path that each renamed file had before the session.
    origins: HashMap<String, String>,
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
    /// Prepares the configured servers for a work tree. Returns `None` if there are none. The
    /// servers' private files go to `session`, or to the system's temporary folder.
    ///
    /// # Errors
    /// If the settings do not describe a valid sandbox.
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
                secrets: secrets.clone(),
            };
            let files = configured.patterns().map_err(Failure::misuse)?;
            Ok(One { command: configured.command.clone(), files, server: LanguageServer::new(launch) })
        };
        let servers = list.iter().enumerate().map(one).collect::<Result<_>>()?;
        let history = session.map(|session| session.join(STATE));
        Ok(Some(Self { servers, history, tracked: Mutex::default(), warnings: Mutex::default() }))
    }

    /// Starts all servers. Returns the command of each one and, if it did not start, the reason.
    pub(crate) async fn try_all(&self) -> Vec<(&str, Option<String>)> {
        let started = join_all(self.servers.iter().map(|one| one.server.check(&[], &[]))).await;
        let commands = self.servers.iter().map(|one| one.command.as_str());
        commands.zip(started.into_iter().map(std::result::Result::err)).collect()
    }

    /// Stops all servers. Returns a warning for each one that failed.
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

    /// Returns the original text of each file that differs from its state before the session. The
    /// text is `None` if the file did not exist.
    async fn originals(&self) -> BTreeMap<String, Option<String>> {
        let Some(history) = self.history.clone() else { return BTreeMap::new() };
        let read = move || {
            let changes =
                History::open(&history).and_then(|history| history.standing(..)).unwrap_or_default();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            changes.iter().map(|c| (c.path.to_string(), c.before.as_ref().map(|b| text(&b.bytes)))).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// Updates the tracked state after an edit. Returns all files that the session has changed, and
    /// the paths that the edited files had before the session.
    fn track(
        &self,
        files: &[Preview<'_>],
        originals: &BTreeMap<String, Option<String>>,
    ) -> (Vec<Changed>, Vec<String>) {
        let Tracked { changed, origins } = &mut *self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, original) in originals {
            let file = || Changed { path: path.clone(), existed: original.is_some() };
            changed.entry(path.clone()).or_insert_with(file);
        }
        let origin = |file: &Preview<'_>| {
            let (path, from) = (file.path.to_string(), file.from.map(ToString::to_string));
            if let Some(from) = from {
                let origin = origins.get(&from).cloned().unwrap_or(from);
                origins.insert(path.clone(), origin);
            }
            origins.get(&path).cloned().unwrap_or(path)
        };
        let before = files.iter().map(origin).collect();
        (changed.values().cloned().collect(), before)
    }
}

#[async_trait]
impl Inspect for LanguageServers {
    async fn inspect(&self, files: &[Preview<'_>]) -> Option<String> {
        let originals = self.originals().await;
        let (changed, before) = self.track(files, &originals);
        let texts: Vec<_> = files
            .iter()
            .zip(&before)
            .filter_map(|(file, before)| {
                let text = String::from_utf8_lossy(file.after?).into_owned();
                // A file that is not listed has the same text as before the session.
                let original = originals.get(before).map_or(Some(text.as_str()), Option::as_deref);
                Some((file.path.to_string(), original.map(str::to_owned), text))
            })
            .collect();
        let mut found = Vec::new();
        for one in &self.servers {
            let edited = texts.iter().filter(|(path, ..)| one.files.is_match(path));
            let edited: Vec<_> = edited
                .map(|(path, original, text)| Edited { path, original: original.as_deref(), text })
                .collect();
            if edited.is_empty() {
                continue;
            }
            match one.server.check(&edited, &changed).await {
                Ok(problems) => found.extend(describe(&problems)),
                Err(why) => self.warn(format!("the language server `{}` failed: {why}", one.command)),
            }
        }
        (!found.is_empty()).then(|| found.join("\n"))
    }
}
