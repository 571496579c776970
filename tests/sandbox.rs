//! `agent sandbox`: the sandbox as users see it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::support::{World, snapshot};

impl World {
    /// Runs a shell command with `agent sandbox` and these flags.
    fn confined(&self, flags: &[&str], line: &str) -> String {
        self.observe(&[&["sandbox"], flags, &["--", "sh", "-c", line]].concat())
    }
}

#[test]
fn a_sandboxed_command_passes_its_output_and_exit_code_through() {
    let world = World::with(&[("a.txt", "a\n")]);
    snapshot!(world.confined(&[], "cat a.txt; echo two >&2; printf three; exit 7"), @r"
    exit 7
    --- stdout
    a
    two
    three<no newline>
    ");
    snapshot!(world.confined(&[], "kill -9 $$"), @"exit 137");
    snapshot!(world.observe(&["sandbox", "no-such-program", "-x"]), @r#"
    exit 127
    --- stderr
    error: cannot start "no-such-program": No such file or directory (os error 2)
    "#);
    snapshot!(world.confined(&["--command-seconds", "1"], "echo begun; sleep 1000"), @r"
    exit 124
    --- stdout
    begun
    --- stderr
    stopped: reached the time limit of [TIME] (--command-seconds)
    ");
}

#[test]
fn explain_does_not_run_the_command() {
    let seen = World::new().observe(&["sandbox", "--explain"]);
    for line in
        ["exit 0", "Files: ", "Network: nothing outside", "Processes: ", "System calls: ", "Landlock: "]
    {
        assert!(seen.contains(line), "{seen}");
    }
}

#[test]
fn commands_cannot_read_the_home_folder_or_the_agents_state() {
    let world = World::new();
    world.write_user_settings("max_turns = 3\n");
    fs::create_dir_all(world.home().join(".ssh")).unwrap();
    fs::write(world.home().join(".ssh/id"), "key\n").unwrap();
    fs::create_dir_all(world.home().join(".local/state/agent/sessions/x")).unwrap();
    let line = "cat $HOME/.ssh/id $HOME/.config/agent/config.toml 2>/dev/null; ls $HOME/.local/state/agent 2>/dev/null; \
                (echo x > $HOME/x) 2>/dev/null; [ -z \"$DEEPSEEK_API_KEY\" ] && echo none";
    let mut command = world.agent(&["sandbox", "--", "sh", "-c", line]);
    let seen = world.tell(&command.env("DEEPSEEK_API_KEY", "sk-secret").output().unwrap());
    assert!(seen.starts_with("exit 0\n--- stdout\nnone\n"), "{seen}");
    assert!(!world.home().join("x").exists());
}

#[test]
fn flags_and_user_settings_allow_further_paths() {
    let world = World::new();
    for folder in ["data", "out"] {
        fs::create_dir_all(world.home().join(folder)).unwrap();
    }
    fs::write(world.home().join("data/a"), "data\n").unwrap();
    let line = "cat ~/data/a > ~/out/a && echo x > ~/data/b";
    assert!(!world.confined(&[], line).starts_with("exit 0"));
    world.write_user_settings("allow_read = '~/data'\n");
    let out = world.home().join("out").display().to_string();
    let seen = world.confined(&["--allow-write", &out], line);
    assert!(!seen.starts_with("exit 0"), "the folder that may be read should not be writable: {seen}");
    assert_eq!(fs::read_to_string(world.home().join("out/a")).unwrap(), "data\n");
    assert!(!world.home().join("data/b").exists());
    snapshot!(world.confined(&["--allow-read", "data"], "true"), @r#"
    exit 2
    --- stderr
    error: invalid path "data" for commands: it must start with / or ~/
    "#);
    snapshot!(world.confined(&["--allow-read", "/no/such/place"], "true"), @r"
    exit 2
    --- stderr
    error: cannot use a path in the sandbox policy: /no/such/place: No such file or directory (os error 2)
    ");
}

#[test]
fn a_repository_cannot_allow_paths_or_hosts() {
    let world = World::new();
    for line in [
        "allow_read = '/'",
        "allow_write = '/'",
        "command_network = 'full'",
        "allow_hosts = 'example.org'",
        "sandbox = false",
        "command_memory = 16",
    ] {
        world.write(".agent.toml", &format!("{line}\n"));
        let seen = world.confined(&[], "echo x > ~/x; true");
        assert!(!world.home().join("x").exists(), "{line}: {seen}");
        assert!(seen.contains(line.split(' ').next().unwrap()), "the refusal should be reported: {seen}");
    }
}

/// Starts a server that sends the same page over every connection, and returns its address.
fn page() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage");
        }
    });
    address
}

const FETCH: &str = "import sys, urllib.request\ntry: print(urllib.request.urlopen(sys.argv[1]).read().decode())\nexcept Exception as e: print(e)\n";

#[test]
fn allowed_hosts_are_reachable_and_refused_ones_are_reported() {
    let world = World::with(&[("fetch.py", FETCH)]);
    let address = page();
    let line = format!("python3 -S fetch.py http://{address}/; python3 -S fetch.py http://example.org/");
    snapshot!(world.confined(&["--allow-host", &address, "--allow-host", "docs.test,*.docs.test:81"], &line), @r"
    exit 0
    --- stdout
    page
    HTTP Error 403: Forbidden
    --- stderr
    network: refused example.org:80: not an allowed host
    ");
    let seen = world.confined(&[], &line);
    assert!(!seen.contains("page") && !seen.contains("network: "), "{seen}");
    world.write_user_settings(&format!("allow_hosts = 'docs.test, {address}'\n"));
    let seen = world.confined(&[], &line);
    assert!(seen.contains("--- stdout\npage\n"), "{seen}");
    let seen = world.observe(&["sandbox", "--explain"]);
    assert!(seen.contains("only docs.test, 127.0.0.1:"), "{seen}");
    snapshot!(world.confined(&["--allow-host", "https://example.org/"], "true"), @r#"
    exit 2
    --- stderr
    error: "https://example.org/" is not a host: write NAME, *.NAME or an address, with :PORT unless the port is 443 or 80
    "#);
    let mut command = world.agent(&["sandbox", "--", "true"]);
    snapshot!(world.tell(&command.env("AGENT_COMMAND_NETWORK", "none").output().unwrap()), @r#"
    exit 2
    --- stderr
    error: command_network = "none" conflicts with allow_hosts: without a network, no host can be reached
    "#);
}

#[test]
fn the_work_tree_can_be_read_only() {
    let world = World::with(&[("a.txt", "a\n")]);
    let seen = world.confined(&["--command-read-only"], "cat a.txt && echo x > /tmp/x && echo x > a.txt");
    assert!(seen.contains("\na\n") && !seen.starts_with("exit 0"), "{seen}");
    assert_eq!(world.read("a.txt"), "a\n");
}

#[test]
fn running_without_the_sandbox_prints_a_warning() {
    let world = World::new();
    let seen = world.confined(&["--dangerously-no-sandbox"], "echo x > ~/x");
    assert!(seen.starts_with("exit 0") && world.home().join("x").exists(), "{seen}");
    let seen = world.observe(&["sandbox", "--dangerously-no-sandbox", "--explain"]);
    assert!(seen.contains("Commands are not confined"), "{seen}");
}

#[test]
fn limits_are_set_by_flags() {
    let world = World::new();
    let large = "python3 -c 'import time; b = b\"x\" * (200 << 20); time.sleep(1000)'";
    snapshot!(world.confined(&["--command-memory", "100"], large), @r"
    exit 124
    --- stderr
    stopped: reached the memory limit (--command-memory)
    ");
    let seen = world.confined(&["--command-file-size", "1"], "head -c 3000000 /dev/zero > f");
    assert!(!seen.starts_with("exit 0") && world.read("f").len() == 1 << 20, "{seen}");
}

/// The command follows links in an untrusted repository, runs the repository's own `git` and writes
/// to `.git`.
#[test]
fn a_repository_cannot_lead_a_command_outside() {
    let world = World::with(&[("src/a.txt", "a\n")]);
    fs::write(world.home().join("secret"), "secret\n").unwrap();
    symlink(world.home().join("secret"), world.repo().join("link")).unwrap();
    symlink(world.home(), world.repo().join("folder")).unwrap();
    fs::create_dir(world.repo().join("bin")).unwrap();
    // A `git` in the repository is found only if the command itself adds the repository to PATH.
    world.write("git", "#!/bin/sh\ncat ../home/secret\n");
    let seen = world.confined(&[], "cat link folder/secret; PATH=.:$PATH sh git; echo x >> link; echo x > folder/new; ls -d folder/*; true");
    assert!(seen.starts_with("exit 0") && !seen.contains("--- stdout\nsecret"), "{seen}");
    assert_eq!(fs::read_to_string(world.home().join("secret")).unwrap(), "secret\n");
    assert!(!world.home().join("new").exists());
    // A command cannot plant git hooks or settings that would later run a program outside the
    // sandbox.
    let plant = "echo 'touch planted' > .git/hooks/post-commit; chmod +x .git/hooks/post-commit; git config core.fsmonitor ./x; true";
    world.confined(&[], plant);
    assert!(!world.repo().join(".git/hooks/post-commit").exists());
    assert!(!fs::read_to_string(world.repo().join(".git/config")).unwrap().contains("fsmonitor"));
}

#[test]
fn a_signal_to_the_agent_ends_the_command_and_its_children() {
    let world = World::new();
    let mark = format!("1000.{:020}", std::process::id());
    let line = format!("trap '' TERM; setsid sleep {mark} & echo ready > ready; sleep {mark}");
    let mut child = world.agent(&["sandbox", "--", "sh", "-c", &line]).spawn().unwrap();
    while !world.repo().join("ready").exists() {
        std::thread::yield_now();
    }
    let kill = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(kill.success());
    child.wait().unwrap();
    let alive =
        || Command::new("pgrep").args(["-f", &format!("^sleep {mark}")]).output().unwrap().status.success();
    while alive() {
        std::thread::yield_now();
    }
}
