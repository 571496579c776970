//! Tests calls to `run_command` in the formats that other agents use.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::time::Duration;

use sandbox::{Policy, Sandbox};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Effect, Outcome, Registry, Spec, ToolError, TypedTool};
use tool_run_command::{Options, RunCommand};

fn folder() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("aliases")
}

fn registry() -> Registry {
    let folder = folder();
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let sandbox = Sandbox::new(Policy::new(&folder), vec!["unused".into()]).unwrap();
    let options = Options {
        log_dir: folder.join("logs"),
        timeout: Duration::from_secs(1),
        secrets: Secrets::disabled(),
    };
    Registry::of([RunCommand::new(sandbox, options).into_tool()]).unwrap()
}

fn accepted(tool: &str, arguments: &Value) -> Result<Value, String> {
    registry().accept(tool, arguments).map(|accepted| accepted.arguments).map_err(|refusal| refusal.message)
}

#[test]
fn commands_of_other_agents_are_accepted() {
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
fn unsupported_arguments_are_refused_with_an_explanation() {
    for (arguments, why) in [
        (json!({"command": "sleep 9", "background": true}), "background"),
        (json!({"command": "sleep 9", "is_background": "true"}), "background"),
        (json!({"command": "ls", "cwd": "/etc"}), "not a folder of the repository"),
        (json!({"command": "ls", "cwd": "../.."}), "not a folder of the repository"),
        (json!({"command": "ls", "cwd": "nowhere"}), "no folder"),
        (json!({"command": ["ls", "|", "wc"]}), "one line"),
        (json!({"commands": ["cd x", "ls"]}), "one command"),
        (json!({"command": "a && b", "args": ["c"]}), "one shell line"),
        (json!({"command": "ls", "cmd": "rm x"}), "same argument"),
        (json!({"command": "ls", "with_escalated_permissions": true}), "sandbox"),
        (json!({"restart": true}), "nothing to restart"),
        (json!({"command": "ls", "surprise": 1}), "no argument \"surprise\"; its arguments are command"),
    ] {
        let refused = accepted("bash", &arguments).unwrap_err();
        assert!(refused.contains(why), "{arguments}: {refused}");
    }
}

/// A stand-in for `apply_patch` that accepts patches.
struct Patches;

#[async_trait::async_trait]
impl TypedTool for Patches {
    type Arguments = Patch;

    fn spec(&self) -> Spec {
        Spec { patch: Some("patch"), ..Spec::of::<Patch>("apply_patch", "changes files", Effect::Write) }
    }

    async fn call(&self, arguments: Patch) -> Result<Outcome, ToolError> {
        Ok(Outcome::ok(arguments.patch))
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Patch {
    patch: String,
}

const PATCH: &str =
    "*** Begin Patch\n*** Update File: a.py\n@@\n-    return 'a'\n+    return \"$b\"\n*** End Patch\n";

#[test]
fn a_command_that_consists_of_a_patch_becomes_a_call_of_apply_patch() {
    let mut registry = registry();
    registry.add(Patches.into_tool()).unwrap();
    let plain = PATCH.replace('$', "");
    let heredoc = format!("apply_patch <<'EOF'\n{PATCH}EOF\n");
    let double = PATCH.replace('"', "\\\"").replace('$', "\\$");
    for (tool, command, patch) in [
        ("shell", json!(["apply_patch", PATCH]), PATCH),
        ("shell", json!(["bash", "-lc", heredoc]), PATCH),
        ("container.exec", json!(["bash", "-c", heredoc]), PATCH),
        ("run_command", json!(heredoc), PATCH),
        ("run_command", json!(heredoc.replace("'EOF'", " \"EOF\"")), PATCH),
        ("run_command", json!(heredoc.replace("apply_patch", "applypatch")), PATCH),
        ("run_command", json!(format!("apply_patch <<EOF\n{plain}EOF")), &plain),
        ("bash", json!(format!("apply_patch \"{double}\"")), PATCH),
    ] {
        let accepted = registry.accept(tool, &json!({ "command": command })).unwrap();
        assert_eq!(
            (accepted.spec.name.as_str(), &accepted.arguments["patch"]),
            ("apply_patch", &json!(patch)),
            "{command}"
        );
        let early = registry.open(tool).unwrap().field("command", &json!(command));
        assert_eq!(early, Ok(()), "{command}");
    }
    let root = json!({"command": ["apply_patch", PATCH], "workdir": folder(), "timeout_ms": 1000});
    assert_eq!(registry.accept("shell", &root).unwrap().spec.name, "apply_patch");
    let elsewhere = json!({"command": ["apply_patch", PATCH], "workdir": "src"});
    assert!(registry.accept("shell", &elsewhere).unwrap_err().message.contains("leave workdir out"));
}

#[test]
fn a_patch_combined_with_another_command_is_refused_before_anything_runs() {
    let mut registry = registry();
    registry.add(Patches.into_tool()).unwrap();
    let heredoc = format!("apply_patch <<'EOF'\n{PATCH}EOF\n");
    for line in [
        format!("{heredoc}rm b.py"),
        format!("rm b.py\n{heredoc}"),
        format!("cd src && {heredoc}"),
        heredoc.replace("'EOF'", "'EOF' && rm b.py"),
        heredoc.replace("'EOF'", "EOF"),
        heredoc.replace("\nEOF\n", "\n EOF\nrm b.py\n"),
        format!("cat <<'EOF' | apply_patch\n{PATCH}EOF\n"),
        format!("apply_patch '{}'; rm b.py", PATCH.replace('\'', "")),
        format!("bash -lc '{}' && rm b.py", heredoc.replace('\'', "'\\''")),
        "apply_patch fix.patch && rm b.py".into(),
        "apply_patch".into(),
    ] {
        let refused = registry.accept("run_command", &json!({ "command": line })).unwrap_err();
        assert!(refused.message.contains("send the patch as a call to apply_patch"), "{line}: {refused:?}");
    }
    for line in ["grep -rn apply_patch src", "./apply_patch x", "cat > a <<'EOF'\napply_patch <<X\nEOF"] {
        assert_eq!(
            registry.accept("run_command", &json!({ "command": line })).unwrap().spec.name,
            "run_command"
        );
    }
}
