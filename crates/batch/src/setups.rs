//! Shares the result of a setup command among tasks. The tree is copied after the command has run,
//! and later tasks with the same repository, commit and command start from the copy.
//!
//! Virtual environments, editable packages and build caches contain absolute paths, so a copy is
//! valid only at the path of the original. Each tree that needs a setup is therefore created in a
//! numbered lane. A lane has a fixed path, which holds one task's tree at a time. It also keeps a
//! copy of the last tree that was set up at that path. A lane is added only if no other is free,
//! which keeps disk usage bounded.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::short_digest;
use crate::task::Task;
use crate::worktree::{self, Source};

/// The name of the folder that contains the copies. It is inside the batch folder.
const FOLDER: &str = ".agent-setups";

/// The setup that a task's runner must perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The command, which runs in the task's folder.
    pub command: String,
    /// The path of the whole tree and the path of its copy; `None` if no copy is kept.
    keep: Option<(PathBuf, PathBuf)>,
}

impl Setup {
    /// Returns the setup for a task whose prepared tree is not copied.
    pub(crate) fn once(task: &Task) -> Option<Self> {
        Some(Self { command: task.setup.clone()?, keep: None })
    }

    /// Keeps a copy of the tree for later tasks. Call this after the command has succeeded, and
    /// before anything else changes the tree. Blocks.
    ///
    /// # Errors
    /// If the copy cannot be made, for example because the disk is full. Later tasks then run the
    /// command again.
    pub fn keep(&self) -> io::Result<()> {
        let Some((tree, copy)) = &self.keep else { return Ok(()) };
        // The copy only saves time, so it must not use up space that other tasks need.
        if !workspace::has_room(tree, tree)? {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "a copy would take more than half of the free space",
            ));
        }
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
    /// The folder with the copies; `None` until a task takes a lane.
    folder: Option<PathBuf>,
    lanes: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    used: bool,
    /// The digest of the repository, commit and command that the lane's copy was made from; `None`
    /// if the lane has no copy.
    key: Option<String>,
}

/// A lane that a task is using. Dropping it frees the lane.
pub(crate) struct Lane<'l> {
    lanes: &'l Lanes,
    number: usize,
    key: String,
    tree: PathBuf,
    copy: PathBuf,
    /// Whether the lane's copy was made from the same repository, commit and command.
    ready: Cell<bool>,
    /// Whether the copy's folder may contain leftovers or a copy made for another setup.
    stale: Cell<bool>,
}

impl Lanes {
    /// Takes a free lane for a task, preferably one with a copy that the task can use. `out` is the
    /// batch folder. Returns `None` if the task needs no setup, or if its folder is not a
    /// repository.
    pub(crate) fn take(&self, task: &Task, source: &Source, out: &Path) -> Option<Lane<'_>> {
        let (command, (git_dir, commit, prefix)) = (task.setup.as_ref()?, source.identity()?);
        let git_dir = git_dir.as_os_str().as_encoded_bytes();
        // The command runs in the task's folder, so a different folder needs its own setup.
        let parts = [git_dir, commit.as_bytes(), prefix.as_bytes(), command.as_bytes()];
        let key = Some(short_digest(&parts));
        let State { folder, lanes } = &mut *self.0.borrow_mut();
        let folder = folder.get_or_insert_with(|| out.join(FOLDER));
        let tree = |number| out.join("worktrees").join(name(number));
        // A tree that could not be removed blocks its lane.
        let is_absent = |number: usize| tree(number).symlink_metadata().is_err();
        let free = |fits: &dyn Fn(&Slot) -> bool| {
            let mut slots = lanes.iter().enumerate().filter(|(n, slot)| !slot.used && is_absent(*n));
            slots.find(|(_, slot)| fits(slot)).map(|(n, _)| n)
        };
        let found = free(&|slot| slot.key == key).or_else(|| free(&|slot| slot.key.is_none()));
        let number = match found.or_else(|| free(&|_| true)) {
            Some(number) => number,
            None => {
                let number = (lanes.len()..).find(|number| is_absent(*number))?;
                lanes.resize_with(number + 1, Slot::default);
                number
            }
        };
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
            ready: Cell::new(ready),
            stale: Cell::new(!ready),
        })
    }
}

impl Lane<'_> {
    /// Returns the name of the tree. No tree outside a lane can have this name, because ids are
    /// never empty.
    pub(crate) fn name(&self) -> String {
        name(self.number)
    }

    /// Returns the copy of this setup, if the lane has one. Otherwise removes whatever is there
    /// instead, such as a copy for another setup or the leftovers of a killed batch.
    ///
    /// # Errors
    /// If the removal fails. The task can still run, but the result of its setup is not kept.
    pub(crate) async fn copy(&self) -> Result<Option<&Path>, String> {
        if self.stale.get() {
            worktree::remove(&self.copy, None).await?;
            worktree::remove(&partial(&self.copy), None).await?;
            self.stale.set(false);
        }
        Ok(self.ready.get().then_some(self.copy.as_path()))
    }

    /// Discards a copy that cannot be restored. The task then needs its own setup.
    pub(crate) fn discard(&self) {
        self.ready.set(false);
        self.stale.set(true);
    }

    /// Returns the setup that the runner must perform, or `None` if the lane has a copy of its
    /// result.
    pub(crate) fn setup(&self, task: &Task) -> Option<Setup> {
        let command = task.setup.clone().filter(|_| !self.ready.get())?;
        let keep = (!self.stale.get()).then(|| (self.tree.clone(), self.copy.clone()));
        Some(Setup { command, keep })
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

/// Removes the copies that a killed batch left behind.
pub(crate) async fn remove_left(out: &Path) -> Result<(), String> {
    worktree::remove(&out.join(FOLDER), None).await
}

fn name(number: usize) -> String {
    format!("@{number}")
}

fn partial(copy: &Path) -> PathBuf {
    copy.with_extension("partial")
}
