//! Tests the tool from the outside: makes calls and checks their outcomes. Real commands run in the
//! sandbox.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{fs, path::PathBuf, time::Duration};

use sandbox::{Policy, Sandbox, clean_environment};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Outcome, Registry, Status, ToolError, TypedTool};
use tool_run_command::{Options, RunCommand};

struct Repository {
    dir: tempfile::TempDir,
    timeout: Duration,
}

impl Repository {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(dir.path().join("repo")).unwrap();
        Self { dir, timeout: Duration::from_secs(60) }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn tools(&self, launcher: &str) -> Registry {
        let env = clean_environment(std::env::vars_os(), &[]);
        let launcher = vec![launcher.into(), "__sandbox".into()];
        let sandbox = Sandbox::new(Policy { env, ..Policy::new(self.root()) }, launcher).unwrap();
        let options = Options {
            log_dir: self.dir.path().join("logs"),
            timeout: self.timeout,
            secrets: Secrets::disabled(),
        };
        Registry::of([RunCommand::new(sandbox, options).into_tool()]).unwrap()
    }

    /// Runs a command with secrets masked.
    async fn run_masked(&self, line: &str) -> Outcome {
        let env = clean_environment(std::env::vars_os(), &[]);
        let launcher = vec![env!("CARGO_BIN_EXE_run_command").into(), "__sandbox".into()];
        let sandbox = Sandbox::new(Policy { env, ..Policy::new(self.root()) }, launcher).unwrap();
        let options = Options {
            log_dir: self.dir.path().join("logs"),
            timeout: self.timeout,
            secrets: Secrets::new("s", Vec::new()),
        };
        let tool = RunCommand::new(sandbox, options);
        Registry::of([tool.into_tool()])
            .unwrap()
            .call("run_command", json!({ "command": line }))
            .await
            .unwrap()
    }

    async fn run(&self, line: &str) -> Outcome {
        self.call(json!({ "command": line })).await.unwrap()
    }

    async fn call(&self, arguments: Value) -> Result<Outcome, ToolError> {
        self.tools(env!("CARGO_BIN_EXE_run_command")).call("run_command", arguments).await
    }
}

#[tokio::test]
async fn output_and_exit_code_are_returned() {
    let repository = Repository::new();
    let outcome = repository.run("echo out; echo err >&2").await;
    assert_eq!((outcome.status, outcome.text.as_str()), (Status::Ok, "Exit code 0.\nout\nerr"));
    let outcome = repository.run("exit 7").await;
    assert_eq!(
        (outcome.status, outcome.text.as_str()),
        (Status::Failed, "Failed with exit code 7. No output.")
    );
    assert_eq!(outcome.facts["exit_code"], 7);
}

#[tokio::test]
async fn long_output_keeps_both_ends_and_a_log_has_all_of_it() {
    let repository = Repository::new();
    let outcome = repository.run("seq 1 100000").await;
    assert!(outcome.text.starts_with("Exit code 0.\n1\n2\n"), "{}", outcome.text);
    assert!(
        outcome.text.contains("lines left out …]\n")
            && outcome.text.contains("\n100000\n[100000 lines; narrow")
    );
    assert!(outcome.text.len() < 9_000);
    let log = repository.dir.path().join("logs/command-1.log");
    assert_eq!(outcome.facts["log"], log.to_str().unwrap());
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 100_000);
}

#[tokio::test]
async fn a_very_long_line_is_truncated_too() {
    let outcome = Repository::new().run("head -c 1000000 /dev/zero | tr '\\0' x").await;
    assert!(outcome.text.contains("bytes left out") && outcome.text.len() < 9_000, "{}", outcome.text.len());
}

#[tokio::test]
async fn a_command_that_hangs_is_stopped_with_advice() {
    let repository = Repository { timeout: Duration::from_secs(1), ..Repository::new() };
    let outcome = repository.run("echo serving; exec sleep 1000").await;
    assert_eq!((outcome.status, &outcome.facts["timed_out"]), (Status::Failed, &json!(true)));
    assert!(outcome.text.starts_with("Stopped after 1 s. A command must exit by itself"), "{}", outcome.text);
    assert!(outcome.text.ends_with("\nserving"));
}

#[tokio::test]
async fn files_are_written_in_the_work_tree_and_nowhere_else() {
    let repository = Repository::new();
    // Commands have their own /tmp, so the second write may succeed there.
    repository.run("echo a > file && echo b > ../outside").await;
    assert!(repository.root().join("file").exists() && !repository.dir.path().join("outside").exists());
}

#[tokio::test]
async fn destructive_commands_are_refused_before_and_during_the_call() {
    let repository = Repository::new();
    let tools = repository.tools(env!("CARGO_BIN_EXE_run_command"));
    let refusal = tools
        .open("run_command")
        .unwrap()
        .field("command", &json!("timeout 5 git reset --hard"))
        .unwrap_err();
    assert!(refusal.message.starts_with("git reset is refused in this form"), "{}", refusal.message);
    for line in ["rm -rf .", "", "  "] {
        assert!(
            matches!(repository.call(json!({ "command": line })).await, Err(ToolError::Model(_))),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn a_failing_sandbox_stops_the_run() {
    let error = Repository::new()
        .tools("/bin/false")
        .call("run_command", json!({"command": "true"}))
        .await
        .unwrap_err();
    assert!(matches!(error, ToolError::Run(_)), "{error}");
}

#[test]
fn the_schema_is_small() {
    let repository = Repository::new();
    let tools = repository.tools("/bin/false");
    let spec = tools.spec("run_command").unwrap();
    let size = spec.description.len() + spec.shown_schema().len();
    assert!(size < 230, "{size}: {}", spec.shown);
}

#[tokio::test]
async fn a_secret_is_masked_even_if_the_output_was_cut_in_its_middle() {
    let repository = Repository::new();
    let token = ["ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv"].concat();
    // The tool keeps 4,096 bytes at each end of the output. A token has 40 characters: the first 16
    // of the first token are kept, and the last 16 of the second.
    let line = format!("printf '%4079s %s %20000s %s %4078s.' '' {token} '' {token} ''");
    let plain = repository.run(&line).await.text;
    assert!(plain.contains(&token[..8]) && plain.contains(&token[32..]), "{plain}");
    let outcome = repository.run_masked(&line).await;
    assert!(outcome.text.contains("left out"), "{}", outcome.text);
    assert!(!outcome.text.contains(&token[..8]) && !outcome.text.contains(&token[32..]), "{}", outcome.text);
    let outcome = repository.run_masked(&format!("echo it is {token}")).await;
    assert!(outcome.text.starts_with("Exit code 0.\nit is [secret-"), "{}", outcome.text);
}
