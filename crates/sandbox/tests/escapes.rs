//! Attempts to get out, each shown to succeed without the sandbox and to fail in it; as the user who runs the tests, and, where that
//! is root, also as an ordinary one.

#![allow(clippy::unwrap_used, reason = "a failed expectation of a test may panic")]

#[allow(dead_code, reason = "each test file uses its part")]
mod support;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
};

use sandbox::{Command, Level, Policy, Sandbox};
use support::Fixture;

/// Runs a line without and with the sandbox, each in a fresh place. It prints `escaped` where it gets through.
async fn attempt(name: &str, line: &str) -> Option<String> {
    let mut seen = Vec::new();
    for level in [Level::Off, Level::On] {
        let fixture = Fixture::new();
        fs::write(fixture.home().join("other/victim"), "").unwrap();
        let outside = Outside::new(&fixture);
        let sandbox = fixture.with(Policy { level, ..fixture.policy() });
        let command = Command { env: outside.env.clone(), ..Command::shell(line) };
        let text = sandbox.run(command).await.unwrap().output.text();
        seen.push((text.contains("escaped"), text));
    }
    match &seen[..] {
        [(true, _), (false, _)] => None,
        _ => Some(format!("{name}: (escaped, output) without and with the sandbox: {seen:#?}")),
    }
}

async fn attempt_all(attempts: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (name, line) in attempts {
        wrong.extend(attempt(name, line).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn no_attempt_to_get_out_succeeds() {
    attempt_all(ATTEMPTS).await;
}

#[tokio::test]
async fn no_attempt_of_root_to_get_out_succeeds() {
    if is_root() {
        attempt_all(ATTEMPTS_OF_ROOT).await;
    }
}

/// Runs the first test again as an ordinary user, from a place which that user can read.
#[test]
fn no_attempt_of_an_ordinary_user_succeeds() {
    if !is_root() {
        return; // the first test has done it
    }
    const NOBODY: u32 = 65_534;
    let place = tempfile::tempdir_in(support::place()).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (test, launcher) = (place.path().join("escapes"), place.path().join("launcher"));
    fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    fs::copy(support::launcher(), &launcher).unwrap();
    let output = std::process::Command::new(test)
        .args(["--exact", "no_attempt_to_get_out_succeeds"])
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
async fn the_self_test_passes_and_says_what_is_enforced() {
    let fixture = Fixture::new();
    let report = fixture.on().self_test().await.unwrap();
    assert!(report.enforced && report.network_isolated, "{report:?}");
    assert!(report.lines.len() >= 4);
    assert!(!fixture.off().probe().await.unwrap().enforced);
}

#[tokio::test]
async fn a_launcher_that_does_not_work_stops_the_run_and_names_the_flag() {
    let fixture = Fixture::new();
    let sandbox = Sandbox::new(fixture.policy(), vec!["/bin/true".into()]).unwrap();
    let error = sandbox.run(Command::shell("echo unconfined > ran")).await.unwrap_err();
    assert!(error.to_string().contains("--dangerously-no-sandbox"), "{error}");
    assert!(!fixture.root().join("ran").exists());
}

/// Shell lines and what they try. `$HOME` is the fixture's home directory, the work tree lies in it.
const ATTEMPTS: &[(&str, &str)] = &[
    ("write into the home directory", "echo x > $HOME/new && echo escaped"),
    ("append to a start-up file", "echo x >> $HOME/.bashrc && echo escaped"),
    ("read a key", "cat $HOME/.ssh/id_ed25519 && echo escaped"),
    ("list the home directory's secrets", "ls $HOME/.ssh && echo escaped"),
    ("read another repository", "cat ../other/src.rs && echo escaped"),
    ("read through a symbolic link", "ln -sf $HOME/.ssh link; cat link/id_ed25519 && echo escaped"),
    ("write through a symbolic link", "ln -sf $HOME/other link2; echo x > link2/new && echo escaped"),
    ("a hard link to a file outside", "ln $HOME/other/src.rs hard && echo escaped"),
    ("a hard link out of the work tree", "ln a.txt $HOME/other/hard && echo escaped"),
    ("move a file out", "echo x > moved; mv moved $HOME/other/moved && echo escaped"),
    ("change permissions outside", "chmod 777 $HOME/other/src.rs && echo escaped"),
    ("change times outside", "touch -d 2001-01-01 $HOME/other/src.rs && echo escaped"),
    (
        "delete a file outside",
        "rm -f $HOME/other/victim; [ ! -e $HOME/other/victim ] && ls $HOME/other && echo escaped",
    ),
    ("truncate a file outside", "truncate -s 0 $HOME/other/src.rs && echo escaped"),
    ("write a git hook", "mkdir -p .git/hooks && echo evil > .git/hooks/pre-commit && echo escaped"),
    ("change git's configuration", "echo '[alias]' >> .git/config && echo escaped"),
    ("replace .git", "mv .git dotgit && mkdir .git && echo escaped"),
    ("delete .git", "rm -rf .git; [ ! -e .git ] && echo escaped"),
    ("signal a process outside", "kill -0 $OUTSIDE && echo escaped"),
    (
        "see processes outside",
        "[ -d /proc/$OUTSIDE ] && tr '\\0' ' ' < /proc/$OUTSIDE/cmdline | grep -q . && echo escaped",
    ),
    ("read another process's environment", "cat /proc/$OUTSIDE/environ && echo escaped"),
    ("look into another process's root", "ls /proc/$OUTSIDE/root/ && echo escaped"),
    (
        "connect over TCP",
        "python3 -c 'import socket, os; socket.create_connection((\"127.0.0.1\", int(os.environ[\"TCP\"])), 2); print(\"escaped\")'",
    ),
    (
        "send a UDP packet",
        "python3 -c '
import socket, os
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.5)
s.sendto(b\"ping\", (\"127.0.0.1\", int(os.environ[\"UDP\"])))
s.recv(9); print(\"escaped\")'",
    ),
    (
        "connect to a Unix socket outside",
        "python3 -c 'import socket, os; socket.socket(socket.AF_UNIX).connect(os.environ[\"UNIX\"]); print(\"escaped\")'",
    ),
    (
        "connect to an abstract Unix socket",
        "python3 -c 'import socket, os; socket.socket(socket.AF_UNIX).connect(\"\\0\" + os.environ[\"ABSTRACT\"]); print(\"escaped\")'",
    ),
    (
        "share memory with others",
        "echo x > /dev/shm/escape-$OUTSIDE; [ -e /proc/$OUTSIDE/root/dev/shm/escape-$OUTSIDE ] && rm /dev/shm/escape-$OUTSIDE && echo escaped",
    ),
    (
        "write where everybody may",
        "echo x > /var/tmp/escape-$OUTSIDE; [ -e /proc/$OUTSIDE/root/var/tmp/escape-$OUTSIDE ] && rm /var/tmp/escape-$OUTSIDE && echo escaped",
    ),
];

/// Attempts that need root's rights to succeed without the sandbox.
const ATTEMPTS_OF_ROOT: &[(&str, &str)] = &[
    ("read the password file", "grep -q root /etc/shadow && echo escaped"),
    ("change the system", "echo x > /etc/escape-test && rm /etc/escape-test && echo escaped"),
    ("change a kernel setting", "cat /proc/sys/vm/swappiness > /proc/sys/vm/swappiness && echo escaped"),
    ("mount", "mkdir -p m && mount -t tmpfs none m && umount m && echo escaped"),
    ("change the host name", "hostname $(hostname) && echo escaped"),
    ("make a device", "mknod dev c 1 3 && rm dev && echo escaped"),
    (
        "trace a process outside",
        "cat /proc/$OUTSIDE/mem > /dev/null; dd if=/proc/$OUTSIDE/maps count=1 status=none | grep -q . && echo escaped",
    ),
];

/// The other side of the attempts: servers, and a process that does nothing.
struct Outside {
    process: std::process::Child,
    env: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    _listeners: (TcpListener, UnixListener, UnixListener),
}

impl Outside {
    fn new(fixture: &Fixture) -> Self {
        let process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let path = fixture.home().join("agent.sock");
        let unix = UnixListener::bind(&path).unwrap();
        let name = fixture.unique();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let abstract_socket = UnixListener::bind_addr(&address).unwrap();
        let env = [
            ("OUTSIDE", process.id().to_string()),
            ("TCP", tcp.local_addr().unwrap().port().to_string()),
            ("UDP", udp.local_addr().unwrap().port().to_string()),
            ("UNIX", path.display().to_string()),
            ("ABSTRACT", name),
        ];
        std::thread::spawn(move || {
            let mut bytes = [0; 16];
            while let Ok((_, from)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(b"pong", from);
            }
        });
        let env = env.map(|(n, v)| (n.into(), v.into())).to_vec();
        Self { process, env, _listeners: (tcp, unix, abstract_socket) }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Set in the process that runs this test where namespaces are refused.
const REFUSED: &str = "SANDBOX_TEST_NAMESPACES_REFUSED";

#[tokio::test]
async fn where_namespaces_are_refused_landlock_holds_and_what_it_does_not_stop_is_said() {
    if std::env::var_os(REFUSED).is_none() {
        let name = "where_namespaces_are_refused_landlock_holds_and_what_it_does_not_stop_is_said";
        let refuse = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
        let output = std::process::Command::new("unshare")
            .args(["-U", "-r", "sh", "-c", refuse, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(REFUSED, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let fixture = Fixture::new();
    let sandbox = fixture.on();
    let report = sandbox.probe().await.unwrap();
    assert!(report.enforced && !report.user_namespaces && report.network_isolated, "{report:?}");
    assert!(report.lines.iter().any(|l| l.contains("loopback too")), "{report:?}");
    let mark = fixture.unique();
    let line = format!(
        "echo in > inside; cat $HOME/.ssh/id_ed25519 && echo escaped; echo x > $HOME/new && echo escaped; setsid sleep 1000.{mark} &"
    );
    let text = sandbox.run(Command::shell(line)).await.unwrap().output.text();
    assert!(!text.contains("escaped") && fixture.root().join("inside").exists(), "{text}");
    assert_eq!(support::alive(&mark), 0);
}
