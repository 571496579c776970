//! Repositories that make git run other programs, or that contain programs with names like `git`.

use std::fs;
use std::os::unix::fs::symlink;

use super::{edit, finish, read};
use crate::support::World;

impl World {
    /// Runs git in the repository without any protection, ignoring failures.
    fn plain_git(&self, args: &[&str]) {
        self.program("git").args(args).output().unwrap();
    }

    /// Exercises the agent on the repository: a run, a dry run, and various other commands.
    fn use_everything(&self) {
        let calls =
            || [read("a.txt"), edit("a.txt", "one", "two"), super::command("echo x > made.txt"), finish()];
        let (output, _) = self.obey(calls());
        assert_eq!(self.read("a.txt"), "two\n", "{}", self.tell(&output));
        self.look_at_everything();
        assert_eq!(self.read("a.txt"), "one\n");
        self.obey_with(&["--dry-run"], calls());
        let output = self.limited(&["apply", "last"]).output().unwrap();
        assert_eq!(self.read("a.txt"), "two\n", "{}", self.tell(&output));
        self.limited(&["undo", "last"]).output().unwrap();
        self.limited(&["doctor", "--offline"]).output().unwrap();
    }
}

#[test]
fn programs_named_by_git_settings_are_not_run() {
    let world = World::with(&[("a.txt", "one\n"), ("b.txt", "b\n")]);
    let evil = world.attack("evil");
    world.write(".gitattributes", "* filter=evil diff=evil merge=evil\n");
    for (name, value) in [
        ("core.fsmonitor", evil.as_str()),
        ("core.pager", &evil),
        ("core.editor", &evil),
        ("core.sshCommand", &evil),
        ("core.hooksPath", "hooks"),
        ("filter.evil.clean", &evil),
        ("filter.evil.smudge", &evil),
        ("diff.evil.textconv", &evil),
        ("diff.external", &evil),
        ("merge.evil.driver", &evil),
        ("alias.diff-tree", &format!("!{evil}")),
        ("include.path", "../more"),
    ] {
        world.git(&["config", name, value]);
    }
    world.write("more", &format!("[filter \"evil\"]\n\tprocess = {evil}\n"));
    for hook in ["pre-commit", "post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"] {
        world.attack(&format!("hooks/{hook}"));
        world.attack(&format!(".git/hooks/{hook}"));
    }
    world.was_attacked();
    world.write("b.txt", "c\n");
    for attack in [&["status"] as &[&str], &["diff"], &["add", "b.txt"]] {
        world.plain_git(attack);
        assert!(world.was_attacked(), "`git {attack:?}` should run a program, so that the attack is real");
    }
    world.use_everything();
    assert!(!world.was_attacked());
}

#[test]
fn programs_named_by_a_submodule_are_not_run() {
    let world = World::with(&[("a.txt", "one\n")]);
    fs::create_dir(world.repo().join("sub")).unwrap();
    world.write("sub/b.txt", "b\n");
    let evil = world.attack("evil");
    world.was_attacked();
    for args in [&["init", "--quiet"] as &[&str], &["add", "."], &["commit", "--quiet", "--message=sub"]] {
        world.git(&[&["-C", "sub"], args].concat());
    }
    world.git(&["add", "sub"]);
    world.git(&["commit", "--quiet", "--message=sub"]);
    world.git(&["-C", "sub", "config", "filter.evil.clean", &evil]);
    world.git(&["-C", "sub", "config", "core.fsmonitor", &evil]);
    world.write("sub/.gitattributes", "* filter=evil\n");
    world.write("sub/b.txt", "c\n");
    world.plain_git(&["status"]);
    assert!(world.was_attacked(), "git status should read the settings of the submodule");
    world.write("sub/b.txt", "d\n");
    world.use_everything();
    assert!(!world.was_attacked());
}

#[test]
fn missing_objects_are_not_fetched_by_a_program_of_the_repository() {
    let world = World::with(&[("a.txt", "one\n"), ("b.txt", "b\n")]);
    let evil = world.attack("evil");
    for (name, value) in [
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", &format!("ext::{evil} x")),
        ("protocol.ext.allow", "always"),
        ("protocol.allow", "always"),
    ] {
        world.git(&["config", name, value]);
    }
    let blob = world.git(&["rev-parse", "HEAD:b.txt"]);
    let (folder, name) = blob.trim().split_at(2);
    fs::remove_file(world.repo().join(".git/objects").join(folder).join(name)).unwrap();
    world.was_attacked();
    world.plain_git(&["show", "HEAD:b.txt"]);
    assert!(world.was_attacked(), "git should fetch, so that the attack is real");
    world.use_everything();
    assert!(!world.was_attacked());
}

#[test]
fn a_batch_runs_no_filter_of_the_repository_when_it_creates_a_work_tree() {
    let world = World::with(&[("a.txt", "one\n"), (".gitattributes", "* filter=evil\n")]);
    let evil = world.attack("evil");
    world.was_attacked();
    for kind in ["smudge", "clean"] {
        world.git(&["config", &format!("filter.evil.{kind}"), &evil]);
    }
    world.git(&["config", "submodule.recurse", "true"]);
    world.git(&["worktree", "add", "--quiet", "--detach", "../other"]);
    assert!(world.was_attacked(), "git should run the filter, so that the attack is real");
    let tasks = world.home().join("tasks.jsonl");
    let task = serde_json::json!({"id": "t", "task": "Fix it.", "repo": world.repo()});
    fs::write(&tasks, format!("{task}\n")).unwrap();
    let server = fake_model::Server::start();
    [edit("a.txt", "one", "two"), finish()]
        .into_iter()
        .for_each(|a| server.enqueue(fake_model::Reply::text(a)));
    let args = ["batch", "--model", "deepseek-coder:6.7b", "--approach", "tools", tasks.to_str().unwrap()];
    let output = world.limited(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert!(!server.chats().is_empty(), "{}", world.tell(&output));
    assert!(!world.was_attacked());
}

#[test]
fn programs_in_the_repository_are_not_run_even_if_path_leads_there() {
    let world = World::with(&[("a.txt", "one\n"), ("Makefile", "test:\n\ttrue\n"), ("bin/x", "x\n")]);
    for name in ["git", "sh", "less", "timeout", "bwrap", "make", "cargo", "python", "python3"] {
        world.attack(name);
        world.attack(&format!("bin/{name}"));
    }
    let usual = std::env::var("PATH").unwrap();
    let inside = world.repo().join("bin").display().to_string();
    for first in ["", ".", "bin", "./bin", &inside] {
        let path = format!("{first}:{usual}");
        let attack = std::process::Command::new("/bin/sh")
            .args(["-c", "git status < /dev/null"])
            .current_dir(world.repo())
            .env("PATH", &path)
            .status();
        attack.unwrap();
        assert!(world.was_attacked(), "the shell should search PATH={first}, so that the attack is real");
        let server = fake_model::Server::start();
        [edit("a.txt", "one", "two"), finish()]
            .into_iter()
            .for_each(|a| server.enqueue(fake_model::Reply::text(a)));
        for args in [
            &["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Fix it."] as &[&str],
            &["diff"],
            &["undo", "last"],
            &["doctor", "--offline"],
        ] {
            let output =
                world.agent(args).env("PATH", &path).env("OLLAMA_HOST", server.url()).output().unwrap();
            assert!(!world.was_attacked(), "PATH={first}: {args:?} {}", world.tell(&output));
        }
        assert_eq!(world.read("a.txt"), "one\n");
        fs::remove_dir_all(world.home().join(".local")).unwrap();
    }
}

#[test]
fn a_git_file_that_points_to_a_secret_folder_is_not_followed() {
    let world = World::with(&[("a.txt", "one\n")]);
    let secret = world.home().join(".ssh");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("id"), super::MARK).unwrap();
    fs::rename(world.repo().join(".git"), world.home().join("git")).unwrap();
    for prompts in [
        format!("gitdir: {}\n", secret.display()),
        "gitdir: /dev/zero\n".into(),
        "gitdir: ../../../../../..\n".into(),
    ] {
        fs::write(world.repo().join(".git"), prompts).unwrap();
        let look = format!("cat {}/id; git log; ls {}; echo done", secret.display(), secret.display());
        let (output, prompts) =
            world.obey([super::command(&look), read(".git"), edit(".git", "gitdir", "x"), finish()]);
        let seen = format!("{prompts:?}{}", world.tell(&output));
        assert!(!seen.contains(super::MARK) && prompts.len() > 1, "{seen}");
        fs::remove_file(world.repo().join(".git")).unwrap();
    }
    symlink(world.home().join(".ssh"), world.repo().join(".git")).unwrap();
    let look = format!("cat {}/id .git/id; echo done", secret.display());
    let (output, prompts) =
        world.obey([super::command(&look), read(".git/id"), edit(".git/id", "5", "x"), finish()]);
    let seen = format!("{prompts:?}{}", world.tell(&output));
    assert!(!seen.contains(super::MARK) && prompts.len() > 1, "{seen}");
    assert_eq!(fs::read_to_string(secret.join("id")).unwrap(), super::MARK);
}

#[test]
fn a_work_tree_that_git_settings_place_elsewhere_is_not_read() {
    let world = World::with(&[("a.txt", "one\n")]);
    fs::write(world.home().join("secret.txt"), super::MARK).unwrap();
    for elsewhere in ["../../home", "../..", "/", "/proc"] {
        world.git(&["config", "core.worktree", elsewhere]);
        let (output, prompts) = world.obey([read("a.txt"), edit("a.txt", "one", "two"), finish()]);
        let seen = format!("{prompts:?}{}", world.tell(&output));
        assert!(!seen.contains(super::MARK), "{seen}");
        assert_eq!(world.read("a.txt"), "two\n", "{seen}");
        assert!(seen.contains("-one") && seen.contains("+two"), "the change should be shown: {seen}");
        world.write("a.txt", "one\n");
    }
}
