use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use batch::{Setup, Task};
use journal::Ending;

use crate::support::{Place, Script, git, run_with};

/// Returns the modification time that a setup gives a file, which is far in the past.
fn old() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

/// Changes a worktree the way a setup command might.
fn prepare(worktree: &Path) {
    fs::create_dir_all(worktree.join("venv/bin")).unwrap();
    fs::write(worktree.join("venv/bin/tool"), worktree.to_str().unwrap()).unwrap();
    fs::set_permissions(worktree.join("venv/bin/tool"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::create_dir(worktree.join("empty")).unwrap();
    std::os::unix::fs::symlink("bin/tool", worktree.join("venv/link")).unwrap();
    fs::write(worktree.join("file"), "changed by the setup\n").unwrap();
    fs::remove_dir_all(worktree.join("sub")).unwrap();
    fs::File::open(worktree.join("venv/bin/tool")).unwrap().set_modified(old()).unwrap();
}

/// Describes everything that a task could notice about a prepared worktree.
fn look(worktree: &Path) -> String {
    let tool = fs::metadata(worktree.join("venv/bin/tool")).unwrap();
    format!(
        "{}, mode {:o}, old: {}, link to {}, empty folder: {}\n{}{}",
        fs::read_to_string(worktree.join("venv/bin/tool")).unwrap(),
        tool.permissions().mode() & 0o7777,
        tool.modified().unwrap() == old(),
        fs::read_link(worktree.join("venv/link")).unwrap().display(),
        worktree.join("empty").is_dir(),
        git(worktree, &["status", "--porcelain", "--untracked-files=all"]),
        git(worktree, &["rev-parse", "HEAD"]),
    )
}

/// The id of each task, whether it had a setup to run, and what its worktree looked like.
type Seen = RefCell<Vec<(String, bool, String)>>;

/// Returns a runner that runs each setup it is given, records which tasks had one and what their
/// worktrees looked like, and then writes to the worktree, as a task would.
fn script(seen: &Rc<Seen>) -> Script {
    let seen = Rc::clone(seen);
    Script::preparing(move |task: &Task, setup: Option<&Setup>, worktree: &Path| {
        if let Some(setup) = setup {
            assert_eq!(Some(&setup.command), task.setup.as_ref());
            prepare(worktree);
            setup.keep().unwrap();
        }
        seen.borrow_mut().push((task.id.clone(), setup.is_some(), look(worktree)));
        fs::write(worktree.join("venv/bin/tool"), "changed by a task\n").unwrap();
        fs::write(worktree.join("left"), task.id.clone()).unwrap();
        Ending::Verified
    })
}

/// Empties `seen` and returns the ids of the tasks that had a setup to run.
fn with_setup(seen: &Seen) -> Vec<String> {
    let seen = seen.take().into_iter();
    seen.filter(|(_, setup, _)| *setup).map(|(id, ..)| id).collect()
}

fn tasks(place: &Place, ids: &[&str]) -> Vec<Task> {
    let setup = |task: Task| Task { setup: Some("make venv".into()), ..task };
    place.tasks(ids).into_iter().map(setup).collect()
}

#[tokio::test]
async fn the_setup_runs_once_and_later_tasks_find_its_files_at_the_same_path() {
    let (place, seen) = (Place::new(), Rc::default());
    let before = place.state();
    place.run(&tasks(&place, &["a", "b", "c"]), &script(&seen)).await;
    let looks: Vec<_> = seen.borrow().iter().map(|(.., look)| look.clone()).collect();
    assert!(looks.iter().all(|look| *look == looks[0]), "{looks:#?}");
    let expected = format!("{}/, mode 750, old: true", place.out().join("worktrees/@0").display());
    assert!(looks[0].starts_with(&expected), "{}", looks[0]);
    assert!(looks[0].contains(" M file\n D sub/inner\n?? venv/bin/tool\n?? venv/link\n"), "{}", looks[0]);
    assert_eq!(with_setup(&seen), ["a"]);
    assert_eq!(place.worktrees(), [""; 0]);
    assert!(!place.out().join(".agent-setups").exists());
    assert_eq!(place.state(), before);
}

#[tokio::test]
async fn another_command_or_commit_needs_its_own_setup() {
    let (place, seen) = (Place::new(), Rc::default());
    let first = git(&place.path("repo"), &["rev-parse", "HEAD"]).trim().to_owned();
    git(&place.path("repo"), &["commit", "--allow-empty", "-qm", "second"]);
    let mut tasks = tasks(&place, &["a", "b", "c", "d"]);
    tasks[2].setup = Some("make other".into());
    tasks[3].base_commit = Some(first);
    place.run(&tasks, &script(&seen)).await;
    assert_eq!(with_setup(&seen), ["a", "c", "d"]);
}

#[tokio::test]
async fn a_setup_that_failed_is_not_reused() {
    let place = Place::new();
    let fails = Script::preparing(|_: &Task, setup: Option<&Setup>, worktree: &Path| {
        assert!(setup.is_some() && !worktree.join("half").exists());
        fs::write(worktree.join("half"), "").unwrap();
        Ending::Refused
    });
    place.run(&tasks(&place, &["a", "b"]), &fails).await;
    assert!(place.results().iter().all(|result| result.message.ends_with("was worked on")));
    assert_eq!(fails.take(), ["a", "b"]);
}

#[tokio::test]
async fn tasks_that_run_at_the_same_time_have_a_setup_each_and_later_tasks_reuse_it() {
    let place = Place::new();
    let options = batch::BatchOptions { jobs: 2, ..place.options() };
    let with_setup = Rc::new(RefCell::new(Vec::new()));
    let (seen, both) = (Rc::clone(&with_setup), Rc::new(tokio::sync::Barrier::new(2)));
    let runner = Script::together(move |_: &Task, setup: Option<&Setup>, worktree: &Path| {
        let at = worktree.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(setup) = setup {
            fs::write(worktree.join("made"), &at).unwrap();
            setup.keep().unwrap();
        }
        assert_eq!(fs::read_to_string(worktree.join("made")).unwrap(), at);
        seen.borrow_mut().push((at, setup.is_some()));
        Rc::clone(&both)
    });
    run_with(&tasks(&place, &["a", "b", "c", "d"]), &options, &runner).await.unwrap();
    let mut seen = with_setup.take();
    seen.sort();
    let expected = [("@0", false), ("@0", true), ("@1", false), ("@1", true)];
    assert_eq!(seen, expected.map(|(at, setup)| (at.to_owned(), setup)));
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_is_not_used() {
    let place = Place::new();
    let runner = Script::preparing(|_: &Task, setup: Option<&Setup>, worktree: &Path| {
        // The copy fails if a file is where the folder for copies should be.
        let copies = worktree.ancestors().nth(2).unwrap().join(".agent-setups");
        fs::write(&copies, "").unwrap();
        assert!(setup.unwrap().keep().is_err());
        fs::remove_file(copies).unwrap();
        Ending::Verified
    });
    let summary = place.run(&tasks(&place, &["a", "b"]), &runner).await;
    assert_eq!(summary.exit_code(), 0, "{}", summary.to_text());
}

#[tokio::test]
async fn copies_that_a_killed_batch_left_are_removed() {
    let place = Place::new();
    fs::create_dir_all(place.out().join(".agent-setups/0")).unwrap();
    place.run(&place.tasks(&["a"]), &Script::ending(|_| Ending::Verified)).await;
    assert!(!place.out().join(".agent-setups").exists());
}

#[tokio::test]
async fn the_setup_of_a_folder_without_commits_runs_for_each_task() {
    let place = Place::new();
    fs::create_dir(place.path("plain")).unwrap();
    let tasks: Vec<Task> =
        tasks(&place, &["a", "b"]).into_iter().map(|t| Task { repo: place.path("plain"), ..t }).collect();
    let runner = Script::preparing(|_: &Task, setup: Option<&Setup>, _: &Path| {
        setup.unwrap().keep().unwrap();
        Ending::Verified
    });
    let summary = place.run(&tasks, &runner).await;
    assert_eq!(summary.exit_code(), 0, "{}", summary.to_text());
}

#[tokio::test]
async fn kept_worktrees_stay_and_have_a_setup_each() {
    let (place, seen) = (Place::new(), Rc::default());
    let runner = script(&seen);
    let (_quiet, interrupt) = tokio::sync::watch::channel(false);
    let tasks = tasks(&place, &["a", "b"]);
    let here = batch::Here::keeping_trees(&runner);
    batch::run(&tasks, &place.options(), &here, interrupt.clone(), |_| ()).await.unwrap();
    assert_eq!(with_setup(&seen), ["a", "b"]);
    let mut kept = place.worktrees();
    kept.sort();
    assert_eq!(kept, ["a", "b"]);
    assert_eq!(fs::read_to_string(place.out().join("worktrees/b/left")).unwrap(), "b");
    // The next invocation leaves the kept worktrees alone.
    batch::run(&tasks, &place.options(), &here, interrupt, |_| ()).await.unwrap();
    assert_eq!(place.worktrees().len(), 2);
}

#[tokio::test]
async fn bug_tasks_in_different_folders_of_a_repository_shared_a_setup() {
    let (place, setups) = (Place::new(), Rc::new(RefCell::new(Vec::new())));
    let mut tasks = tasks(&place, &["a", "b", "c"]);
    tasks[1].repo = place.path("repo/sub");
    tasks[2].repo = place.path("repo/sub");
    let seen = Rc::clone(&setups);
    let runner = Script::preparing(move |task: &Task, setup: Option<&Setup>, worktree: &Path| {
        if let Some(setup) = setup {
            fs::write(worktree.join("made"), "").unwrap();
            setup.keep().unwrap();
        }
        assert!(worktree.join("made").exists());
        seen.borrow_mut().push((task.id.clone(), setup.is_some()));
        Ending::Verified
    });
    place.run(&tasks, &runner).await;
    let expected = [("a", true), ("b", true), ("c", false)];
    assert_eq!(*setups.borrow(), expected.map(|(id, setup)| (id.to_owned(), setup)));
}

#[tokio::test]
async fn bug_a_link_that_a_setup_left_led_out_of_the_worktree() {
    let place = Place::new();
    fs::create_dir(place.path("outside")).unwrap();
    let outside = place.path("outside");
    let tasks: Vec<Task> = tasks(&place, &["a", "b"])
        .into_iter()
        .map(|task| Task { repo: place.path("repo/sub"), ..task })
        .collect();
    let runner = Script::preparing(move |_: &Task, setup: Option<&Setup>, worktree: &Path| {
        assert!(worktree.canonicalize().unwrap().ends_with("worktrees/@0/sub"), "{}", worktree.display());
        if let Some(setup) = setup {
            fs::remove_dir_all(worktree).unwrap();
            let link = worktree.to_str().unwrap().trim_end_matches('/');
            std::os::unix::fs::symlink(&outside, link).unwrap();
            setup.keep().unwrap();
        }
        Ending::Verified
    });
    let (summary, told) = run_with(&tasks, &place.options(), &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0, "{told:#?}");
    assert!(told.iter().any(|line| line.starts_with("note b: ") && line.contains("setup runs again")));
}

#[tokio::test]
async fn bug_a_folder_at_the_path_of_a_lane_cost_a_task() {
    let (place, seen) = (Place::new(), Rc::default());
    fs::create_dir_all(place.out().join("worktrees/@0")).unwrap();
    fs::create_dir_all(place.out().join("setups")).unwrap();
    let summary = place.run(&tasks(&place, &["a", "b"]), &script(&seen)).await;
    assert_eq!(summary.exit_code(), 0, "{}", summary.to_text());
    assert_eq!(with_setup(&seen), ["a"]);
    assert!(place.out().join("setups").exists(), "a folder that the batch did not create should stay");
}
