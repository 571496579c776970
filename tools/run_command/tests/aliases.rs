//! Commands as other agents write them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use sandbox::{Policy, Sandbox};
use serde_json::{Value, json};
use tool_api::Registry;
use tool_run_command::{Options, RunCommand};

fn accepted(tool: &str, arguments: &Value) -> Result<Value, String> {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("aliases");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let sandbox = Sandbox::new(Policy::new(&folder), vec!["unused".into()]).unwrap();
    let options = Options { log_dir: folder.join("logs"), timeout: Duration::from_secs(1) };
    let registry = Registry::new().with(RunCommand::new(sandbox, options));
    registry.accept(tool, arguments).map(|accepted| accepted.arguments).map_err(|refusal| refusal.message)
}

#[test]
fn commands_of_other_agents_are_commands() {
    for (tool, arguments, line) in [
        ("run_command", json!({"cmd": "echo hi"}), "echo hi"),
        ("bash", json!({"command": "ls -la", "timeout": 1000, "description": "List"}), "ls -la"),
        ("Bash", json!({"command": "ls", "run_in_background": false}), "ls"),
        ("shell", json!({"command": ["bash", "-lc", "cd x && ls"], "workdir": "."}), "bash -lc 'cd x && ls'"),
        ("shell", json!({"command": ["echo", "it's"]}), r"echo 'it'\''s'"),
        ("execute_command", json!({"command": "ls", "requires_approval": "false"}), "ls"),
        ("run_terminal_cmd", json!({"command": "ls", "is_background": "false", "explanation": "x"}), "ls"),
        ("functions.exec_command", json!({"command": "git", "args": ["status", "-s"]}), "git status -s"),
        ("run_commands", json!({"commands": ["make"]}), "make"),
        ("runInTerminal", json!({"command": "ls", "isBackground": false}), "ls"),
    ] {
        assert_eq!(accepted(tool, &arguments), Ok(json!({"command": line})), "{tool} {arguments}");
    }
    assert_eq!(
        accepted("bash", &json!({"command": "ls", "cwd": "src"})),
        Ok(json!({"command": "ls", "workdir": "src"}))
    );
}

#[test]
fn what_a_command_cannot_be_given_is_refused_with_a_sentence() {
    for (arguments, why) in [
        (json!({"command": "sleep 9", "background": true}), "background"),
        (json!({"command": "sleep 9", "is_background": "true"}), "background"),
        (json!({"command": "ls", "cwd": "/etc"}), "not a folder of the repository"),
        (json!({"command": "ls", "cwd": "../.."}), "not a folder of the repository"),
        (json!({"command": "ls", "cwd": "nowhere"}), "no folder"),
        (json!({"command": ["ls", "|", "wc"]}), "one line"),
        (json!({"commands": ["cd x", "ls"]}), "one command"),
        (json!({"command": "a && b", "args": ["c"]}), "one line"),
        (json!({"command": "ls", "cmd": "rm x"}), "same argument"),
        (json!({"command": "ls", "with_escalated_permissions": true}), "sandbox"),
        (json!({"restart": true}), "nothing is to be restarted"),
        (json!({"command": "ls", "surprise": 1}), "no argument \"surprise\"; its arguments are command"),
    ] {
        let refused = accepted("bash", &arguments).unwrap_err();
        assert!(refused.contains(why), "{arguments}: {refused}");
    }
}
