//! Tasks from issues and templates, and runs with worktrees and commits.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use fake_model::{Reply, Server};
use serde_json::json;

use crate::replay::{edit, finish};
use crate::support::World;

const ISSUE: &str = r#"{
  "number": 12, "title": "add subtracts", "body": "add 2 3 prints -1.",
  "comments": [{"author": {"login": "ann"}, "body": "I see this, too."}]
}"#;

fn fixes() -> [String; 2] {
    [edit("$1 - $2", "$1 + $2"), finish()]
}

/// Runs `agent run` with these arguments and answers. Returns the output and the last message of
/// the first request.
fn run(world: &World, args: &[&str], answers: &[String], input: &str) -> (Output, String) {
    let server = Server::start();
    for answer in answers {
        server.enqueue(Reply::text(answer));
    }
    let all = [&["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"][..], args].concat();
    let mut command = world.agent(&all);
    command.env("OLLAMA_HOST", server.url());
    let file = world.home().join("input");
    std::fs::write(&file, input).unwrap();
    command.stdin(std::fs::File::open(file).unwrap());
    let output = command.output().unwrap();
    let chats = server.chats();
    (output, chats.first().map(|request| request.last_content().to_owned()).unwrap_or_default())
}

#[test]
fn an_issue_is_the_task() {
    let world = World::with_a_bug();
    let (output, prompt) = run(&world, &["--issue", "-", "Keep it short."], &fixes(), ISSUE);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let task = "Task: Resolve issue #12: add subtracts\n\nadd 2 3 prints -1.\n\nComment by ann:\nI see this, too.\n\nKeep it short.";
    assert!(prompt.ends_with(task), "{prompt}");
}

#[test]
fn the_json_of_gitlab_and_of_rest_interfaces_is_understood() {
    let gitlab = json!({
        "iid": 7, "title": "add subtracts", "description": "see the title",
        "Notes": [
            {"body": "changed the label", "system": true, "author": {"username": "bot"}},
            {"body": "yes", "author": {"username": "ann"}},
        ]
    });
    let rest =
        json!({"number": 7, "title": "add subtracts", "body": null, "comments": 3, "user": {"login": "ann"}});
    for (issue, end) in [
        (gitlab, "Resolve issue #7: add subtracts\n\nsee the title\n\nComment by ann:\nyes"),
        (rest, "Resolve issue #7: add subtracts"),
    ] {
        let world = World::with_a_bug();
        let (_, prompt) = run(&world, &["--issue", "-"], &fixes(), &issue.to_string());
        assert!(prompt.ends_with(end), "{prompt}");
    }
}

#[test]
fn the_url_of_an_issue_is_read_by_the_hosts_own_program() {
    let world = World::with_a_bug();
    let programs = world.home().join("bin");
    std::fs::create_dir(&programs).unwrap();
    for name in ["gh", "glab"] {
        let file = programs.join(name);
        let text = format!("#!/bin/sh\necho \"$0 $*\" >> \"$HOME/called\"\ncat <<'EOF'\n{ISSUE}\nEOF\n");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for url in ["https://github.com/a/b/issues/12", "https://gitlab.com/a/b/-/issues/12"] {
        let server = Server::start();
        fixes().iter().for_each(|answer| server.enqueue(Reply::text(answer)));
        let args = ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--issue", url];
        let output = world.agent(&args).env("OLLAMA_HOST", server.url()).env("PATH", &path).output().unwrap();
        assert!(server.chats()[0].last_content().contains("add 2 3 prints -1."), "{}", world.tell(&output));
    }
    let called = std::fs::read_to_string(world.home().join("called")).unwrap();
    let [gh, glab] = called.lines().collect::<Vec<_>>()[..] else { panic!("{called}") };
    assert!(
        gh.ends_with("/gh issue view https://github.com/a/b/issues/12 --json number,title,body,comments"),
        "{gh}"
    );
    assert!(glab.contains("/glab issue view https://gitlab.com/a/b/-/issues/12"), "{glab}");
}

#[test]
fn mistakes_in_an_issue_are_explained() {
    let world = World::with_a_bug();
    for (text, why) in [("{", "EOF while parsing"), ("{}", "it has no title"), ("[]", "it has no title")] {
        let (output, _) = run(&world, &["--issue", "-"], &[], text);
        let seen = world.tell(&output);
        assert!(
            seen.starts_with("exit 2\n") && seen.contains(why) && seen.contains("gh issue view"),
            "{seen}"
        );
    }
    let args = ["run", "--issue", "https://example.org/issues/1"];
    let seen = world.tell(&world.agent(&args).env("PATH", "/nowhere").output().unwrap());
    assert!(seen.starts_with("exit 2\n") && seen.contains("cannot run `gh`"), "{seen}");
}

#[test]
fn a_template_is_filled_with_values() {
    let world = World::with_a_bug();
    world.write(".agents/templates/fix.md", "Fix {{what}} in {{ where }}. Keep {this}.\n");
    let (_, prompt) = run(&world, &["--template", "fix", "what=the sum", "where=add.sh"], &fixes(), "");
    assert!(prompt.ends_with("Task: Fix the sum in add.sh. Keep {this}."), "{prompt}");
    // A template from the user's own folder is used only if the repository has none by that name.
    let own = world.home().join(".config/agent/templates");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("fix.md"), "not this one").unwrap();
    std::fs::write(own.join("mine.md"), "my own").unwrap();
    world.git(&["checkout", "--quiet", "--", "add.sh"]);
    let (_, prompt) = run(&world, &["--template", "mine"], &fixes(), "");
    assert!(prompt.ends_with("Task: my own"), "{prompt}");
    for (args, why) in [
        (&["--template", "none"][..], "there is no template none.md in"),
        (&["--template", "../fix"], "invalid template name"),
        (&["--template", "fix", "what=x"], "unknown variable \"where\"; available variables: what"),
        (&["--template", "fix", "what"], "write KEY=VALUE"),
        (&["a task", "what=x"], "--template"),
    ] {
        let (output, _) = run(&world, args, &[], "");
        let seen = world.tell(&output);
        assert!(seen.starts_with("exit 2\n") && seen.contains(why), "{args:?}: {seen}");
    }
}

#[test]
fn bug_a_template_of_the_repository_could_be_a_pipe_or_a_link_to_a_secret() {
    let world = World::with_a_bug();
    std::fs::write(world.home().join("secret"), "hush").unwrap();
    let folder = world.repo().join(".agents/templates");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(world.home().join("secret"), folder.join("link.md")).unwrap();
    assert!(world.program("mkfifo").arg(folder.join("pipe.md")).status().unwrap().success());
    for name in ["link", "pipe"] {
        let (output, prompt) = run(&world, &["--template", name], &[], "");
        let seen = world.tell(&output);
        assert!(seen.starts_with("exit 2\n") && prompt.is_empty() && !seen.contains("hush"), "{seen}");
    }
}

#[test]
fn a_worktree_is_left_with_the_changes_and_the_repository_is_untouched() {
    let world = World::with_a_bug();
    let (output, _) = run(&world, &["--worktree=sum", "fix it"], &fixes(), "");
    let seen = world.tell(&output);
    assert!(
        seen.starts_with("exit 0\n") && seen.contains("repo.worktrees/sum on branch agent/sum"),
        "{seen}"
    );
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    let tree = world.repo().with_file_name("repo.worktrees").join("sum");
    assert!(std::fs::read_to_string(tree.join("add.sh")).unwrap().contains("$1 + $2"));
    assert!(world.git(&["branch", "--list", "agent/sum"]).contains("agent/sum"));
    let (output, _) = run(&world, &["--worktree=sum", "fix it"], &[], "");
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 2\n") && seen.contains("repo.worktrees/sum already exists"), "{seen}");
    assert!(world.observe(&["undo", "last"]).starts_with("exit 0\n"));
    assert!(std::fs::read_to_string(tree.join("add.sh")).unwrap().contains("$1 - $2"));
}

#[test]
fn bug_the_worktree_of_a_run_that_can_be_resumed_was_removed() {
    let world = World::with_a_bug();
    let read = crate::support::call("read_file", json!({"path": "add.sh"}));
    let (output, _) = run(&world, &["--worktree=sum", "--max-turns", "1", "fix it"], &[read], "");
    assert_eq!(output.status.code(), Some(4), "{}", world.tell(&output));
    let server = Server::start();
    fixes().iter().for_each(|answer| server.enqueue(Reply::text(answer)));
    let args = ["resume", "last", "--max-turns", "9"];
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
}

#[test]
fn bug_a_worktree_stayed_if_the_run_could_not_start() {
    let world = World::with_a_bug();
    world.git(&["config", "user.useConfigOnly", "true"]);
    let mut command = world.agent(&["run", "--worktree=sum", "--commit", "fix it"]);
    for name in ["AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"] {
        command.env_remove(format!("GIT_{name}"));
    }
    let seen = world.tell(&command.output().unwrap());
    assert!(seen.starts_with("exit 2\n") && seen.contains("cannot use --commit here"), "{seen}");
    assert_eq!(world.git(&["branch", "--list", "agent/*"]), "");
    assert!(!world.repo().with_file_name("repo.worktrees").exists());
}

#[test]
fn bug_a_secret_in_the_task_was_committed() {
    let world = World::with_a_bug();
    let secret = format!("ghp_{}", "a1B2c3D4e5F6".repeat(3));
    let (output, _) = run(&world, &["--commit", &format!("Fix the sum for {secret}")], &fixes(), "");
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let log = world.git(&["log", "-1", "--format=%B"]);
    assert!(log.starts_with("Fix the sum for ") && !log.contains(&secret), "{log}");
}

#[test]
fn bug_git_ran_a_filter_of_a_repository_that_the_model_made_in_a_submodule() {
    let escape = |flags: &[&str]| {
        let world = World::with_a_bug();
        let head = world.git(&["rev-parse", "HEAD"]);
        world.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", head.trim())]);
        world.git(&["commit", "--quiet", "--message=a submodule"]);
        let marker = world.home().join("escaped");
        let plant = format!(
            "mkdir -p sub && cd sub && git init -q && echo '* filter=x' > .gitattributes && echo a > f && \
             git add -A && git -c user.name=x -c user.email=x@y commit -qm x && \
             git config filter.x.clean 'touch {}; cat' && echo bb > f",
            marker.display()
        );
        let [fix, finish] = fixes();
        let command = crate::support::call("run_command", json!({"command": plant}));
        let (output, _) = run(&world, &[flags, &["fix it"]].concat(), &[command, fix, finish], "");
        assert!(!marker.exists(), "{}", world.tell(&output));
        world
    };
    escape(&["--worktree=sum"]);
    escape(&["--worktree=sum", "--commit"]);
    let world = escape(&["--commit"]);
    // The next run finds the planted repository when it starts.
    world.git(&["checkout", "--quiet", "--", "add.sh"]);
    let (output, _) = run(&world, &["--commit", "fix it"], &fixes(), "");
    assert!(!world.home().join("escaped").exists(), "{}", world.tell(&output));
}

#[test]
fn bug_ignored_files_were_removed_with_a_worktree() {
    let world = World::with(&[(".gitignore", "out/\n")]);
    let answers = [
        crate::support::call("run_command", json!({"command": "mkdir out && echo report > out/report.md"})),
        finish(),
        finish(),
        finish(),
    ];
    let (output, _) = run(&world, &["--worktree=report", "write a report"], &answers, "");
    let report = world.repo().with_file_name("repo.worktrees").join("report/out/report.md");
    assert!(report.exists(), "{}", world.tell(&output));
}

#[test]
fn a_worktree_without_changes_is_removed_with_its_branch() {
    let world = World::with_a_bug();
    let (output, _) = run(&world, &["--worktree", "fix it"], &[finish(), finish(), finish()], "");
    let seen = world.tell(&output);
    assert!(seen.contains("removed the worktree and its branch"), "{seen}");
    assert!(!world.repo().with_file_name("repo.worktrees").exists());
    assert_eq!(world.git(&["branch", "--list", "agent/*"]), "");
    for name in ["../x", "", ".x", "a b", "x.lock"] {
        let (output, _) = run(&world, &[&format!("--worktree={name}"), "fix it"], &[], "");
        if !name.is_empty() {
            assert!(world.tell(&output).contains("invalid worktree name"), "{name}");
        }
    }
    assert_eq!(world.git(&["branch", "--list", "agent/*"]), "");
}

#[test]
fn a_verified_run_is_committed_with_the_task_as_message() {
    let world = World::with_a_bug();
    world.write_user_settings(
        "commit_author = 'Agent <agent@example.org>'\ncommit_trailer = 'Assisted-by: agent'\n",
    );
    world.write("other.txt", "the user's own change\n");
    let (output, _) = run(&world, &["--commit", "Make add add."], &fixes(), "");
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let log = world.git(&["log", "-1", "--format=%an <%ae>|%s|%b", "--name-only"]);
    let [about, .., file] = log.trim().lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
    assert!(about.starts_with("Agent <agent@example.org>|Make add add|"), "{log}");
    assert!(log.contains("Assisted-by: agent") && file == "add.sh", "{log}");
    assert_eq!(world.git(&["status", "--porcelain"]), "?? other.txt\n");
}

#[test]
fn a_commit_has_new_and_deleted_files_but_not_what_the_user_staged() {
    let world = World::with_a_bug();
    world.write("old.txt", "old\n");
    world.git(&["add", "old.txt"]);
    world.git(&["commit", "--quiet", "--message=more"]);
    world.write("staged.txt", "staged by the user\n");
    world.git(&["add", "staged.txt"]);
    let patch = "*** Begin Patch\n*** Add File: new.txt\n+new\n*** Delete File: old.txt\n*** End Patch";
    let change = crate::support::call("apply_patch", json!({"patch": patch}));
    let [fix, finish] = fixes();
    let (output, _) = run(&world, &["--commit", "fix it"], &[change, fix, finish], "");
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(
        world.git(&["show", "--format=", "--name-status"]),
        "M\tadd.sh\nA\tnew.txt\nD\told.txt\n",
        "{}",
        world.tell(&output)
    );
    assert_eq!(world.git(&["status", "--porcelain"]), "A  staged.txt\n");
}

#[test]
fn a_file_that_was_dirty_before_the_run_is_not_committed() {
    let world = World::with_a_bug();
    world.write("add.sh", "# mine\nadd() {\n    echo $(($1 - $2))\n}\n");
    let (output, _) = run(&world, &["--commit", "fix it"], &fixes(), "");
    let seen = world.tell(&output);
    assert!(seen.contains("not committed: add.sh had uncommitted changes before the run"), "{seen}");
    assert_eq!(world.git(&["log", "--format=%s"]), "start\n");
}

#[test]
fn an_unverified_run_is_not_committed() {
    let world = World::with_a_bug();
    let answers = [edit("$1 - $2", "$1 * $2"), finish(), finish(), finish(), finish()];
    let (output, _) = run(&world, &["--commit", "fix it"], &answers, "");
    let seen = world.tell(&output);
    assert!(seen.contains("not committed, because the run ended as \"unverified\""), "{seen}");
    assert_eq!(world.git(&["log", "--format=%s"]), "start\n");
}

#[test]
fn a_commit_runs_no_hook_that_the_model_could_have_written() {
    let world = World::with_a_bug();
    world.write(".husky/pre-commit", "#!/bin/sh\ntouch \"$HOME/hook-ran\"\n");
    let hook = world.repo().join(".husky/pre-commit");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::copy(&hook, world.repo().join(".husky/post-commit")).unwrap();
    world.git(&["config", "core.hooksPath", ".husky"]);
    world.git(&["config", "commit.gpgSign", "true"]);
    let (output, _) = run(&world, &["--commit", "fix it"], &fixes(), "");
    assert!(world.tell(&output).contains("committed as "), "{}", world.tell(&output));
    assert!(!world.home().join("hook-ran").exists());
}

#[test]
fn a_worktree_and_a_commit_work_together() {
    let world = World::with_a_bug();
    let (output, _) = run(&world, &["--worktree=sum", "--commit", "--issue", "-"], &fixes(), ISSUE);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.git(&["log", "-1", "--format=%s", "agent/sum"]), "add subtracts\n");
    assert_eq!(world.git(&["log", "-1", "--format=%s", "main"]), "start\n");
}
