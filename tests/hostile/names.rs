//! File names that target a terminal, a shell or git.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::{command, edit, finish, read};
use crate::support::{World, call, json_lines};
use serde_json::json;

fn names() -> Vec<Vec<u8>> {
    let long = "l".repeat(255);
    let mut names: Vec<Vec<u8>> = [
        "new\nline",
        "car\rriage",
        "esc\x1b[31mred\x1b]0;t\x07",
        "tab\tbed",
        "-rf",
        "--help",
        "   ",
        " lead",
        "trail ",
        "dots..",
        "bidi\u{202e}txt.exe",
        "zero\u{200b}width",
        "c1\u{9b}31m",
        "<|im_end|>",
        "quo\"te'`$(touch x)",
        "back\\slash",
        ".git\u{200c}x",
        "ｇｉｔ",
        "%s%n",
        ":(exclude)a",
        "#x",
        "!x",
        "*?[a]",
        &long,
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(b"inv\xff\xfealid".to_vec());
    names
}

impl World {
    fn at(&self, name: &[u8]) -> PathBuf {
        self.repo().join(OsStr::from_bytes(name))
    }
}

/// Checks that the output contains no escape sequences other than colors, and no invisible or
/// control characters other than newlines and tabs.
pub(super) fn is_harmless(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    for (i, piece) in text.split("\x1b[").enumerate() {
        let style = piece
            .find(|c: char| !c.is_ascii_digit() && c != ';')
            .filter(|end| i > 0 && piece[*end..].starts_with('m'));
        match (i, style) {
            (0, _) => plain.push_str(piece),
            (_, Some(end)) => plain.push_str(&piece[end + 1..]),
            (_, None) => return Err(format!("an escape sequence before {piece:?}")),
        }
    }
    let bad = |c: char| {
        c.is_control() && !"\n\t".contains(c)
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}' | '\u{2028}' | '\u{2029}')
    };
    match plain.replace("\r\n", "\n").find(bad) {
        None => Ok(()),
        Some(at) => Err(format!("{:?}", plain[at.saturating_sub(0)..].chars().take(40).collect::<String>())),
    }
}

#[test]
fn strange_names_can_be_listed_edited_shown_and_undone() {
    let world = World::with(&[("a.txt", "one\n")]);
    for name in names() {
        fs::write(world.at(&name), "one\n").unwrap();
    }
    let (output, prompts) = world.obey([
        call("list_files", json!({})),
        call("search", json!({"pattern": "one"})),
        read("-rf"),
        edit("-rf", "one", "two"),
        edit("new\nline", "one", "two"),
        edit("esc\x1b[31mred", "one", "two"),
        read("a.txt"),
        edit(".git\u{200c}", "one", "two"),
        edit(".GIT/config", "core", "x"),
        edit("git~1/config", "core", "x"),
        read("a.txt"),
        edit(".git /config", "core", "x"),
        edit(&"l".repeat(255), "one", "two"),
        edit(&"l".repeat(256), "one", "two"),
        edit("quo\"te'`$(touch x)", "one", "two"),
        edit("back\\slash", "one", "two"),
        command("for f in * .git?*; do echo three >> \"./$f\"; done; rm -- ./--help"),
        finish(),
    ]);
    let seen = world.tell(&output);
    assert!(prompts.len() > 10 && output.status.code() == Some(1), "{seen}");
    is_harmless(&output.stderr).unwrap();
    assert!(!world.repo().join("x").exists());
    for name in names() {
        let now = fs::read_to_string(world.at(&name));
        assert_eq!(now.is_ok_and(|now| now.contains("three")), name != b"--help", "{name:?}: {seen}");
    }
    for args in [&["sessions", "list"] as &[&str], &["sessions", "show"], &["diff", "--stat"]] {
        let output = world.limited(args).output().unwrap();
        is_harmless(&output.stderr)
            .and(is_harmless(&output.stdout))
            .map_err(|e| format!("{args:?}: {e}"))
            .unwrap();
    }
    let output = world.limited(&["sessions", "show", "--json"]).output().unwrap();
    assert!(json_lines(&String::from_utf8(output.stdout).unwrap()).len() > 10);
    let output = world.limited(&["undo", "last"]).output().unwrap();
    is_harmless(&output.stderr).and(is_harmless(&output.stdout)).unwrap();
    for name in names() {
        let back = fs::read(world.at(&name)).is_ok_and(|now| now == b"one\n");
        assert!(back, "{name:?}: {}", world.tell(&output));
    }
}

#[test]
fn only_text_and_colors_reach_a_terminal() {
    let evil = "\x1b[2J\x1b]52;c;aGk=\x07\u{9b}31m\u{202e}\u{200b}\rover\x08";
    let world = World::with(&[
        ("a.txt", &format!("one\n{evil}\n")),
        (".agent.toml", "verify = 'cat a.txt; exit 1'\n"),
        ("AGENTS.md", evil),
    ]);
    fs::write(world.repo().join(format!("n{evil}")), "one\n").unwrap();
    let server = fake_model::Server::start();
    for answer in [
        format!("I say {evil} and <think>{evil}</think> {}", read("a.txt")),
        edit("a.txt", "one", &format!("two{evil}")),
        call(&format!("no{evil}"), json!({"a": evil})),
        read(evil),
        command(&format!("printf '%s' '{}'; exit 3", "\\033[2J")),
        call("search", json!({"pattern": "over"})),
    ] {
        server.enqueue(fake_model::Reply::text(answer));
    }
    server.enqueue(fake_model::Reply::error(400, format!("bad {evil}")));
    let agent = world.limited(&[]).get_args().nth(3).unwrap().to_str().unwrap().to_owned();
    // `script` provides a terminal.
    let on_terminal = |line: &str| {
        let mut command = std::process::Command::new("script");
        command.args(["-qec", line, "/dev/null"]).current_dir(world.repo());
        command
            .env_clear()
            .envs(world.agent(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env("OLLAMA_HOST", server.url()).stdin(std::process::Stdio::null());
        command.output().expect("`script`, which is part of util-linux, must be installed").stdout
    };
    let seen = on_terminal(&format!("{agent} run --model deepseek-coder:6.7b --approach tools 'Say {evil}'"));
    assert!(
        String::from_utf8_lossy(&seen).contains("\x1b["),
        "the output should be colored: {}",
        String::from_utf8_lossy(&seen)
    );
    assert!(server.chats().len() > 5, "{}", String::from_utf8_lossy(&seen));
    is_harmless(&seen).unwrap();
    for line in [
        "sessions list",
        "sessions show",
        "diff",
        "diff --stat",
        "undo --dry-run last",
        "tools call read_file '{\"path\": \"a.txt\"}'",
        "config show",
        "models list",
    ] {
        let seen = on_terminal(&format!("PAGER=cat {agent} {line}"));
        is_harmless(&seen).map_err(|e| format!("{line}: {e}\n{}", String::from_utf8_lossy(&seen))).unwrap();
    }
    // Without a terminal, no pager is started.
    let mut diff = world.limited(&["sessions", "show"]);
    diff.env("AGENT_PAGER", format!("touch {}; cat", world.trophy().display()))
        .env("TERM", "xterm")
        .output()
        .unwrap();
    assert!(!world.was_attacked());
}
