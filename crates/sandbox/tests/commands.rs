//! Tests commands from start to finish: which part of their output is kept, how they end, and what
//! they leave behind.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

use std::time::Duration;

use sandbox::{Command, Level, Network, OutputLimits, Policy, SandboxError, Status};
use support::{Fixture, alive};

/// The timeout for commands that are meant to exceed it.
const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_command_runs_in_the_work_tree_and_its_output_comes_back_in_order() {
    let fixture = Fixture::new();
    let done = fixture.on().run(Command::shell("pwd; echo two >&2; echo three; exit 3")).await.unwrap();
    assert_eq!(done.output.text(), format!("{}\ntwo\nthree\n", fixture.root().display()));
    assert_eq!(done.status, Status::Exited(3));
}

#[tokio::test]
async fn no_output_of_a_fast_command_is_lost() {
    let fixture = Fixture::new();
    let sandbox = fixture.on();
    for _ in 0..50 {
        let done = sandbox.run(Command::shell("echo at once")).await.unwrap();
        assert_eq!(done.output.text(), "at once\n");
    }
    let command = Command { output: OutputLimits::bytes(1 << 20), ..Command::shell("seq 1 100000") };
    let done = sandbox.run(command).await.unwrap();
    assert!(done.output.text().ends_with("\n99999\n100000\n"));
    assert_eq!(done.output.total_lines, 100_000);
}

#[tokio::test]
async fn a_missing_program_is_distinguished_from_a_failing_one() {
    let fixture = Fixture::new();
    let error = fixture.on().run(Command::new("no-such-program", [""; 0])).await.unwrap_err();
    assert!(matches!(error, SandboxError::Start { missing: true, .. }), "{error}");
}

#[tokio::test]
async fn a_signal_is_reported_as_such() {
    let fixture = Fixture::new();
    let done = fixture.on().run(Command::shell("kill -SEGV $$")).await.unwrap();
    assert_eq!((done.status, done.status.code()), (Status::Signaled(11), Some(139)));
}

#[tokio::test]
async fn a_command_reads_its_input_and_then_the_end() {
    let fixture = Fixture::new();
    let input = "x".repeat(1 << 20);
    let command = Command { input: format!("first\n{input}"), ..Command::shell("head -1; cat | wc -c; cat") };
    let done = fixture.on().run(command).await.unwrap();
    let text = done.output.text();
    assert!(text.starts_with("first\n") && text.split_whitespace().count() == 2, "{text}");
}

#[tokio::test]
async fn standard_input_is_empty_and_there_is_no_terminal() {
    let fixture = Fixture::new();
    let line = "cat; read line || echo nothing; (: < /dev/tty) 2>/dev/null || echo no terminal";
    let done = fixture.on().run(Command::shell(line)).await.unwrap();
    assert_eq!(done.output.text(), "nothing\nno terminal\n");
}

#[tokio::test]
async fn a_command_gets_the_environment_of_the_policy_and_inherits_no_other() {
    let fixture = Fixture::new();
    let policy = Policy {
        env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "policy".into())],
        ..fixture.policy()
    };
    let command = Command { env: vec![("A".into(), "call".into())], ..Command::new("env", [""; 0]) };
    let text = fixture.with(policy).run(command).await.unwrap().output.text();
    let mut names: Vec<_> = text.lines().filter_map(|l| l.split('=').next()).collect();
    names.sort_unstable();
    let expected = [
        "A",
        "ASAN_OPTIONS",
        "CARGO_NET_OFFLINE",
        "DOTNET_CLI_HOME",
        "GOCACHE",
        "GOPROXY",
        "NPM_CONFIG_OFFLINE",
        "PATH",
        "TMPDIR",
    ];
    assert_eq!(names, expected);
    assert!(text.contains("A=call"), "{text}");
}

#[tokio::test]
async fn a_command_that_exceeds_its_timeout_is_terminated_and_its_output_is_kept() {
    let fixture = Fixture::new();
    let line = "trap 'echo goodbye; exit 1' TERM; echo started; while :; do sleep 0.05; done";
    let done = fixture.on().run(Command { timeout: SHORT, ..Command::shell(line) }).await.unwrap();
    let text = done.output.text(); // the shell may also report the end of its `sleep`
    assert!(
        done.status == Status::TimedOut && text.starts_with("started\n") && text.ends_with("goodbye\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_command_that_ignores_sigterm_is_killed() {
    for level in [Level::On, Level::Off] {
        let fixture = Fixture::new();
        let sandbox = fixture.with(Policy { level, ..fixture.policy() });
        let line = "trap '' TERM; echo started; sleep 1000; sleep 1000";
        let done = sandbox.run(Command { timeout: SHORT, ..Command::shell(line) }).await.unwrap();
        assert_eq!((done.status, done.output.text().as_str()), (Status::TimedOut, "started\n"), "{level:?}");
    }
}

#[tokio::test]
async fn everything_that_a_command_started_is_dead_when_run_returns() {
    for level in [Level::On, Level::Off] {
        let fixture = Fixture::new();
        let sandbox = fixture.with(Policy { level, ..fixture.policy() });
        let mark = fixture.unique();
        // Start three processes: one in the background, one that ignores SIGTERM in its own
        // session, and an orphan.
        let line = format!(
            "sleep 1000.{mark} & setsid sh -c 'trap \"\" TERM; sleep 1000.{mark}; :' & (setsid sleep 1000.{mark} &) ; echo done"
        );
        let done = sandbox.run(Command::shell(line)).await.unwrap();
        assert_eq!((done.status, done.output.text().as_str()), (Status::Exited(0), "done\n"), "{level:?}");
        assert_eq!(alive(&mark), 0, "{level:?}");
    }
}

#[tokio::test]
async fn output_that_arrives_shortly_after_the_end_of_a_command_is_kept() {
    let fixture = Fixture::new();
    let done = fixture.on().run(Command::shell("(sleep 0.02; echo late) & echo early")).await.unwrap();
    assert_eq!(done.output.text(), "early\nlate\n");
}

#[tokio::test]
async fn dropping_the_future_kills_the_command_and_its_children() {
    for level in [Level::On, Level::Off] {
        let fixture = Fixture::new();
        let sandbox = fixture.with(Policy { level, ..fixture.policy() });
        let mark = fixture.unique();
        let line = format!("setsid sleep 1000.{mark} & echo ready > ready; sleep 1000.{mark}");
        let ready = fixture.root().join("ready");
        tokio::select! {
            done = sandbox.run(Command::shell(line)) => panic!("the command ended: {done:?}"),
            () = support::until(|| ready.exists()) => {}
        }
        support::until(|| alive(&mark) == 0).await;
    }
}

#[tokio::test]
async fn a_flood_is_stopped_and_its_beginning_and_end_are_kept() {
    let fixture = Fixture::new();
    let output = OutputLimits { total_bytes: 1 << 20, ..OutputLimits::bytes(100) };
    let log = fixture.home().join("logs/flood.txt");
    let command = Command { output, log: Some(log.clone()), ..Command::shell("echo first; yes") };
    let done = fixture.on().run(command).await.unwrap();
    assert_eq!(done.status, Status::LimitReached);
    assert!(done.output.text().starts_with("first\ny\n"));
    assert!(done.output.omitted.unwrap().bytes > 1 << 19);
    assert!(std::fs::metadata(log).unwrap().len() >= 1 << 20);
}

#[tokio::test]
async fn binary_output_without_newlines_is_harmless() {
    let fixture = Fixture::new();
    let line = "head -c 300000 /dev/urandom";
    let done = fixture.on().run(Command::shell(line)).await.unwrap();
    assert_eq!((done.status, done.output.total_bytes), (Status::Exited(0), 300_000));
    assert!(!done.output.text().contains('\u{1b}'));
}

#[tokio::test]
async fn servers_on_loopback_work() {
    let fixture = Fixture::new();
    let line = r#"python3 -c '
import socket, threading
server = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=lambda: server.accept()[0].sendall(b"hello")).start()
print(socket.create_connection(server.getsockname()).recv(5).decode())
v6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
print("v6")'"#;
    let done = fixture.on().run(Command::shell(line)).await.unwrap();
    assert_eq!(done.output.text(), "hello\nv6\n");
}

#[tokio::test]
async fn without_network_not_even_loopback_answers() {
    let fixture = Fixture::new();
    let sandbox = fixture.with(Policy { network: Network::None, ..fixture.policy() });
    let line = r#"python3 -c '
import socket
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())'"#;
    assert!(!sandbox.run(Command::shell(line)).await.unwrap().status.success());
}

#[tokio::test]
async fn temporary_files_go_to_a_directory_of_the_session() {
    let fixture = Fixture::new();
    let sandbox = fixture.on();
    // If the launcher is below /tmp, `ls` also lists its path, so only count the files created
    // here.
    let write = "echo kept > /tmp/file && echo kept > $TMPDIR/other && mktemp > /dev/null && \
                 ls /tmp | grep -cE '^(file|other|tmp[.].*)$'";
    assert_eq!(sandbox.run(Command::shell(write)).await.unwrap().output.text(), "3\n");
    assert_eq!(sandbox.run(Command::shell("cat /tmp/file")).await.unwrap().output.text(), "kept\n");
    assert_eq!(fixture.on().run(Command::shell("cat /tmp/file")).await.unwrap().status, Status::Exited(1));
}

#[tokio::test]
async fn git_is_readable_but_not_writable() {
    let fixture = Fixture::new();
    let root = fixture.root();
    std::fs::remove_dir_all(root.join(".git")).unwrap();
    let git = |args: &[&str]| {
        let status = std::process::Command::new("git")
            .args(args)
            .current_dir(&root)
            .env("HOME", fixture.home())
            .output();
        assert!(status.unwrap().status.success(), "git {args:?}");
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"]);
    let sandbox = fixture.on();
    let asked = sandbox
        .run(Command::shell("echo b > a.txt && git status --short && git log --format=%s"))
        .await
        .unwrap();
    assert_eq!(asked.output.text(), " M a.txt\nfirst\n");
    let told = sandbox
        .run(Command::shell("git add . || git reset --hard || rm -rf .git || mv .git x"))
        .await
        .unwrap();
    assert!(!told.status.success(), "{}", told.output.text());
    assert_eq!(std::fs::read_to_string(root.join("a.txt")).unwrap(), "b\n");
}

#[tokio::test]
async fn a_read_only_work_tree_is_not_written() {
    let fixture = Fixture::new();
    let sandbox = fixture.with(Policy { read_only: true, ..fixture.policy() });
    let done = sandbox.run(Command::shell("cat a.txt; echo x > a.txt; echo x > new")).await.unwrap();
    assert!(done.output.text().starts_with("a\n"));
    assert_eq!(std::fs::read_to_string(fixture.root().join("a.txt")).unwrap(), "a\n");
    assert!(!fixture.root().join("new").exists());
}

#[tokio::test]
async fn additional_paths_can_be_allowed() {
    let fixture = Fixture::new();
    let (read, write) = (fixture.home().join("other"), fixture.home().join("results"));
    std::fs::create_dir(&write).unwrap();
    let sandbox =
        fixture.with(Policy { extra_read: vec![read], extra_write: vec![write.clone()], ..fixture.policy() });
    let done = sandbox
        .run(Command::shell("cat ../other/src.rs > ../results/copy; echo x > ../other/new"))
        .await
        .unwrap();
    assert!(!done.status.success());
    assert_eq!(std::fs::read_to_string(write.join("copy")).unwrap(), "other");
    assert!(!fixture.home().join("other/new").exists());
}

#[tokio::test]
async fn a_missing_path_is_reported_at_once() {
    let fixture = Fixture::new();
    let policy = Policy { extra_read: vec!["/no/such/place".into()], ..fixture.policy() };
    let error = sandbox::Sandbox::new(policy, vec![support::launcher().into()]).unwrap_err();
    assert!(error.to_string().contains("/no/such/place"));
}
