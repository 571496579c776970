//! Tests commands that hang, leave processes behind or print endlessly. Each must end within its
//! limit and leave nothing running, and what it printed first must be kept.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

use std::time::Duration;

use sandbox::{Command, Level, Overrides, Policy, Status};
use support::{Fixture, alive};

/// The timeout for commands that are meant to exceed it.
const SHORT: Duration = Duration::from_millis(700);

/// Shell lines and how they must end. `MARK` is replaced with a unique number that identifies
/// leftover processes. Each line runs after `echo useful`.
const HANGS: &[(&str, &str, Status)] = &[
    ("reads standard input", "cat; read x; python3 -c 'input()' 2>/dev/null; exit 0", Status::Exited(0)),
    (
        "asks at a terminal",
        "python3 -c 'import getpass; getpass.getpass()' 2>/dev/null </dev/null; exit 0",
        Status::Exited(0),
    ),
    ("never ends", "sleep MARK", Status::TimedOut),
    ("is busy forever", "while :; do : MARK; done", Status::TimedOut),
    ("waits for children that never end", "sleep MARK & sleep MARK & wait", Status::TimedOut),
    ("ignores signals", "trap '' TERM HUP INT QUIT; sleep MARK; sleep MARK", Status::TimedOut),
    (
        "has children that ignore signals",
        "(trap '' TERM HUP; sleep MARK; sleep MARK) & wait",
        Status::TimedOut,
    ),
    ("stops itself", "sleep MARK & kill -STOP $$", Status::TimedOut),
    ("stops its children", "sleep MARK & kill -STOP $!; wait", Status::TimedOut),
    ("closes its output and keeps running", "exec >&- 2>&-; sleep MARK", Status::TimedOut),
    ("leaves a child that holds its output open", "sleep MARK &", Status::Exited(0)),
    ("leaves a child in a session of its own", "setsid sleep MARK &", Status::Exited(0)),
    ("leaves a grandchild", "(setsid sh -c 'sleep MARK & sleep MARK' &)", Status::Exited(0)),
    (
        "becomes a daemon",
        "python3 -c '
import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.chdir(\"/\"); os.closerange(0, 9)
os.execvp(\"sleep\", [\"sleep\", \"MARK\"])'",
        Status::Exited(0),
    ),
    ("leaves many", "for i in 1 2 3 4 5 6 7 8 9; do (setsid sleep MARK &) ; done", Status::Exited(0)),
    (
        "forks while it dies",
        "trap 'sleep MARK & exit 3' TERM; sleep MARK & wait; sleep MARK",
        Status::TimedOut,
    ),
    (
        "leaves a process that keeps printing",
        "(while :; do echo MARK; sleep 0.01; done) &",
        Status::Exited(0),
    ),
    ("opens a pipe that nobody writes to", "mkfifo pipe; cat pipe MARK", Status::TimedOut),
];

async fn hang_all(level: Level, bubblewrap: bool) {
    for (name, line, end) in HANGS {
        let fixture = Fixture::new();
        let overrides = Overrides { no_bubblewrap: !bubblewrap, ..Overrides::default() };
        let sandbox = fixture.with_overrides(Policy { level, ..fixture.policy() }, overrides);
        let mark = format!("1000.{}", fixture.unique());
        let line = format!("echo useful; {}", line.replace("MARK", &mark));
        // Starting Python can exceed the short timeout on a busy machine.
        let timeout = if *end == Status::TimedOut { SHORT } else { Duration::from_secs(60) };
        let done = sandbox.run(Command { timeout, ..Command::shell(line) }).await.unwrap();
        assert_eq!(done.status, *end, "{name}: {}", done.output.text());
        assert!(done.output.text().starts_with("useful\n"), "{name}");
        assert_eq!(alive(&mark), 0, "{name} is still there");
    }
}

#[tokio::test]
async fn every_hang_ends_and_leaves_nothing_running() {
    hang_all(Level::On, false).await;
}

#[tokio::test]
async fn every_hang_ends_without_the_sandbox() {
    hang_all(Level::Off, false).await;
}

#[tokio::test]
async fn every_hang_ends_without_namespaces() {
    if support::namespaces_are_refused("every_hang_ends_without_namespaces") {
        hang_all(Level::On, false).await;
        // Again with bubblewrap, if it is installed.
        hang_all(Level::On, true).await;
    }
}

/// The floods vary in kind and size, but the beginning and the end of the output are always kept.
#[tokio::test]
async fn every_kind_of_flood_is_stopped_at_its_limit_and_little_is_kept() {
    let limit = Command::shell("").output.total_bytes;
    for (name, line) in [
        ("a gigabyte", "echo useful; head -c 1000000000 /dev/zero"),
        ("a gigabyte of lines", "echo useful; yes useful"),
        ("one line without end", "echo useful; tr '\\0' x < /dev/zero"),
        ("binary", "echo useful; cat /dev/urandom"),
        ("from many at once", "echo useful; yes a & yes b & setsid yes c & yes d >&2"),
        ("control sequences", "echo useful; yes \"$(printf '\\033]0;title\\007\\033[2J')\""),
    ] {
        let fixture = Fixture::new();
        let log = fixture.home().join("log");
        let command = Command { log: Some(log.clone()), ..Command::shell(line) };
        let done = fixture.on().run(command).await.unwrap();
        assert_eq!(done.status, Status::LimitReached, "{name}");
        let output = &done.output;
        // The total may exceed the limit, because a command keeps printing until its last process
        // is dead.
        assert!(
            output.total_bytes > limit && output.total_bytes < limit + (64 << 20),
            "{name}: {}",
            output.total_bytes
        );
        assert!(output.head.len() + output.tail.len() <= 32 << 10, "{name}");
        assert!(output.head.starts_with(b"useful\n") && !output.text().contains('\u{1b}'), "{name}");
        assert!(std::fs::metadata(log).unwrap().len() < 20 << 20, "{name}");
    }
}
