//! Output on a terminal, tested with a real pseudo-terminal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use fake_model::{Reply, Server};
use serde_json::json;

use crate::support::{World, call};

/// A Python script that runs a program on a six-line terminal and prints its output.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 80, 0, 0))
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        break
    if not piece:
        break
    sys.stdout.buffer.write(piece)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

fn on_a_terminal(world: &World, args: &[&str]) -> String {
    let agent = world.agent(args);
    let output = world
        .program("python3")
        .args(["-c", ON_A_TERMINAL])
        .arg(agent.get_program())
        .args(agent.get_args())
        .env("TERM", "xterm")
        .env("AGENT_PAGER", "touch \"$HOME/paged\"; cat")
        .output()
        .unwrap();
    world.tell(&output)
}

#[test]
fn long_output_is_paged_only_on_a_terminal_and_has_no_escapes_except_colors() {
    let lines: String = (1..=30).map(|n| format!("line {n}\n")).collect();
    let world = World::with(&[("a.txt", &lines)]);
    // This text would clear the screen, set the title and reverse the text direction.
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}txet";
    let edit = |n: u32| format!("@@ -{n} +{n} @@\n-line {n}\n+{evil} {n}\n");
    let patch = format!("--- a/a.txt\n+++ b/a.txt\n{}", (1..=30).map(edit).collect::<String>());
    world.write("evil.patch", &patch);
    let paged = world.home().join("paged");
    let mut plain = world.agent(&["patch", "--preview", "unified", "evil.patch"]);
    let seen = world.tell(&plain.env("AGENT_PAGER", "touch \"$HOME/paged\"; cat").output().unwrap());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(!paged.exists(), "no pager should start without a terminal: {seen}");
    let short = on_a_terminal(&world, &["--version"]);
    assert!(!paged.exists(), "{short}");
    let seen = on_a_terminal(&world, &["patch", "--preview", "words", "evil.patch"]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(paged.exists(), "a pager should start on a terminal: {seen}");
    let mut rest = seen.as_str();
    while let Some((_, sequence)) = rest.split_once('\u{1b}') {
        let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
        let (colours, behind) = sequence.split_at(end + 1);
        assert!(colours.starts_with('[') && colours.ends_with('m'), "{colours:?} in {seen:?}");
        rest = behind;
    }
    for hidden in ['\u{7}', '\u{9b}', '\u{202e}'] {
        assert!(!seen.contains(hidden), "{hidden:?} in {seen:?}");
    }
    assert!(seen.contains("txet"), "{seen}");
}

/// A Python script that runs a program on a terminal and keeps the text that a user would see,
/// including lines that have scrolled off. It reads commands from stdin, one JSON object per line:
/// wait until the given strings are on the screen, press keys, or wait for the program to exit. It
/// answers each command with the contents of the screen.
const SCREEN: &str = r#"
import codecs, fcntl, json, os, pty, re, struct, sys, termios
lines, columns = int(sys.argv[1]), int(sys.argv[2])
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    os.execv(sys.argv[3], sys.argv[3:])

decode = codecs.getincrementaldecoder("utf-8")().decode
rows, x, y, rest, colors = [[]], 0, 0, "", 0

def go_to(row):
    global y
    y = row
    while len(rows) <= y:
        rows.append([])

def put(token):
    global x, colors
    top = max(0, len(rows) - lines)
    if token == "\r":
        x = 0
    elif token == "\n":
        go_to(y + 1)
    elif not token.startswith("\x1b"):
        assert token.isprintable(), token
        if x == columns:
            x = 0
            go_to(y + 1)
        rows[y] += " " * (x + 1 - len(rows[y]))
        rows[y][x] = token
        x += 1
    elif token[-1] == "A":
        y_up(top, int(token[2:-1] or 1))
    elif token[-1] == "B":
        go_to(min(top + lines - 1, y + int(token[2:-1] or 1)))
    elif token == "\x1b[2K":
        rows[y] = []
    elif token[-1] == "m":
        colors += 1
    else:
        raise ValueError(token)

def y_up(top, n):
    go_to(max(top, y - n))

def drawn():
    # After drawing the table, the agent moves the cursor to the start of the last line.
    return x == 0 and len(rows[y]) > 0

def text():
    return "\n".join("".join(row).rstrip() for row in rows).rstrip()

def read():
    global rest
    try:
        piece = os.read(terminal, 65536)
    except OSError:
        piece = b""
    whole = rest + decode(piece)
    tail = re.search(r"\x1b(\[[0-9;]*)?$", whole)
    rest = tail.group() if tail else ""
    for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[\s\S]", whole[:len(whole) - len(rest)]):
        put(token)
    return bool(piece)

for order in map(json.loads, sys.stdin):
    if "keys" in order:
        os.write(terminal, order["keys"].encode())
    while "texts" in order and not (drawn() and all(wanted in text() for wanted in order["texts"])) and read():
        pass
    if order.get("end"):
        while read():
            pass
        print(f"exit {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}, {'colors' if colors else 'no colors'}")
    print(text())
    print("-- end of screen", flush=True)
"#;

struct Terminal {
    child: Child,
    screens: BufReader<ChildStdout>,
}

impl Terminal {
    fn start(world: &World, (lines, columns): (u16, u16), agent: &Command) -> Self {
        let mut program = world.program("python3");
        program.args(["-c", SCREEN, &lines.to_string(), &columns.to_string()]);
        program.arg(agent.get_program()).args(agent.get_args()).env("TERM", "xterm");
        program.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let screens = BufReader::new(child.stdout.take().unwrap());
        Self { child, screens }
    }

    fn screen_after(&mut self, order: &serde_json::Value) -> String {
        writeln!(self.child.stdin.as_ref().unwrap(), "{order}").unwrap();
        let lines = self.screens.by_ref().lines().map(Result::unwrap);
        lines.take_while(|line| line != "-- end of screen").collect::<Vec<_>>().join("\n")
    }

    /// Waits until all of these strings are on the screen, and returns the screen.
    fn wait_for(&mut self, texts: &[&str]) -> String {
        self.screen_after(&json!({ "texts": texts }))
    }

    /// Waits for the program to exit. Returns a line with the exit code, followed by the screen.
    fn end(mut self) -> String {
        let screen = self.screen_after(&json!({"end": true}));
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        screen
    }
}

/// Returns a command that runs a batch with one task per id. All tasks run at the same time.
fn batch(world: &World, server: &Server, ids: &[&str]) -> Command {
    let lines = ids.iter().map(|id| {
        json!({"id": id, "repo": world.repo(), "task": "Make the tests pass.", "verify": "sh check.sh"})
            .to_string()
    });
    let tasks = world.home().join("tasks.jsonl");
    std::fs::write(&tasks, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let (tasks, jobs) = (tasks.display().to_string(), ids.len().to_string());
    let args = ["batch", &tasks, "--jobs", &jobs, "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    let mut agent = world.agent(&args);
    agent.env("OLLAMA_HOST", server.url());
    agent
}

#[test]
fn a_batch_shows_a_live_table_and_leaves_only_its_results_on_the_screen() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let edit = json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]});
    for _ in 0..2 {
        server.enqueue(Reply::text(call("apply_patch", edit.clone())).delay_until_released("edit"));
    }
    for _ in 0..2 {
        server.enqueue(Reply::text(call("finish", json!({}))).delay_until_released("finish"));
    }
    let mut terminal = Terminal::start(&world, (24, 80), &batch(&world, &server, &["one", "second"]));
    let one = "→ one     turn 1   waiting for the model";
    let seen = terminal.wait_for(&[one, "→ second  turn 1   waiting for the model", "0/2 done"]);
    assert!(seen.starts_with("2 tasks\n→ ") && seen.ends_with("0/2 done: 0 verified, 0 failed"), "{seen}");
    server.release("edit");
    let seen = terminal.wait_for(&["→ one     turn 2", "→ second  turn 2", "tokens/s"]);
    assert!(seen.starts_with("2 tasks\n→ ") && seen.lines().count() == 4, "{seen}");
    server.release("finish");
    let seen = terminal.end();
    assert!(seen.starts_with("exit 0, colors\n2 tasks\n✓ "), "{seen}");
    for shown in ["✓ one: verified:", "✓ second: verified:", "2 tasks: 2 verified", "results are in "] {
        assert_eq!(seen.matches(shown).count(), 1, "{shown} in {seen}");
    }
    for hidden in ["→", "done:", "turn 2", "tokens/s"] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
}

#[test]
fn ctrl_c_leaves_a_clean_terminal_even_if_it_is_small() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.fallback(Reply::empty().delay_until_released("never"));
    let mut agent = batch(&world, &server, &["a", "b", "c", "d"]);
    let mut terminal = Terminal::start(&world, (5, 30), agent.env("NO_COLOR", "1"));
    let seen = terminal.wait_for(&["… and 2 more", "turn 1   wait"]);
    assert!(seen.lines().all(|line| line.chars().count() <= 30), "{seen}");
    assert_eq!(seen.matches('→').count(), 2, "{seen}");
    assert!(seen.ends_with("  … and 2 more\n0/4 done: 0 verified, 0 failed"), "{seen}");
    terminal.screen_after(&json!({"keys": "\u{3}"}));
    let seen = terminal.end();
    assert!(seen.starts_with("exit 130, no colors\n4 tasks\n"), "{seen}");
    assert_eq!(seen.matches(": interrupted: ").count(), 4, "{seen}");
    for hidden in ["→", "done:", "more", "^C"] {
        assert!(!seen.contains(hidden), "{hidden} in {seen}");
    }
}
