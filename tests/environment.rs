//! Environment variables that the user passes to commands and tests (issue 9, bug 9).

use std::process::Output;

use fake_model::{Reply, Server};
use serde_json::json;

use crate::support::{World, call};

const URL: &str = "postgres://tester:kq7Zx2Vw9@localhost/test";

/// Creates a repository whose check prints `DATABASE_URL` and fails if it is not set.
fn world() -> World {
    let check = "echo \"with $DATABASE_URL\"\n[ -n \"$DATABASE_URL\" ] && grep -q 5 app.py\n";
    World::with(&[
        (".agent.toml", "verify = 'sh check.sh'\n"),
        ("app.py", "RETRIES = 3\n"),
        ("check.sh", check),
    ])
}

fn server() -> Server {
    let server = Server::start();
    server.enqueue(Reply::text(call("run_command", json!({"command": "echo \"got $DATABASE_URL\""}))));
    let edit = json!({"edits": [{"path": "app.py", "search": "3", "replace": "5"}]});
    server.enqueue(Reply::text(call("apply_patch", edit)));
    server.enqueue(Reply::text(call("finish", json!({}))));
    server
}

fn run(world: &World, server: &Server, flags: &[&str], url: Option<&str>) -> Output {
    let mut all = vec!["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    all.extend(flags);
    all.push("Set RETRIES to 5.");
    world
        .agent(&all)
        .env("OLLAMA_HOST", server.url())
        .envs(url.map(|url| ("DATABASE_URL", url)))
        .output()
        .unwrap()
}

/// Checks that the value reached the commands and the verification, but not the model, the journal
/// or the screen.
fn used_and_hidden(world: &World, server: &Server, output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(output));
    let journal: Vec<_> = world.journal().iter().map(ToString::to_string).collect();
    let got = journal.iter().find(|line| line.contains("got [secret-"));
    assert!(got.is_some(), "{journal:#?}");
    for (i, request) in server.requests().iter().enumerate() {
        assert!(!String::from_utf8_lossy(&request.body).contains("kq7Zx2Vw9"), "request {i}");
    }
    for line in &journal {
        assert!(!line.contains("kq7Zx2Vw9"), "{line}");
    }
    assert!(!world.tell(output).contains("kq7Zx2Vw9"));
}

#[test]
fn bug_9_tests_get_only_the_variables_that_the_user_names() {
    let (world, server) = (world(), server());
    let output = run(&world, &server, &["--max-turns", "3"], Some(URL));
    assert_ne!(output.status.code(), Some(0), "{}", world.tell(&output));
}

#[test]
fn bug_9_a_name_passes_the_callers_value_to_commands_and_the_verification() {
    let (world, server) = (world(), server());
    let output = run(&world, &server, &["--env", "DATABASE_URL"], Some(URL));
    used_and_hidden(&world, &server, &output);
    let settings = &world.journal()[0]["settings"];
    assert!(settings.as_array().unwrap().contains(&json!(["env", "DATABASE_URL"])), "{settings}");
}

#[test]
fn bug_9_a_value_comes_from_a_flag_or_the_users_file() {
    let (world, server) = (world(), server());
    let assigned = format!("DATABASE_URL={URL}");
    let output = run(&world, &server, &["--env", &assigned], None);
    used_and_hidden(&world, &server, &output);

    let (world, server) = (self::world(), self::server());
    world.write_user_settings(&format!("[env]\nDATABASE_URL = '{URL}'\n"));
    let output = run(&world, &server, &[], None);
    used_and_hidden(&world, &server, &output);
}

#[test]
fn bug_9_a_batch_passes_variables_to_its_tasks() {
    let (world, server) = (world(), server());
    let tasks = world.home().join("tasks.jsonl");
    let task = "Set RETRIES to 5.";
    let task = json!({"id": "one", "repo": world.repo(), "task": task, "verify": "sh check.sh"});
    std::fs::write(&tasks, task.to_string()).unwrap();
    let mut args = vec!["batch", tasks.to_str().unwrap(), "--env", "DATABASE_URL"];
    args.extend(["--model", "deepseek-coder:6.7b", "--approach", "tools"]);
    let variables = [("OLLAMA_HOST", server.url()), ("DATABASE_URL", URL.to_owned())];
    let output = world.agent(&args).envs(variables).output().unwrap();
    used_and_hidden(&world, &server, &output);
}

#[test]
fn bug_9_a_resumed_run_passes_the_same_names() {
    let (world, server) = (world(), server());
    let output = run(&world, &server, &["--env", "DATABASE_URL", "--max-turns", "1"], Some(URL));
    assert_eq!(output.status.code(), Some(4), "{}", world.tell(&output));
    let variables = [("OLLAMA_HOST", server.url()), ("DATABASE_URL", URL.to_owned())];
    let resumed = world.agent(&["resume", "last", "--max-turns", "9"]).envs(variables).output().unwrap();
    used_and_hidden(&world, &server, &resumed);
}

/// The bug: new variables replaced the recorded names instead of being added to them.
#[test]
fn variables_given_on_resume_are_added_to_the_recorded_ones_and_replace_those_of_the_same_name() {
    for (flag, url) in [("OTHER=1".to_owned(), Some(URL)), (format!("DATABASE_URL={URL}"), Some("old"))] {
        let (world, server) = (world(), server());
        world.write("check.sh", &format!("[ \"$DATABASE_URL\" = {URL} ] && grep -q 5 app.py\n"));
        let output = run(&world, &server, &["--env", "DATABASE_URL", "--max-turns", "1"], url);
        assert_eq!(output.status.code(), Some(4), "{}", world.tell(&output));
        let mut resume = world.agent(&["resume", "last", "--max-turns", "9", "--env", &flag]);
        let resumed = resume.env("OLLAMA_HOST", server.url()).envs(url.map(|url| ("DATABASE_URL", url)));
        let output = resumed.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    }
}

#[test]
fn bug_9_the_settings_of_a_repository_may_not_set_variables() {
    let world = World::with(&[(".agent.toml", "[env]\nPATH = '.'\n")]);
    let seen = world.observe(&["run", "x"]);
    assert!(
        seen.starts_with("exit 2\n") && seen.contains(".agent.toml:1: a repository may not set env"),
        "{seen}"
    );
}

#[test]
fn bug_9_the_sandbox_command_takes_variables_too() {
    let world = World::new();
    let print = ["sandbox", "--env", "A=x=y", "--env", "B", "--", "sh", "-c", "echo \"$A $B $C\""];
    let output = world.agent(&print).envs([("B", "b"), ("C", "c")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x=y b \n", "{}", world.tell(&output));
}

#[test]
fn a_variable_that_is_not_set_causes_a_warning_and_the_value_of_an_invalid_name_is_not_shown() {
    let world = World::new();
    let seen = world.observe(&["config", "show", "--env", "DATABASE_URL"]);
    assert!(seen.contains("warning: DATABASE_URL is not passed to commands: it is not set"), "{seen}");
    assert!(seen.contains("env                 DATABASE_URL: (passed on)"), "{seen}");
    let seen = world.observe(&["run", "--env", "DATABASE-URL=secret-value", "x"]);
    assert!(seen.contains("--env must be NAME or NAME=VALUE"), "{seen}");
    assert!(!seen.contains("secret-value"), "{seen}");
}

/// The bug: an empty value for `--env` was ignored.
#[test]
fn an_empty_variable_is_an_error_that_says_what_to_write() {
    let seen = World::new().observe(&["run", "--env", "", "x"]);
    assert!(seen.starts_with("exit 2\n"), "{seen}");
    assert!(seen.contains("the value of --env is empty; write --env \"NAME[=VALUE]\""), "{seen}");
}
