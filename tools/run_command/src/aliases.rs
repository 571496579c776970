//! Names that other agents use for a tool that runs a command, and for its arguments.

use serde_json::{Map, Value};
use tool_api::{Aliases, Take, aliases};

pub(crate) const ALIASES: &Aliases = &Aliases {
    tools: "bash sh shell zsh exec bash_tool run_bash execute_bash run_shell run_shell_command \
        shell_command execute_shell execute_shell_command local_shell exec_command execute_command \
        run_terminal_cmd run_terminal_command run_in_terminal terminal_command container_exec \
        launch_process run_commands",
    words: "cmd terminal command console execute run",
    arguments: &[
        (
            "cmd script command_line shell_command bash_command terminal_command full_command code \
                input",
            Take::As("command"),
        ),
        ("command commands args arguments argv", Take::Converted),
        (
            "cwd cd dir directory dir_path folder working_dir working_directory work_dir \
                current_directory",
            Take::As("workdir"),
        ),
        (
            "timeout timeout_ms timeout_s timeout_sec timeout_secs timeout_seconds max_timeout \
                max_wait_seconds wait_ms_before_async yield_time_ms max_output_tokens \
                max_output_chars requires_approval require_user_approval safe_to_auto_run login goal",
            Take::LeftOut,
        ),
        (
            "background is_background run_in_background in_background detach detached daemon async",
            Take::Only("", "commands cannot run in the background, they must exit; leave this out"),
        ),
        (
            "blocking wait",
            Take::Only("true", "commands cannot run in the background, they must exit; leave this out"),
        ),
        (
            "interactive is_input tty pty stdin",
            Take::Only("", "a command gets no input and no terminal; leave this out"),
        ),
        ("restart reset", Take::Only("", "each command runs in a new shell: nothing to restart")),
        (
            "with_escalated_permissions sandbox_permissions dangerously_disable_sandbox sudo",
            Take::Only("use_default", "commands run in the sandbox; leave this out"),
        ),
        ("env environment", Take::Only("", "set variables in the command: NAME=value COMMAND")),
        (
            "shell shell_type",
            Take::Only("sh bash /bin/sh /bin/bash default", "commands run by sh; leave this out"),
        ),
    ],
    convert: Some(convert),
};

/// Words that are meaningful only in a shell.
const OPERATORS: [&str; 11] = ["&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "2>&1", "<<"];

/// Shell keywords that can start a command.
const RESERVED: [&str; 16] = [
    "if", "then", "else", "elif", "fi", "do", "done", "case", "esac", "while", "until", "for", "in",
    "function", "select", "time",
];

fn convert(_: &str, arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String> {
    aliases::one(arguments, "commands", "command", notes)
        .map_err(|_| "send one command per call; join dependent commands with &&".to_owned())?;
    let more = aliases::take(arguments, "args arguments argv").filter(|value| !aliases::is_empty(value));
    let line = match (arguments.get("command"), more) {
        (Some(Value::Array(words)), None) => match words.as_slice() {
            [Value::String(line)] => line.clone(),
            words => quoted(words)?,
        },
        (None | Some(Value::Null), Some(Value::Array(words))) => quoted(&words)?,
        (Some(Value::String(program)), Some(Value::Array(words))) => {
            if !program.split(' ').all(is_plain) {
                return Err("send the command and its arguments as one shell line".into());
            }
            format!("{program} {}", quoted_words(&words)?)
        }
        (_, Some(_)) => return Err("send the command and its arguments as one shell line".into()),
        (_, None) => {
            here(arguments);
            return Ok(());
        }
    };
    notes.push(format!("an array taken as the line {line}"));
    arguments.insert("command".into(), line.into());
    here(arguments);
    Ok(())
}

/// Removes a `workdir` that is the root, because commands run there anyway.
fn here(arguments: &mut Map<String, Value>) {
    if matches!(arguments.get("workdir"), Some(Value::String(dir)) if matches!(dir.trim(), "" | "." | "./")) {
        arguments.shift_remove("workdir");
    }
}

/// Quotes a program and its arguments as one shell command line.
fn quoted(words: &[Value]) -> Result<String, String> {
    let line = quoted_words(words)?;
    match words.first().and_then(Value::as_str) {
        Some(first) if RESERVED.contains(&first) || first.contains('=') => {
            Ok(line.replacen(first, &format!("'{first}'"), usize::from(is_plain(first))))
        }
        _ => Ok(line),
    }
}

fn quoted_words(words: &[Value]) -> Result<String, String> {
    let words = words.iter().map(|word| match word {
        Value::String(word) if OPERATORS.contains(&word.as_str()) => {
            Err(format!("{word:?} only works in a shell; send the command as one line"))
        }
        Value::String(word) if is_plain(word) => Ok(word.clone()),
        Value::String(word) => Ok(format!("'{}'", word.replace('\'', r"'\''"))),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("the words of a command must be strings, or send the command as one line".into()),
    });
    Ok(words.collect::<Result<Vec<String>, String>>()?.join(" "))
}

/// Returns whether the shell leaves a word unchanged.
fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    !word.is_empty() && word.chars().all(plain)
}
