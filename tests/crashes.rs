//! Kills a long session at various points and resumes it. Checks that it ends up with the same
//! files, and sends the same requests, as an uninterrupted session.
//!
//! By default, the tests kill the session only at a sample of these points. `CRASHES=all` kills it
//! after every journal line and at every system call that writes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::{Value, json};
use traced::{CHANGES, End, Scope};

pub(crate) const RUN: [&str; 8] = [
    "run",
    "--json",
    "--model",
    "deepseek-coder:6.7b",
    "--approach",
    "tools",
    "--num-ctx=5600",
    "Make the tests pass.",
];

/// Returns thirty model answers. They use every tool and every edit format, and include mistakes
/// that models often make.
fn answers() -> Vec<String> {
    let edit = |search: &str, replace: &str| json!({"edits": [{"path": "add.sh", "search": search, "replace": replace}]});
    let patch = |patch: &str| call("apply_patch", json!({ "patch": patch }));
    let command = |command: &str| call("run_command", json!({ "command": command }));
    let make = "mkdir -p gen; for i in 1 2 3; do echo $i > gen/$i.txt; done; echo made";
    vec![
        call("read_file", json!({"path": "add.sh"})),
        call("search", json!({"pattern": "echo"})),
        call("list_files", json!({})),
        call("apply_patch", edit("$1 - $2", "$1 * $2")),
        "I will look at it again.".into(),
        patch("--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n nowhere(a)\n-nowhere(b)\n-nowhere(c)\n+here\n"),
        call("run_tests", json!({})),
        patch(
            "*** Begin Patch\n*** Add File: notes.txt\n+fixed\n*** Update File: mul.sh\n@@\n-    echo $(($1 + $2))\n+    echo $(($1 * $2))\n*** Delete File: old/one.txt\n*** End Patch\n",
        ),
        patch(
            "diff --git a/old/two.txt b/new/two.txt\nsimilarity index 50%\nrename from old/two.txt\nrename to new/two.txt\n--- a/old/two.txt\n+++ b/new/two.txt\n@@ -1,2 +1,2 @@\n two\n-lines\n+other lines\n",
        ),
        command(make),
        // Run the command twice: if a kill interrupts the first run, the second run still writes
        // all of its files.
        command(make),
        call("apply_patch", json!({"path": "README.md", "content": "# Sums\n\nAdds and multiplies.\n"})),
        call("read_file", json!({"path": "docs/long.txt", "start_line": 40, "end_line": 60})),
        "{\"tool\": \"read_file\", \"arguments\": {\"path\": }}".into(),
        call(
            "apply_patch",
            json!({"edits": [
                {"path": "README.md", "search": "Adds and", "replace": "Adds, and"},
                {"path": "docs/long.txt", "search": "line 50\n", "replace": "line fifty\n"},
            ]}),
        ),
        patch(
            "--- a/docs/long.txt\n+++ b/docs/long.txt\n@@ -1,2 +1,2 @@\n-line 1\n+line one\n line 2\n@@ -99,2 +99,2 @@\n line 99\n-line 100\n+line hundred\n",
        ),
        patch("mul.sh\n<<<<<<< SEARCH\nmul() {\n=======\n# Multiplies.\nmul() {\n>>>>>>> REPLACE\n"),
        patch(
            "diff --git a/bin/tool.sh b/bin/tool.sh\nnew file mode 100755\n--- /dev/null\n+++ b/bin/tool.sh\n@@ -0,0 +1,2 @@\n+#!/bin/sh\n+echo tool\n",
        ),
        patch("--- a/notes.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-fixed\n"),
        call("apply_patch", json!({"path": ".git/config", "content": "[alias]\n"})),
        call("finish", json!({"summary": "not yet"})),
        call("read_file", json!({"path": "docs/long.txt"})),
        call("apply_patch", edit("$1 * $2", "$1 / $2")),
        call("list_files", json!({"path": "gen"})),
        call("apply_patch", json!({"edits": [{"path": "dos.txt", "search": "two\n", "replace": "zwei\n"}]})),
        command("git reset --hard"),
        call("apply_patch", edit("$1 / $2", "$1 + $2")),
        call("read_file", json!({"path": "add.sh"})),
        call("run_tests", json!({})),
        call("finish", json!({"summary": "fixed"})),
    ]
}

pub(crate) fn world() -> World {
    let long: String = (1..=100).map(|n| format!("line {n}\n")).collect();
    World::with(&[
        (".agent.toml", "verify = 'sh check.sh'\n"),
        ("add.sh", "add() {\n    echo $(($1 - $2))\n}\n"),
        ("mul.sh", "mul() {\n    echo $(($1 + $2))\n}\n"),
        ("dos.txt", "one\r\ntwo\r\nthree\r\n"),
        ("docs/long.txt", &long),
        ("old/one.txt", "one\n"),
        ("old/two.txt", "two\nlines\n"),
        (
            "check.sh",
            ". ./add.sh\n. ./mul.sh\n[ \"$(mul 2 3)\" = 6 ] || { echo \"mul 2 3 is $(mul 2 3), not 6\"; exit 1; }\n[ \"$(add 2 3)\" = 5 ] || { echo \"add 2 3 is $(add 2 3), not 5\"; exit 1; }\n",
        ),
    ])
}

/// Starts a server that gives the next answer to each new request, and repeats the last answer if
/// the request is repeated.
pub(crate) fn server() -> Server {
    let server = Server::start();
    let (answers, asked) = (answers(), Mutex::new((Vec::new(), 0)));
    server.fallback(Reply::from_fn(move |request| {
        let mut asked = asked.lock().unwrap();
        if asked.0 != request.body {
            *asked = (request.body.clone(), asked.1 + 1);
        }
        Reply::text(answers.get(asked.1 - 1).cloned().unwrap_or_else(|| call("finish", json!({}))))
    }));
    server
}

pub(crate) fn agent(world: &World, server: &Server, args: &[&str]) -> Command {
    let mut command = world.agent(args);
    command.env("OLLAMA_HOST", server.url()).stderr(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Adds every file in a folder to `out`, with its mode and content. Skips `.git`.
fn tree(folder: &Path, prefix: &str, out: &mut BTreeMap<String, (u32, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let meta = entry.metadata().unwrap();
        if name == ".git" {
        } else if meta.is_dir() {
            tree(&entry.path(), &format!("{name}/"), out);
        } else {
            out.insert(name, (meta.permissions().mode(), fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// The outcome of a session: the files in the repository, and the requests to the model.
#[derive(PartialEq)]
pub(crate) struct Outcome {
    tree: BTreeMap<String, (u32, String)>,
    /// The exact requests, without consecutive duplicates.
    asked: Vec<Value>,
}

const INTERRUPTED: &str = "interrupted: the agent was stopped while this ran";

impl Outcome {
    pub(crate) fn of(world: &World, server: &Server) -> Self {
        let mut files = BTreeMap::new();
        tree(&world.repo(), "", &mut files);
        let mut asked: Vec<Value> =
            server.chats().into_iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
        asked.dedup();
        Self { tree: files, asked }
    }

    /// Returns the first difference from `wanted`, ignoring the results of interrupted commands.
    pub(crate) fn difference(&self, wanted: &Self) -> Option<String> {
        for (path, file) in wanted.tree.iter().chain(&self.tree) {
            if self.tree.get(path) != wanted.tree.get(path) {
                return Some(format!("{path}: {file:?}"));
            }
        }
        if self.asked.len() != wanted.asked.len() {
            return Some(format!("{} requests, not {}", self.asked.len(), wanted.asked.len()));
        }
        for (n, (asked, wanted)) in (1..).zip(self.asked.iter().zip(&wanted.asked)) {
            let (Some(a), Some(b)) = (asked["messages"].as_array(), wanted["messages"].as_array()) else {
                return Some(format!("request {n} has no messages"));
            };
            let told = |m: &Value| m["content"].as_str().is_some_and(|text| text.contains(INTERRUPTED));
            // In the list of omitted steps, also ignore the lines about commands.
            let text = |m: &Value| -> Vec<String> {
                let lines = m["content"].as_str().unwrap_or_default().lines();
                lines.filter(|line| !line.starts_with("- run_command ")).map(str::to_owned).collect()
            };
            let same = |a: &Value, b: &Value| a["role"] == b["role"] && text(a) == text(b);
            if a.len() != b.len() || a.iter().zip(b).any(|(a, b)| !same(a, b) && !told(a)) {
                return Some(format!("request {n}: {asked:#} instead of {wanted:#}"));
            }
        }
        None
    }
}

/// Runs a session without interrupting it. Returns its outcome and the number of lines in its
/// journal.
pub(crate) fn whole() -> (Outcome, usize) {
    let (world, server) = (world(), server());
    let output = agent(&world, &server, &RUN).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let outcome = Outcome::of(&world, &server);
    assert_eq!(outcome.asked.len(), answers().len(), "{}", text(&output));
    (outcome, world.journal().len())
}

/// Resumes the session, and returns the first difference between its outcome and `wanted`.
fn resumed(world: &World, server: &Server, wanted: &Outcome) -> Option<String> {
    let output = agent(world, server, &["resume"]).stderr(Stdio::piped()).output().unwrap();
    let printed = text(&output);
    if printed.contains("there is no session") || printed.contains("the session is empty") {
        // The agent was killed before it wrote anything. The tree is unchanged, so start a new run.
        let output = agent(world, server, &RUN).stderr(Stdio::piped()).output().unwrap();
        if output.status.code() != Some(0) {
            return Some(text(&output));
        }
    } else if output.status.code() != Some(0) && !printed.contains("the session has ended: verified") {
        return Some(printed);
    }
    Outcome::of(world, server).difference(wanted)
}

/// Returns the step between tested points: `n` by default, 1 with `CRASHES=all`, or `4 * n` with
/// `CRASHES=few`.
fn sample(n: usize) -> usize {
    match std::env::var("CRASHES").as_deref() {
        Ok("all") => 1,
        Ok("few") => 4 * n,
        _ => n,
    }
}

/// Starts the run and kills it after this many events. Returns whether there were that many.
fn killed_after(mut command: Command, lines: usize) -> bool {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let read = BufReader::new(child.stdout.take().unwrap()).lines().take(lines).count();
    let _ = child.kill();
    child.wait().unwrap();
    read == lines
}

#[test]
fn a_session_killed_after_a_journal_line_ends_as_if_uninterrupted() {
    let (wanted, lines) = whole();
    let mut wrong = Vec::new();
    for line in (1..lines).step_by(sample(11)) {
        let (world, server) = (world(), server());
        assert!(killed_after(agent(&world, &server, &RUN), line));
        wrong.extend(resumed(&world, &server, &wanted).map(|why| format!("after line {line}: {why}")));
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_session_killed_at_a_write_ends_as_if_uninterrupted() {
    let (wanted, _) = whole();
    let (mut wrong, mut kills) = (Vec::new(), 0);
    let step = sample(37);
    for n in (1..).step_by(step) {
        let (world, server) = (world(), server());
        let mut writes = 0;
        // Killing before each call also covers killing right after the previous one.
        let end = traced::kill_when(agent(&world, &server, &RUN), Scope::Program, |stop| {
            writes += usize::from(!stop.done && CHANGES.contains(&stop.call));
            writes == n
        });
        wrong.extend(resumed(&world, &server, &wanted).map(|why| format!("at write {n}, {end}: {why}")));
        if end == End::Finished {
            break;
        }
        kills += 1;
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(kills * step > 800, "too few places to kill the run: {kills}");
}

#[test]
fn a_session_killed_repeatedly_ends_as_if_uninterrupted() {
    let (wanted, _) = whole();
    let (world, server) = (world(), server());
    let mut kills = 0;
    loop {
        let args: &[&str] = if kills == 0 { &RUN } else { &["resume", "--json"] };
        // Let each process make more changes than it takes just to resume, so that the session
        // advances a little before the next kill.
        let mut left = 60 + kills * 13 % 50;
        let end = traced::kill_when(agent(&world, &server, args), Scope::Program, |stop| {
            left -= usize::from(!stop.done && CHANGES.contains(&stop.call));
            left == 0
        });
        if end == End::Finished {
            break;
        }
        kills += 1;
        assert!(kills < 200, "the run should make progress");
    }
    let difference = resumed(&world, &server, &wanted);
    assert!(difference.is_none(), "{}", difference.unwrap_or_default());
    assert!(kills > 8, "only {kills} kills");
}

/// Kills a run at its `n`th rename. The run makes a single edit that changes three files, which
/// takes several renames.
fn killed_in_an_edit(n: usize) -> (World, bool) {
    let (world, server) = (world(), Server::start());
    let edit = |path: &str, search: &str| json!({"path": path, "search": search, "replace": "changed"});
    let edits = [edit("add.sh", "$1 - $2"), edit("mul.sh", "$1 + $2"), edit("old/one.txt", "one")];
    server.enqueue(Reply::text(call("apply_patch", json!({ "edits": edits }))));
    let mut renames = 0;
    let end = traced::kill_when(agent(&world, &server, &RUN), Scope::Program, |stop| {
        let rename = [libc::SYS_renameat2, libc::SYS_renameat].contains(&stop.call) && stop.done;
        renames += usize::from(rename);
        renames == n
    });
    (world, end != End::Finished)
}

#[test]
fn the_next_command_rolls_back_the_interrupted_edit_of_a_killed_run() {
    let whole = |world: &World| {
        let changed = ["add.sh", "mul.sh", "old/one.txt"].map(|path| world.read(path).contains("changed"));
        assert!(changed == [true; 3] || changed == [false; 3], "{changed:?}");
        changed[0]
    };
    let mut half = 0;
    for n in 1..7 {
        let (world, killed) = killed_in_an_edit(n);
        assert!(killed, "there is no rename {n}");
        let changed = ["add.sh", "mul.sh", "old/one.txt"].map(|path| world.read(path).contains("changed"));
        half += usize::from(changed != [true; 3] && changed != [false; 3]);
        if n % 2 == 0 {
            let server = Server::start();
            server.enqueue("I give up.");
            let mut next = agent(
                &world,
                &server,
                &["run", "--model", "deepseek-coder:6.7b", "--max-turns=1", "Something else."],
            );
            let output = text(&next.stderr(Stdio::piped()).output().unwrap());
            assert!(
                output.contains("was killed while working here; to resume it: agent resume "),
                "{output}"
            );
        } else {
            let patch = "--- a/README.md\n+++ b/README.md\n@@ -0,0 +1 @@\n+new\n";
            let seen = world.observe_with_input(&["patch", "-"], patch.as_bytes());
            assert!(seen.contains("was killed while working here"), "{seen}");
        }
        whole(&world);
    }
    assert!(half > 0, "at least one kill should hit the middle of the edit");
}
