//! A scripted runner, and repositories for it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use batch::{
    Attempt, BatchLimits, BatchOptions, Error, Event, Finished, Here, Runner, Settings, Setup, Summary, Task,
};
use futures_util::future::LocalBoxFuture;
use journal::{Diff, Ending, Report, Totals};
use tempfile::TempDir;
use tokio::sync::{Barrier, watch};

pub(crate) type Interrupt = watch::Receiver<bool>;

/// Runs a closure for each task, and records the tasks.
pub(crate) struct Script {
    pub(crate) ran: RefCell<Vec<String>>,
    /// How many requests the server has refused.
    pub(crate) refusals: Rc<Cell<u64>>,
    does: Box<Does>,
}

type Does = dyn Fn(&Task, Option<&Setup>, PathBuf, Interrupt) -> LocalBoxFuture<'static, Attempt>;

impl Script {
    pub(crate) fn new<F, A>(does: F) -> Self
    where
        F: Fn(&Task, PathBuf, Interrupt) -> A + 'static,
        A: Future<Output = Attempt> + 'static,
    {
        Self {
            ran: RefCell::default(),
            refusals: Rc::default(),
            does: Box::new(move |t, _, w, i| Box::pin(does(t, w, i))),
        }
    }

    /// Passes the setup of each task to the closure, and immediately ends the attempt with the
    /// ending that the closure returns.
    pub(crate) fn preparing(does: impl Fn(&Task, Option<&Setup>, &Path) -> Ending + 'static) -> Self {
        let does = move |task: &Task, setup: Option<&Setup>, worktree: PathBuf, _| {
            let ended = attempt(does(task, setup, &worktree), &task.id);
            Box::pin(std::future::ready(ended)) as LocalBoxFuture<'static, Attempt>
        };
        Self { ran: RefCell::default(), refusals: Rc::default(), does: Box::new(does) }
    }

    /// Immediately ends each attempt with the ending that the closure returns.
    pub(crate) fn ending(ending: impl Fn(&Task) -> Ending + 'static) -> Self {
        Self::new(move |task, _, _| std::future::ready(attempt(ending(task), &task.id)))
    }

    /// Like [`Script::preparing`], but the closure returns a barrier. Each attempt waits at the
    /// barrier and then ends as verified.
    pub(crate) fn together(does: impl Fn(&Task, Option<&Setup>, &Path) -> Rc<Barrier> + 'static) -> Self {
        let does = move |task: &Task, setup: Option<&Setup>, worktree: PathBuf, _| {
            let (barrier, ended) = (does(task, setup, &worktree), attempt(Ending::Verified, &task.id));
            let waiting = async move {
                barrier.wait().await;
                ended
            };
            Box::pin(waiting) as LocalBoxFuture<'static, Attempt>
        };
        Self { ran: RefCell::default(), refusals: Rc::default(), does: Box::new(does) }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.ran.take()
    }
}

impl Runner for Script {
    async fn run(
        &self,
        task: &Task,
        worktree: &Path,
        setup: Option<&Setup>,
        interrupt: Interrupt,
    ) -> Attempt {
        self.ran.borrow_mut().push(task.id.clone());
        (self.does)(task, setup, worktree.to_owned(), interrupt).await
    }

    fn refusals(&self) -> u64 {
        self.refusals.get()
    }
}

pub(crate) fn attempt(ending: Ending, what: &str) -> Attempt {
    let diff = Diff { files: vec!["a".into()], added: 2, removed: 1, patch: format!("patch of {what}\n") };
    let totals =
        Totals { turns: 3, prompt_tokens: 100, generated_tokens: 10, cost: Some(0.25), ..Totals::default() };
    let message = format!("{what} was worked on");
    Attempt {
        report: Report { ending, message, diff, totals, models: Vec::new(), result: None },
        session: Some(format!("session-{what}")),
    }
}

/// A folder that contains `repo`, a repository with one commit. Batch results go to `out`.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.repository("repo");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }

    pub(crate) fn repository(&self, name: &str) {
        let repo = self.path(name);
        std::fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        std::fs::create_dir(repo.join("sub")).unwrap();
        std::fs::write(repo.join("sub/inner"), "inner\n").unwrap();
        std::fs::write(repo.join("file"), "first\n").unwrap();
        git(&repo, &["add", "."]);
        git(&repo, &["commit", "-qm", "first"]);
    }

    pub(crate) fn task(&self, id: &str) -> Task {
        Task {
            id: id.into(),
            repo: self.path("repo"),
            named_repo: "repo".into(),
            text: format!("do {id}"),
            ..Task::default()
        }
    }

    pub(crate) fn tasks(&self, ids: &[&str]) -> Vec<Task> {
        ids.iter().map(|id| self.task(id)).collect()
    }

    pub(crate) fn options(&self) -> BatchOptions {
        BatchOptions {
            out: self.out(),
            jobs: 1,
            retries: 0,
            wait: Duration::from_secs(600),
            limits: BatchLimits::default(),
            fail_fast: false,
            retry_failed: false,
            model_name: "test-model".into(),
            settings: Settings::default(),
        }
    }

    pub(crate) async fn run(&self, tasks: &[Task], runner: &Script) -> Summary {
        run_with(tasks, &self.options(), runner).await.unwrap().0
    }

    /// Returns the records in `results.jsonl`.
    pub(crate) fn results(&self) -> Vec<Finished> {
        self.lines("results.jsonl").iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.out().join(name)).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the names of the folders in `worktrees/`.
    pub(crate) fn worktrees(&self) -> Vec<String> {
        let listed = std::fs::read_dir(self.out().join("worktrees")).unwrap();
        listed.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Returns everything in the repository that a user could notice.
    pub(crate) fn state(&self) -> String {
        let repo = self.path("repo");
        let commands: &[&[&str]] = &[
            &["status", "--porcelain=v2", "--branch", "--show-stash", "--ignored"],
            &["for-each-ref"],
            &["worktree", "list", "--porcelain"],
            &["stash", "list"],
            &["reflog", "--all"],
            &["ls-files", "--stage", "--debug"],
            &["config", "--local", "--list"],
        ];
        let mut state: String = commands.iter().map(|args| git(&repo, args)).collect();
        let mut names: Vec<_> =
            std::fs::read_dir(repo.join(".git")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        state.push_str(&format!("{names:?}"));
        state
    }
}

/// Runs a batch. Returns its summary, and one line for each event.
pub(crate) async fn run_with(
    tasks: &[Task],
    options: &BatchOptions,
    runner: &Script,
) -> Result<(Summary, Vec<String>), Error> {
    let (_quiet, interrupt) = watch::channel(false);
    let mut told = Vec::new();
    let summary =
        batch::run(tasks, options, &Here::new(runner), interrupt, |event| told.push(telling(&event))).await?;
    Ok((summary, told))
}

pub(crate) fn telling(event: &Event<'_>) -> String {
    match event {
        Event::Plan { tasks, done, .. } => format!("plan {tasks}, {done} done"),
        Event::Kept { changes, tasks } => {
            let changes = changes.iter().map(|change| format!("{}: {:?}", change.key, change.new));
            format!("{} with other {}", tasks.join(" "), changes.collect::<Vec<_>>().join(", "))
        }
        Event::Changed { id } => format!("changed {id}"),
        Event::Failed { id } => format!("failed {id}"),
        Event::Waiting { wait } => format!("waiting {} s", wait.as_secs()),
        Event::CutOff { id, attempt } => format!("cut off {id} {attempt}"),
        Event::Started { id, attempt } => format!("started {id} {attempt}"),
        Event::Note { id, message } => format!("note {id}: {message}"),
        Event::Finished { result, again } => {
            format!(
                "finished {} {} {}{}",
                result.id,
                result.attempt,
                result.ending.label(),
                if *again { ", again" } else { "" }
            )
        }
    }
}

pub(crate) fn git(repo: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(repo)
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
