//! Tests the worktrees of tasks, and that the user's repository stays unchanged.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;
use std::time::Duration;

use crate::support::{Place, Script, attempt, git, run_with, telling};
use batch::{BatchLimits, BatchOptions, Here, Task};
use journal::Ending;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// Returns a runner that calls a closure with each worktree.
fn looking(look: impl Fn(&std::path::Path) + 'static) -> Script {
    let look = Rc::new(look);
    Script::new(move |task, worktree, _| {
        look(&worktree);
        std::future::ready(attempt(Ending::Verified, &task.id))
    })
}

#[tokio::test]
async fn the_users_repository_stays_unchanged_whatever_happens_in_the_worktrees() {
    let place = Place::new();
    let repo = place.path("repo");
    fs::write(repo.join("file"), "stashed\n").unwrap();
    git(&repo, &["stash", "-q"]);
    fs::write(repo.join("file"), "staged\n").unwrap();
    git(&repo, &["add", "file"]);
    fs::write(repo.join("file"), "staged and changed\n").unwrap();
    fs::write(repo.join("untracked"), "mine\n").unwrap();
    let before = place.state();
    let runner = looking(|worktree| {
        assert_eq!(fs::read_to_string(worktree.join("file")).unwrap(), "first\n");
        assert!(!worktree.join("untracked").exists());
        fs::write(worktree.join("file"), "changed\n").unwrap();
        fs::write(worktree.join("new"), "new\n").unwrap();
        git(worktree, &["add", "."]);
    });
    let options = BatchOptions { jobs: 4, ..place.options() };
    let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let (summary, told) = run_with(&place.tasks(&ids), &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0, "{}", summary.to_text());
    assert_eq!(place.state(), before);
    assert_eq!(fs::read_to_string(repo.join("file")).unwrap(), "staged and changed\n");
    assert_eq!(place.worktrees(), [""; 0]);
    let notes = told.iter().filter(|t| t.contains("uncommitted changes")).count();
    assert_eq!(notes, 1, "each repository should have one note: {told:?}");
}

#[tokio::test]
async fn results_inside_the_repository_do_not_show_up_in_its_status() {
    let place = Place::new();
    let before = git(&place.path("repo"), &["status", "--porcelain"]);
    let options = BatchOptions { out: place.path("repo/out"), ..place.options() };
    let runner = Script::ending(|_| Ending::Verified);
    let (summary, told) = run_with(&place.tasks(&["a", "b"]), &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0);
    assert_eq!(git(&place.path("repo"), &["status", "--porcelain"]), before);
    assert!(!told.iter().any(|t| t.starts_with("note")), "{told:?}");
}

#[tokio::test]
async fn a_worktree_is_at_the_base_commit_and_a_missing_commit_is_reported() {
    let place = Place::new();
    let repo = place.path("repo");
    fs::write(repo.join("file"), "second\n").unwrap();
    git(&repo, &["commit", "-qam", "second"]);
    let mut tasks = place.tasks(&["old", "none"]);
    tasks[0].base_commit = Some("HEAD~1".into());
    tasks[1].base_commit = Some("deadbeef".into());
    let runner =
        looking(|worktree| assert_eq!(fs::read_to_string(worktree.join("file")).unwrap(), "first\n"));
    place.run(&tasks, &runner).await;
    assert_eq!(runner.take(), ["old"]);
    let results = place.results();
    assert!(results[1].infrastructure && results[1].message.contains("deadbeef"), "{:?}", results[1]);
    let first = git(&repo, &["rev-parse", "HEAD~1"]);
    assert!(place.lines("attempts.jsonl")[0].contains(first.trim()));
}

#[tokio::test]
async fn a_task_in_a_subfolder_of_a_repository_works_in_that_subfolder() {
    let place = Place::new();
    let mut tasks = place.tasks(&["inner"]);
    tasks[0].repo = place.path("repo/sub");
    let runner = looking(|worktree| {
        assert!(worktree.ends_with("worktrees/inner/sub"), "{}", worktree.display());
        assert_eq!(fs::read_to_string(worktree.join("inner")).unwrap(), "inner\n");
    });
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
    assert_eq!(place.worktrees(), [""; 0]);
}

#[tokio::test]
async fn a_repository_may_be_a_bare_clone() {
    let place = Place::new();
    git(&place.path(""), &["clone", "-q", "--bare", "repo", "mirror"]);
    let mut tasks = place.tasks(&["a"]);
    tasks[0].repo = place.path("mirror");
    let runner = looking(|worktree| assert!(worktree.join("file").is_file()));
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
}

#[tokio::test]
async fn hooks_of_the_repository_do_not_run() {
    let place = Place::new();
    let (hook, trace) = (place.path("repo/.git/hooks/post-checkout"), place.path("hook-ran"));
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\ntouch '{}'\n", trace.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let runner = Script::ending(|_| Ending::Verified);
    assert_eq!(place.run(&place.tasks(&["a"]), &runner).await.exit_code(), 0);
    assert!(!trace.exists());
}

#[tokio::test]
async fn a_folder_that_is_not_a_repository_is_copied_and_this_is_reported() {
    let place = Place::new();
    let plain = place.path("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("file"), "plain\n").unwrap();
    let mut tasks = place.tasks(&["a", "b"]);
    tasks.iter_mut().for_each(|task| task.repo.clone_from(&plain));
    tasks[1].base_commit = Some("HEAD".into());
    let runner = looking(|worktree| fs::write(worktree.join("file"), "changed\n").unwrap());
    let (_, told) = run_with(&tasks, &place.options(), &runner).await.unwrap();
    assert_eq!(fs::read_to_string(plain.join("file")).unwrap(), "plain\n");
    assert_eq!(runner.take(), ["a"]);
    assert!(told.iter().any(|t| t.contains("copy of the folder")), "{told:?}");
    let results = place.results();
    assert!(results[1].message.contains("not a git repository"), "{:?}", results[1]);
    assert_eq!(place.worktrees(), [""; 0]);

    let inside = BatchOptions { out: plain.join("out"), ..place.options() };
    run_with(&tasks[..1], &inside, &runner).await.unwrap();
    assert_eq!(runner.take(), [""; 0]);
}

#[tokio::test]
async fn a_folder_that_the_batch_did_not_make_is_neither_used_nor_removed() {
    let place = Place::new();
    let foreign = place.out().join("worktrees/a");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("precious"), "").unwrap();
    let runner = Script::ending(|_| Ending::Verified);
    for _ in 0..2 {
        fs::remove_file(place.out().join("attempts.jsonl")).ok();
        fs::remove_file(place.out().join("results.jsonl")).ok();
        place.run(&place.tasks(&["a"]), &runner).await;
        assert!(place.results()[0].message.contains("not created by this batch"), "{:?}", place.results());
        assert!(foreign.join("precious").is_file());
    }
    assert_eq!(runner.take(), [""; 0]);
}

#[tokio::test]
async fn a_worktree_is_removed_even_if_its_link_to_the_repository_is_broken() {
    let place = Place::new();
    let before = place.state();
    let runner = looking(|worktree| {
        fs::remove_file(worktree.join(".git")).unwrap();
        let locked = worktree.join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    });
    place.run(&place.tasks(&["a"]), &runner).await;
    assert_eq!(place.worktrees(), [""; 0]);
    assert_eq!(place.state(), before);
}

#[tokio::test]
async fn a_url_is_cloned_once_into_the_folder_of_the_batch_and_worktrees_share_it() {
    let place = Place::new();
    let before = place.state();
    let url = format!("file://{}", place.path("repo").display());
    let mut tasks = place.tasks(&["a", "b", "c"]);
    tasks.iter_mut().for_each(|task| task.repo = url.clone().into());
    let runner = looking(|worktree| {
        assert_eq!(fs::read_to_string(worktree.join("file")).unwrap(), "first\n");
        let shared = git(worktree, &["rev-parse", "--path-format=absolute", "--git-common-dir"]);
        assert!(shared.contains("/out/repositories/"), "{shared}");
    });
    let options = BatchOptions { jobs: 3, ..place.options() };
    let (summary, told) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!(summary.exit_code(), 0, "{}", summary.to_text());
    assert_eq!(told.iter().filter(|t| t.contains("cloning file://")).count(), 1, "{told:?}");
    assert_eq!(fs::read_dir(place.out().join("repositories")).unwrap().count(), 1);
    assert_eq!((place.worktrees(), place.state()), (vec![], before));
    tasks.push(Task { id: "d".into(), ..tasks[0].clone() });
    fs::rename(place.path("repo"), place.path("moved")).unwrap();
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0, "the clone should be used again");
}

#[tokio::test]
async fn a_bundle_is_cloned() {
    let place = Place::new();
    git(&place.path("repo"), &["bundle", "create", "-q", "../repo.bundle", "--all"]);
    let mut tasks = place.tasks(&["a"]);
    tasks[0].repo = place.path("repo.bundle");
    let runner = looking(|worktree| assert!(worktree.join("sub/inner").is_file()));
    let summary = place.run(&tasks, &runner).await;
    assert_eq!(summary.exit_code(), 0, "{}", summary.to_text());
}

#[tokio::test(start_paused = true)]
async fn a_failed_clone_is_retried_and_leaves_nothing() {
    let place = Place::new();
    let mut tasks = place.tasks(&["a"]);
    tasks[0].repo = format!("file://{}", place.path("nowhere").display()).into();
    let runner = Script::ending(|_| Ending::Verified);
    let options = BatchOptions { retries: 1, ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &runner).await.unwrap();
    assert_eq!((summary.exit_code(), place.results().len()), (5, 2));
    assert!(place.results()[0].message.contains("cannot clone file://"), "{:?}", place.results());
    assert_eq!(fs::read_dir(place.out().join("repositories")).unwrap().count(), 0);
    place.repository("nowhere");
    assert_eq!(place.run(&tasks, &runner).await.exit_code(), 0);
}

#[tokio::test]
async fn bug_a_failed_clone_was_reported_with_a_hint_from_git() {
    let place = Place::new();
    let mut tasks = place.tasks(&["a"]);
    let bundle = place.path("broken.bundle");
    fs::write(&bundle, format!("# v2 git bundle\n{} refs/heads/main\n\nbroken", "1".repeat(40))).unwrap();
    tasks[0].repo = bundle;
    let runner = Script::ending(|_| Ending::Verified);
    run_with(&tasks, &BatchOptions { retries: 0, ..place.options() }, &runner).await.unwrap();
    let message = &place.results()[0].message;
    assert!(message.starts_with("cannot clone") && !message.contains("hint:"), "{message}");
}

/// Returns a server that accepts connections but never answers, and tasks with a repository on that
/// server.
async fn hanging(place: &Place, ids: &[&str]) -> (TcpListener, Vec<Task>) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("git://{}/repo", server.local_addr().unwrap());
    let mut tasks = place.tasks(ids);
    tasks.iter_mut().for_each(|task| task.repo = url.clone().into());
    (server, tasks)
}

#[tokio::test]
async fn bug_a_clone_ignored_an_interrupt_and_waiting_tasks_started_their_own_clones() {
    let place = Place::new();
    let (server, tasks) = hanging(&place, &["a", "b", "c"]).await;
    let options = BatchOptions { jobs: 3, ..place.options() };
    let runner = Script::ending(|_| Ending::Verified);
    let (ask, interrupt) = tokio::sync::watch::channel(false);
    let connected = async {
        let (mut connection, _) = server.accept().await.unwrap();
        ask.send(true).unwrap();
        // This read ends when git is killed. It fails if the connection is reset.
        let _ = connection.read_to_end(&mut Vec::new()).await;
    };
    let (mut told, here) = (Vec::new(), Here::new(&runner));
    let run = batch::run(&tasks, &options, &here, interrupt, |event| told.push(telling(&event)));
    let (summary, ()) = tokio::join!(run, connected);
    assert_eq!(summary.unwrap().exit_code(), 130);
    assert_eq!((runner.take().len(), place.lines("results.jsonl").len()), (0, 0));
    assert_eq!(told.iter().filter(|t| t.contains("cloning")).count(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_clone() {
    let place = Place::new();
    let (_server, tasks) = hanging(&place, &["a"]).await;
    let limits = BatchLimits { time: Some(Duration::from_secs(60)), ..BatchLimits::default() };
    let options = BatchOptions { limits, ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &Script::ending(|_| Ending::Verified)).await.unwrap();
    assert_eq!((summary.exit_code(), place.lines("results.jsonl").len()), (4, 0));
}
