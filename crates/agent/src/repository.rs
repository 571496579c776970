//! The work tree and the verification as the planner sees them, with secrets masked.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use journal::{Check, Diff};
use planner::Instructions;
use secrets::Secrets;
use symbols::Code;
use tool_api::Status;
use tool_run_tests::RunTests;
use workspace::{Baseline, By, History, Protected, WalkFilter, Watch, Workspace};

use crate::masking::{EXPLANATION, mask_value};

/// Maximum number of files to list for the first turn. The prompt shows fewer.
const FILES: usize = 2_000;
/// The name of the files that hold instructions for agents. Any folder in a repository may have
/// one.
pub(crate) const INSTRUCTIONS: &str = "AGENTS.md";
/// Maximum number of bytes to read from an instruction file.
const INSTRUCTIONS_LIMIT: u64 = 32 * 1024;
/// Maximum number of bytes to read from a file that appears in the map.
const MAPPED_LIMIT: u64 = 1 << 20;

/// The work tree of a run.
pub(crate) struct Tree {
    workspace: Workspace,
    secrets: Secrets,
    /// Whether a file with a secret was read.
    has_secret: AtomicBool,
    /// The folders from the root to the user's current folder, relative to the root.
    folders: Vec<PathBuf>,
    state: PathBuf,
    baseline: OnceLock<Baseline>,
    patch: Mutex<Vec<u8>>,
    /// The state of the tree before the current command.
    watch: Mutex<Option<Watch>>,
    protected: Option<Protected>,
    /// The index of the code, if the first turn may show a map of it.
    code: Option<Arc<Code>>,
    /// The diff that [`planner::Repository::changed`] computed. The final diff, which follows
    /// immediately, reuses it.
    last: Mutex<Option<Diff>>,
}

impl Tree {
    /// Creates the tree for a workspace. `inside` is the user's current folder, relative to the
    /// root. `state` is the folder where the baseline is stored.
    pub(crate) fn new(workspace: Workspace, secrets: Secrets, inside: &Path, state: PathBuf) -> Self {
        let mut folders: Vec<PathBuf> = inside.ancestors().map(Path::to_owned).collect();
        folders.reverse();
        Self {
            workspace,
            secrets,
            has_secret: AtomicBool::new(false),
            folders,
            state,
            baseline: OnceLock::new(),
            patch: Mutex::default(),
            watch: Mutex::default(),
            protected: None,
            code: None,
            last: Mutex::default(),
        }
    }

    /// Protects these files by restoring the contents that they had before the first turn.
    pub(crate) fn protect(self, protected: Protected) -> Self {
        Self { protected: Some(protected), ..self }
    }

    /// Lets the first turn show a map of this code.
    pub(crate) fn mapping(self, code: Option<Arc<Code>>) -> Self {
        Self { code, ..self }
    }

    fn history(&self) -> Result<History, String> {
        History::open(&self.state).map_err(|e| e.to_string())
    }

    fn restore_protected(&self) -> Result<(), String> {
        self.protected.as_ref().map_or(Ok(()), |protected| protected.restore(&self.workspace))
    }

    /// Returns the patch of the most recent diff, byte for byte, because files need not be UTF-8.
    pub(crate) fn patch(&self) -> Vec<u8> {
        lock(&self.patch).clone()
    }

    fn unmasked(&self, path: &str, limit: u64) -> Option<String> {
        // First check that the path exists: for a missing path, `resolve` would search the tree for
        // similar ones.
        self.workspace.root().join(path).symlink_metadata().ok()?;
        // `resolve` accepts what models write (`a/lib.rs` for `lib.rs`), but here the path must be
        // exact.
        let path = self.workspace.resolve(path).ok().filter(|found| found.as_str() == path)?;
        String::from_utf8(self.workspace.read_up_to(&path, limit).ok()?.text().to_vec()).ok()
    }
}

/// Ignores poisoning: these values stay consistent when another thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the record ids of a turn's edits that have not been undone.
fn edits(history: &History, turn: u32) -> Vec<u64> {
    let mut edits = Vec::new();
    for record in history.records().iter().filter(|r| r.turn == turn) {
        match record.by {
            By::Edit => edits.push(record.id),
            By::Undo => drop(edits.pop()),
            By::Command | By::Revert | By::Apply => {}
        }
    }
    edits
}

impl planner::Repository for Tree {
    fn files(&self) -> (Vec<String>, bool) {
        let listing = self.workspace.walk(&WalkFilter { limit: FILES, ..WalkFilter::default() });
        (listing.entries.into_iter().map(|e| e.path.to_string()).collect(), listing.cut)
    }

    fn read(&self, path: &str, limit: u64) -> Option<String> {
        let masked = self.secrets.mask(&self.unmasked(path, limit)?).into_owned();
        // The files in an exported session already contain placeholders.
        if secrets::first_placeholder(&masked).is_some() {
            self.has_secret.store(true, Ordering::Relaxed);
        }
        Some(masked)
    }

    fn may_change(&self, path: &str) -> bool {
        !self.protected.as_ref().is_some_and(|protected| protected.protects(path))
    }

    fn map(&self, task: &str, max_bytes: usize, stop: &AtomicBool) -> Option<String> {
        let read = |path: &str| self.read(path, MAPPED_LIMIT);
        Some(self.code.as_ref()?.map(task, max_bytes, stop, read)?.text)
    }

    /// Returns the instruction files and, if a secret was masked, an explanation of placeholders.
    /// The first turn reads the instructions last, so `has_secret` covers everything that the turn
    /// shows.
    fn instructions(&self) -> Vec<Instructions> {
        let found = self.folders.iter().filter_map(|folder| {
            let path = folder.join(INSTRUCTIONS).to_str()?.to_owned();
            let text = self.read(&path, INSTRUCTIONS_LIMIT)?;
            Some(Instructions { path, text })
        });
        let mut all: Vec<_> = found.collect();
        if self.has_secret.load(Ordering::Relaxed) && self.secrets.mark_explained() {
            all.push(Instructions { path: "The agent".into(), text: EXPLANATION.trim_end().into() });
        }
        all
    }

    fn remember(&self) -> Result<(), String> {
        if let Some(protected) = &self.protected {
            protected.remember(&self.workspace)?;
        }
        let baseline = Baseline::of(&self.workspace, &self.state).map_err(|e| e.to_string())?;
        self.baseline.set(baseline).map_err(|_| "the tree already has a baseline".to_owned())
    }

    fn turn(&self, turn: u32) {
        self.workspace.set_turn(turn);
        lock(&self.last).take();
    }

    fn before_command(&self) -> Result<(), String> {
        self.restore_protected()?;
        let watch = self.workspace.watch().map_err(|e| e.to_string())?;
        *lock(&self.watch) = Some(watch);
        Ok(())
    }

    fn after_command(&self) -> Result<Option<u64>, String> {
        let watch = lock(&self.watch).take();
        watch.map_or(Ok(None), |watch| self.workspace.watched(watch).map_err(|e| e.to_string()))
    }

    fn last_revert(&self) -> Result<Option<u64>, String> {
        let history = self.history()?;
        Ok(history.records().last().filter(|last| last.by == By::Revert).map(|last| last.id))
    }

    fn edit(&self, turn: u32, index: usize) -> Result<Option<u64>, String> {
        Ok(edits(&self.history()?, turn).get(index).copied())
    }

    fn roll_back(&self, turn: u32, done: usize) -> Result<(), String> {
        let history = self.history()?;
        for id in edits(&history, turn).into_iter().skip(done).rev() {
            let changes = history.of(id).map_err(|e| e.to_string())?;
            self.workspace.put_back(&changes).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn last_record(&self) -> Result<u64, String> {
        let history = self.history()?;
        Ok(history.records().last().map_or(0, |last| last.id))
    }

    fn revert_from(&self, record: u64) -> Result<Option<u64>, String> {
        let history = self.history()?;
        let changes = history.since(record).map_err(|e| e.to_string())?;
        let commit = self.workspace.revert(&changes).map_err(|e| e.to_string())?;
        lock(&self.last).take();
        // An earlier process may have been killed after it reverted the changes, but before it
        // journaled the revert.
        let last = history.records().last().filter(|last| last.by == By::Revert && last.id >= record);
        Ok(commit.id.or(last.map(|last| last.id)))
    }

    fn changed(&self) -> bool {
        let edited = || History::open(&self.state).and_then(|history| history.net(..));
        let diff = self.diff();
        let changed = diff.as_ref().is_ok_and(|diff| !diff.files.is_empty());
        *lock(&self.last) = diff.ok();
        changed || edited().is_ok_and(|net| !net.is_empty())
    }

    fn diff(&self) -> Result<Diff, String> {
        if let Some(diff) = lock(&self.last).take() {
            return Ok(diff);
        }
        let Some(baseline) = self.baseline.get() else { return Ok(Diff::default()) };
        self.restore_protected()?;
        let diff = baseline.diff().map_err(|e| e.to_string())?;
        // A hunk may start in the middle of a key, so search each file as a whole for secrets.
        for text in diff.files.iter().filter_map(|file| self.unmasked(&file.path, workspace::READ_LIMIT)) {
            self.secrets.learn(text.as_bytes());
        }
        let patch = self.secrets.mask(&String::from_utf8_lossy(&diff.patch)).into_owned();
        *lock(&self.patch) = diff.patch;
        Ok(Diff {
            added: diff.files.iter().map(|f| f.added).sum(),
            removed: diff.files.iter().map(|f| f.removed).sum(),
            files: diff.files.into_iter().map(|f| f.path).collect(),
            patch,
        })
    }
}

/// The verification: the configured command, or the detected one.
pub(crate) struct Tests(RunTests, Secrets);

impl Tests {
    /// Returns the verification, or `None` if there is no command for it.
    pub(crate) fn verifier(tests: RunTests, secrets: &Secrets) -> Option<Arc<dyn planner::Verifier>> {
        tests.command().is_some().then(|| Arc::new(Self(tests, secrets.clone())) as _)
    }

    fn masked(&self, text: &str) -> String {
        self.1.mask(text).into_owned()
    }
}

#[async_trait]
impl planner::Verifier for Tests {
    fn command(&self) -> String {
        self.masked(&self.0.command().map_or_else(String::new, |c| c.display()))
    }

    async fn verify(&self, limit: Option<Duration>) -> Result<Check, String> {
        let started = std::time::Instant::now();
        let command = planner::Verifier::command(self);
        let verified = self.0.verify(limit).await.map_err(|e| self.masked(&e.to_string()))?;
        let Some(mut outcome) = verified else {
            return Err(
                "the detected test command is gone: the file it was detected from no longer exists".into()
            );
        };
        mask_value(&mut outcome.facts, &|text| self.1.mask(text));
        Ok(Check {
            command,
            passed: outcome.status == Status::Ok,
            text: self.masked(&outcome.text),
            facts: outcome.facts,
            ms: started.elapsed().as_millis() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use planner::Repository;

    #[test]
    fn instructions_are_read_from_the_root_down_to_the_current_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::create_dir_all(folder.path().join("c")).unwrap();
        for (path, text) in [("AGENTS.md", "root"), ("a/b/AGENTS.md", "deep"), ("c/AGENTS.md", "aside")] {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        let workspace = Workspace::open(folder.path()).unwrap();
        let state = folder.path().join("state");
        let tree = Tree::new(workspace, Secrets::disabled(), Path::new("a/b"), state);
        let found: Vec<_> = tree.instructions().into_iter().map(|i| (i.path, i.text)).collect();
        assert_eq!(found, [("AGENTS.md".into(), "root".into()), ("a/b/AGENTS.md".into(), "deep".into())]);
    }

    #[test]
    fn an_undone_edit_does_not_count_as_an_edit_of_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repo");
        std::fs::create_dir(&root).unwrap();
        let read = || std::fs::read_to_string(root.join("a")).ok();
        let workspace = Workspace::open_with(&root, folder.path().join("state")).unwrap();
        let state = folder.path().join("state");
        let tree = Tree::new(workspace.clone(), Secrets::disabled(), Path::new(""), state);
        let edit = |text: &str| {
            let (path, expect) = (workspace.target("a").unwrap(), workspace::Expect::Any);
            let change = workspace::Change::Write { path, bytes: text.into(), executable: None, expect };
            workspace.commit(vec![change]).unwrap();
        };
        tree.turn(3);
        edit("one");
        tree.roll_back(3, 0).unwrap();
        assert_eq!(read(), None);
        // Repeat the undone edit, make a second edit, and undo only the second.
        edit("one");
        edit("two");
        tree.roll_back(3, 1).unwrap();
        assert_eq!(read().as_deref(), Some("one"));
        tree.roll_back(3, 1).unwrap();
        assert_eq!(read().as_deref(), Some("one"), "nothing is left to undo");
        // Records: 1 writes `one`, 2 undoes it, 3 writes `one` again, 4 writes `two`, 5 undoes it.
        assert_eq!((tree.edit(3, 0), tree.edit(3, 1), tree.last_revert()), (Ok(Some(3)), Ok(None), Ok(None)));
        assert_eq!(tree.revert_from(3), tree.last_revert());
        assert_eq!((read(), tree.last_revert().unwrap().is_some()), (None, true));
    }

    #[test]
    fn a_link_out_of_the_repository_is_not_followed_for_instructions() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repo");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(folder.path().join("secret"), "key").unwrap();
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("AGENTS.md")).unwrap();
        let (workspace, state) = (Workspace::open(&root).unwrap(), folder.path().join("state"));
        let tree = Tree::new(workspace, Secrets::disabled(), Path::new(""), state);
        assert!(tree.instructions().is_empty());
    }
}
