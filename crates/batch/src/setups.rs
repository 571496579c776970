//! Setup commands, run once for many tasks. The tree that a command leaves is copied, and later
//! tasks with the same repository, commit and command start from the copy.
//!
//! Programs write absolute paths into what they install: virtual environments, editable packages,
//! build caches. A copy is therefore valid only at the path of the original. Trees that need a
//! setup are made in numbered lanes: a lane has a path for the tree of one task at a time, and
//! keeps a copy of the last setup made there. There are never more lanes than tasks that run at a
//! time, which also bounds the disk space.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::short_digest;
use crate::task::Task;
use crate::worktree::{self, Source};

/// The folder of the copies, in the folder of the batch.
const FOLDER: &str = "setups";

/// The setup of one task, for its runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The command, which runs in the folder of the task.
    pub command: String,
    /// The whole tree, and where its copy goes.
    keep: Option<(PathBuf, PathBuf)>,
}

impl Setup {
    /// The setup of a task whose tree is not kept.
    pub(crate) fn once(task: &Task) -> Option<Self> {
        Some(Self { command: task.setup.clone()?, keep: None })
    }

    /// Keeps a copy of the tree for later tasks. Called when the command has succeeded, before
    /// anything else changes the tree. Blocks.
    ///
    /// # Errors
    /// If the copy cannot be made, for example because the disk is full. Later tasks then run the
    /// command again.
    pub fn keep(&self) -> io::Result<()> {
        let Some((tree, copy)) = &self.keep else { return Ok(()) };
        let partial = partial(copy);
        let copied = workspace::copy_without_git(tree, &partial);
        let kept = copied.and_then(|()| fs::rename(&partial, copy));
        if kept.is_err() {
            let _ = worktree::remove_folder(&partial);
        }
        kept
    }
}

/// The lanes of one batch. Dropping them removes the copies.
#[derive(Debug, Default)]
pub(crate) struct Lanes(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    /// The folder of the copies, if there has been a lane.
    folder: Option<PathBuf>,
    lanes: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    used: bool,
    /// What the copy was made from, if there is one.
    key: Option<String>,
}

/// A lane that a task uses. Dropping it makes the lane free.
pub(crate) struct Lane<'l> {
    lanes: &'l Lanes,
    number: usize,
    key: String,
    tree: PathBuf,
    copy: PathBuf,
    /// Whether the copy is one of this setup.
    ready: bool,
    /// Whether the folder of the copy may contain something else.
    stale: Cell<bool>,
}

impl Lanes {
    /// Takes a free lane for a task, preferably one whose copy fits. `out` is the folder of the
    /// batch. Returns `None` if the task needs no setup, or if its folder is not a repository.
    pub(crate) fn take(&self, task: &Task, source: &Source, out: &Path) -> Option<Lane<'_>> {
        let (command, git_dir, commit) = (task.setup.as_ref()?, source.git_dir()?, source.commit()?);
        let parts = [git_dir.as_os_str().as_encoded_bytes(), commit.as_bytes(), command.as_bytes()];
        let key = Some(short_digest(&parts));
        let State { folder, lanes } = &mut *self.0.borrow_mut();
        let folder = folder.get_or_insert_with(|| out.join(FOLDER));
        let tree = |number| out.join("worktrees").join(name(number));
        let free = |fits: &dyn Fn(&Slot) -> bool| {
            let mut slots = lanes.iter().enumerate();
            // A tree that could not be removed blocks its lane.
            let mut free = slots.by_ref().filter(|(n, s)| !s.used && tree(*n).symlink_metadata().is_err());
            free.find(|(_, slot)| fits(slot)).map(|(n, _)| n)
        };
        let found = free(&|slot| slot.key == key).or_else(|| free(&|slot| slot.key.is_none()));
        let number = found.or_else(|| free(&|_| true)).unwrap_or_else(|| {
            lanes.push(Slot::default());
            lanes.len() - 1
        });
        let slot = lanes.get_mut(number)?;
        slot.used = true;
        let ready = slot.key == key;
        slot.key = None;
        let copy = folder.join(number.to_string());
        Some(Lane {
            lanes: self,
            number,
            key: key?,
            tree: tree(number),
            copy,
            ready,
            stale: Cell::new(!ready),
        })
    }
}

impl Lane<'_> {
    /// The name of the tree. It cannot be that of another attempt's tree, because ids contain no
    /// `+`.
    pub(crate) fn name(&self) -> String {
        name(self.number)
    }

    /// Removes the copy of another setup, or what a killed batch left. Returns the copy of this
    /// setup, if there is one.
    pub(crate) async fn copy(&self) -> Result<Option<&Path>, String> {
        if self.stale.get() {
            worktree::remove(&self.copy, None).await?;
            worktree::remove(&partial(&self.copy), None).await?;
            self.stale.set(false);
        }
        Ok(self.ready.then_some(self.copy.as_path()))
    }

    /// The setup that the runner has to make, if there is no copy.
    pub(crate) fn setup(&self, task: &Task) -> Option<Setup> {
        let command = task.setup.clone().filter(|_| !self.ready)?;
        Some(Setup { command, keep: Some((self.tree.clone(), self.copy.clone())) })
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.lanes.0.borrow_mut().lanes.get_mut(self.number) {
            let key = std::mem::take(&mut self.key);
            let kept = !self.stale.get() && self.copy.is_dir();
            *slot = Slot { used: false, key: kept.then_some(key) };
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        if let Some(folder) = &self.0.get_mut().folder {
            let _ = worktree::remove_folder(folder);
        }
    }
}

/// Removes the copies that a killed batch left.
pub(crate) async fn remove_left(out: &Path) -> Result<(), String> {
    worktree::remove(&out.join(FOLDER), None).await
}

fn name(number: usize) -> String {
    format!("+{number}")
}

fn partial(copy: &Path) -> PathBuf {
    copy.with_extension("partial")
}
