//! Tests attempts to break out. Each must succeed without the sandbox and fail inside it. The tests
//! run as the current user and, if that is root, also as an ordinary user.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod attempts;
#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
            process::CommandExt,
        },
    },
};

use attempts::{ATTEMPTS, ATTEMPTS_OF_ROOT, SECRETS, THROUGH_WITHOUT_NAMESPACES};
use sandbox::{Command, Level, Overrides, Policy, Sandbox};
use support::Fixture;

/// Runs a shell line in a fresh fixture. The line must escape if `escapes` is true, and must not
/// escape otherwise. Returns the output if the line does not behave as expected.
async fn attempt(line: &str, level: Level, landlock: bool, escapes: bool) -> Option<String> {
    // Bubblewrap is tested separately.
    let overrides = Overrides { no_landlock: !landlock, no_bubblewrap: true, ..Overrides::default() };
    attempt_with(line, escapes, overrides, |policy| Policy { level, ..policy }).await
}

async fn attempt_with(
    line: &str,
    escapes: bool,
    overrides: Overrides,
    policy: impl FnOnce(Policy) -> Policy,
) -> Option<String> {
    let fixture = Fixture::new();
    fs::write(fixture.home().join("other/victim"), "").unwrap();
    fs::write(fixture.root().join("calls.py"), include_str!("attempts/calls.py")).unwrap();
    for secret in SECRETS {
        let path = fixture.home().join(secret);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "secret").unwrap();
    }
    let outside = Outside::new(&fixture);
    let sandbox = fixture.with_overrides(policy(fixture.policy()), overrides);
    let line = match line.strip_prefix("calls ") {
        Some(name) => format!("exec python3 -S calls.py {name}"),
        None => line.to_owned(),
    };
    let command = Command { env: outside.env.clone(), ..Command::shell(line) };
    let text = sandbox.run(command).await.unwrap().output.text();
    (text.contains("escaped") != escapes).then_some(text)
}

/// Checks that every attempt succeeds without the sandbox, and that inside the sandbox, those in
/// `through` succeed and all others fail. If `landlock` is false, skips the attempts without the
/// sandbox, because Landlock does not affect them.
async fn attempt_all(
    attempts: impl Iterator<Item = (String, String)>,
    landlock: bool,
    through: &[&str],
) -> usize {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for (name, line) in attempts {
        for (level, escapes) in [(Level::Off, true), (Level::On, through.contains(&name.as_str()))] {
            if level == Level::Off && !landlock {
                continue;
            }
            if let Some(text) = attempt(&line, level, landlock, escapes).await {
                let what = if escapes { "does not get through" } else { "gets through" };
                wrong.push(format!("sandbox {level:?}: {name} {what}: {text}"));
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    count
}

fn by_any_user() -> impl Iterator<Item = (String, String)> {
    let secrets =
        SECRETS.iter().map(|path| (format!("read ~/{path}"), format!("cat $HOME/{path} && echo escaped")));
    named(ATTEMPTS).chain(secrets)
}

fn named(attempts: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    attempts.iter().map(|(name, line)| ((*name).to_owned(), (*line).to_owned()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn no_attempt_succeeds() {
    assert!(attempt_all(by_any_user(), true, &[]).await >= 60);
}

#[tokio::test]
async fn no_attempt_of_root_succeeds() {
    if is_root() {
        attempt_all(named(ATTEMPTS_OF_ROOT), true, &[]).await;
    }
}

/// Reruns `no_attempt_succeeds` as an ordinary user, in a directory that the user can read.
#[test]
fn no_attempt_of_an_ordinary_user_succeeds() {
    if !is_root() {
        return; // covered by `no_attempt_succeeds`
    }
    const NOBODY: u32 = 65_534;
    let place = tempfile::tempdir_in(support::place()).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (test, launcher) = (place.path().join("escapes"), place.path().join("launcher"));
    fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    fs::copy(support::launcher(), &launcher).unwrap();
    let output = std::process::Command::new(test)
        .args(["--exact", "no_attempt_succeeds"])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env(support::PLACE, place.path())
        .env(support::LAUNCHER, launcher)
        .current_dir(place.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[tokio::test]
async fn descriptors_that_the_agent_left_open_are_closed() {
    let fixture = Fixture::new();
    let secret = fs::File::open(fixture.home().join(".ssh/id_ed25519")).unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let fd = secret.as_raw_fd();
    let read = format!("cat /proc/self/fd/{fd} <&{fd} || cat <&{fd}");
    let bare = std::process::Command::new("bash").args(["-c", &read]).output().unwrap();
    assert_eq!(bare.stdout, b"the key");
    let done = fixture.on().run(Command::new("bash", ["-c", &read])).await.unwrap();
    assert!(!done.output.text().contains("the key"), "{}", done.output.text());
}

#[tokio::test]
async fn the_self_test_passes_and_reports_what_is_enforced() {
    let fixture = Fixture::new();
    let report = fixture.on().self_test().await.unwrap();
    assert!(report.enforced && report.network_isolated, "{report:?}");
    assert!(report.lines.len() >= 4);
    assert!(!fixture.off().probe().await.unwrap().enforced);
}

#[tokio::test]
async fn with_a_broken_launcher_no_command_runs_and_the_error_names_the_flag() {
    let fixture = Fixture::new();
    let sandbox = Sandbox::new(fixture.policy(), vec!["/bin/true".into()]).unwrap();
    let error = sandbox.run(Command::shell("echo unconfined > ran")).await.unwrap_err();
    assert!(error.to_string().contains("--dangerously-no-sandbox"), "{error}");
    assert!(!fixture.root().join("ran").exists());
}

/// The targets of the attempts: servers and a process that does nothing.
struct Outside {
    process: std::process::Child,
    segment: String,
    env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
}

impl Outside {
    fn new(fixture: &Fixture) -> Self {
        let process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let made = std::process::Command::new("ipcmk").args(["-M", "16"]).output().unwrap();
        let segment = String::from_utf8(made.stdout).unwrap().split_whitespace().last().unwrap().to_owned();
        let (path, datagrams) = (fixture.home().join("agent.sock"), fixture.home().join("log.sock"));
        let name = fixture.unique();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let env = [
            ("OUTSIDE", process.id().to_string()),
            ("AGENT", std::process::id().to_string()),
            ("TCP", serve_tcp("127.0.0.1:0").to_string()),
            ("TCP6", serve_tcp("[::1]:0").to_string()),
            ("UDP", serve_udp("127.0.0.1:0").to_string()),
            ("UDP6", serve_udp("[::1]:0").to_string()),
            ("UNIX", path.display().to_string()),
            ("UNIX_DATAGRAM", datagrams.display().to_string()),
            ("ABSTRACT", name),
            ("SHARED", segment.clone()),
        ];
        serve_unix(UnixListener::bind(&path).unwrap());
        serve_unix(UnixListener::bind_addr(&address).unwrap());
        let datagrams = UnixDatagram::bind(datagrams).unwrap();
        std::thread::spawn(move || datagrams.recv(&mut [0; 16]));
        Self { process, segment, env: env.map(|(n, v)| (n.into(), v.into())).to_vec() }
    }
}

/// Starts a server that answers every client until this process ends, and returns its port.
fn serve_tcp(address: &str) -> u16 {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
    port
}

fn serve_udp(address: &str) -> u16 {
    let socket = UdpSocket::bind(address).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
            let _ = socket.send_to(b"pong", from);
        }
    });
    port
}

fn answer(mut connection: impl Read + Write) {
    let _ = connection.read(&mut [0; 16]);
    let _ = connection.write_all(b"pong");
}

fn serve_unix(listener: UnixListener) {
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer));
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::process::Command::new("ipcrm").args(["-m", &self.segment]).status();
    }
}

#[tokio::test]
async fn with_allowed_hosts_no_attempt_succeeds() {
    let hosts = vec!["example.org".parse().unwrap()];
    let mut through = Vec::new();
    for (name, line) in by_any_user() {
        let with_hosts = |policy| Policy { hosts: hosts.clone(), ..policy };
        through.extend(
            attempt_with(&line, false, Overrides::default(), with_hosts)
                .await
                .map(|text| format!("{name}: {text}")),
        );
    }
    assert_eq!(through, Vec::<String>::new());
}

#[tokio::test]
async fn if_landlock_is_missing_namespaces_and_seccomp_stop_every_attempt() {
    let of_root = named(if is_root() { ATTEMPTS_OF_ROOT } else { &[] });
    attempt_all(by_any_user().chain(of_root), false, &[]).await;
}

#[tokio::test]
async fn if_namespaces_are_refused_landlock_and_seccomp_stop_all_but_the_listed_attempts() {
    if support::namespaces_are_refused(
        "if_namespaces_are_refused_landlock_and_seccomp_stop_all_but_the_listed_attempts",
    ) {
        // Skip attempts to create namespaces, since they fail here even without the sandbox.
        let attempts = by_any_user().filter(|(name, _)| !name.contains("namespace"));
        attempt_all(attempts, true, THROUGH_WITHOUT_NAMESPACES).await;
    }
}

#[tokio::test]
async fn without_namespaces_the_gaps_are_reported_and_nothing_is_left_running() {
    if !support::namespaces_are_refused(
        "without_namespaces_the_gaps_are_reported_and_nothing_is_left_running",
    ) {
        return;
    }
    let fixture = Fixture::new();
    let sandbox =
        fixture.with_overrides(fixture.policy(), Overrides { no_bubblewrap: true, ..Overrides::default() });
    let report = sandbox.probe().await.unwrap();
    assert!(
        report.enforced && report.seccomp && !report.user_namespaces && report.network_isolated,
        "{report:?}"
    );
    for output in ["even on loopback", ".git is writable", "Refused by this system"] {
        assert!(report.lines.iter().any(|l| l.contains(output)), "{report:?}");
    }
    let mark = fixture.unique();
    let line = format!("echo in > inside; setsid sleep 1000.{mark} &");
    sandbox.run(Command::shell(line)).await.unwrap();
    assert!(fixture.root().join("inside").exists());
    assert_eq!(support::alive(&mark), 0);
}

#[tokio::test]
async fn with_namespaces_from_bubblewrap_no_attempt_succeeds() {
    const TEST: &str = "with_namespaces_from_bubblewrap_no_attempt_succeeds";
    if !["/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap"]
        .iter()
        .any(|p| std::path::Path::new(p).exists())
    {
        // Write to the terminal even if test output is captured.
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: {TEST}, because there is no bwrap; apt-get install bubblewrap"
        );
        return;
    }
    if !support::namespaces_are_refused(TEST) {
        return;
    }
    let report = Fixture::new().on().probe().await.unwrap().clone();
    assert!(report.user_namespaces && report.seccomp && report.network_isolated, "{report:?}");
    assert!(report.summary.starts_with("namespaces (bubblewrap), Landlock "), "{report:?}");
    let mut through = Vec::new();
    for (name, line) in by_any_user().filter(|(name, _)| !name.contains("namespace")) {
        through.extend(
            attempt_with(&line, false, Overrides::default(), |policy| policy)
                .await
                .map(|text| format!("{name}: {text}")),
        );
    }
    assert_eq!(through, Vec::<String>::new());
}

#[tokio::test]
async fn with_namespaces_from_bubblewrap_commands_work() {
    const TEST: &str = "with_namespaces_from_bubblewrap_commands_work";
    if !["/usr/bin/bwrap", "/bin/bwrap", "/usr/local/bin/bwrap"]
        .iter()
        .any(|p| std::path::Path::new(p).exists())
    {
        let _ = writeln!(
            std::io::stderr(),
            "NOT RUN: {TEST}, because there is no bwrap; apt-get install bubblewrap"
        );
        return;
    }
    if !support::namespaces_are_refused(TEST) {
        return;
    }
    let fixture = Fixture::new();
    let sandbox = fixture.with(Policy { hosts: vec!["example.org".parse().unwrap()], ..fixture.policy() });
    let serve = "import http.server, threading, urllib.request as u\n\
                 s = http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
                 threading.Thread(target=s.serve_forever, daemon=True).start()\n\
                 print(u.urlopen(f'http://127.0.0.1:{s.server_port}/a.txt').read().decode())";
    let done = sandbox.run(Command::new("python3", ["-Sc", serve])).await.unwrap();
    assert!(done.output.text().contains("a\n"), "{}", done.output.text());
    let asked =
        "python3 -Sc \"import urllib.request as u; u.urlopen('http://127.0.0.1.example.org/')\"; true";
    let done = sandbox.run(Command::shell(asked)).await.unwrap();
    assert_eq!(done.refused, ["network: refused 127.0.0.1.example.org:80: not an allowed host"]);
    let mark = fixture.unique();
    let line = format!("echo in > inside; echo x > /tmp/x; cat /tmp/x; setsid sleep 1000.{mark} & exit 7");
    let done = sandbox.run(Command::shell(line)).await.unwrap();
    assert_eq!((done.status.code(), done.output.text().as_str()), (Some(7), "x\n"));
    assert!(fixture.root().join("inside").exists());
    assert_eq!(support::alive(&mark), 0);
    let late = Command {
        timeout: std::time::Duration::from_millis(300),
        ..Command::shell("trap '' TERM; sleep 1000")
    };
    assert_eq!(sandbox.run(late).await.unwrap().status, sandbox::Status::TimedOut);
}
