//! Special files: pipes, devices, link loops, and files larger than any disk.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::{edit, finish, read};
use crate::support::{World, call};
use serde_json::json;

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn pipes_devices_and_link_loops_are_refused_with_a_reason() {
    let world = World::with(&[("a.txt", "one\n"), ("folder/b.txt", "b\n")]);
    let at = |name: &str| world.repo().join(name);
    pipe(&at("pipe"));
    let _socket = UnixListener::bind(at("socket")).unwrap();
    for (to, name) in [
        ("/dev/zero", "zero"),
        ("/dev/random", "random"),
        ("/dev/tty", "tty"),
        ("pipe", "to-pipe"),
        ("round", "round"),
        ("there", "back"),
        ("back", "there"),
        ("/proc/self/environ", "environ"),
        ("/proc/self/fd", "fds"),
        ("nowhere", "dangling"),
        ("a.txt", "inside"),
        (".", "self"),
    ] {
        symlink(to, at(name)).unwrap();
    }
    let names = [
        "pipe", "socket", "zero", "random", "tty", "to-pipe", "round", "back", "environ", "fds/0",
        "dangling", "folder", "a.txt/x",
    ];
    let mut refusals = Vec::new();
    for name in names {
        let (_, prompts) = world.obey([read(name), edit(name, "x", "y"), finish()]);
        let first = |prompt: &String| {
            prompt.lines().find(|line| !line.ends_with(": refused")).unwrap_or_default().to_owned()
        };
        refusals.push(format!(
            "{name}: {}",
            prompts[1..].iter().take(2).map(first).collect::<Vec<_>>().join(" / ")
        ));
    }
    insta::assert_snapshot!(refusals.join("\n"), @r"
    pipe: pipe is a named pipe, not a file / nothing was applied: pipe is a named pipe, not a file
    socket: socket is a socket, not a file / nothing was applied: socket is a socket, not a file
    zero: Not run: zero (a symbolic link) is outside the repository; use a path relative to its root / Not run: nothing was applied: zero (a symbolic link) is outside the repository; use a path relative to its root
    random: Not run: random (a symbolic link) is outside the repository; use a path relative to its root / Not run: nothing was applied: random (a symbolic link) is outside the repository; use a path relative to its root
    tty: Not run: tty (a symbolic link) is outside the repository; use a path relative to its root / Not run: nothing was applied: tty (a symbolic link) is outside the repository; use a path relative to its root
    to-pipe: to-pipe is a named pipe, not a file / nothing was applied: pipe is a named pipe, not a file
    round: Not run: round: Too many levels of symbolic links (os error 40) / Not run: nothing was applied: round: Too many levels of symbolic links (os error 40)
    back: Not run: back: Too many levels of symbolic links (os error 40) / Not run: nothing was applied: back: Too many levels of symbolic links (os error 40)
    environ: Not run: environ (a symbolic link) is outside the repository; use a path relative to its root / Not run: nothing was applied: environ (a symbolic link) is outside the repository; use a path relative to its root
    fds/0: Not run: fds/0 (a symbolic link) is outside the repository; use a path relative to its root / Not run: nothing was applied: fds/0 (a symbolic link) is outside the repository; use a path relative to its root
    dangling: Not run: dangling does not exist / Not run: nothing was applied: dangling: it is a dangling symbolic link
    folder: folder is a directory; list it with list_files / nothing was applied: folder is a directory; list it with list_files
    a.txt/x: Not run: a.txt/x does not exist / Not run: nothing was applied: a.txt/x: its parent is not a directory
    ");
    let (_, prompts) = world.obey([
        call("search", json!({"pattern": "one"})),
        call("list_files", json!({})),
        edit("a.txt", "one", "two"),
        finish(),
    ]);
    assert!(prompts[1].contains("a.txt:1: one"), "{prompts:?}");
    world.look_at_everything();
}

#[test]
fn a_pipe_or_device_in_place_of_a_settings_file_does_not_block() {
    for name in [
        ".gitignore",
        ".ignore",
        ".gitattributes",
        ".gitmodules",
        "folder/.gitignore",
        "folder/.ignore",
        "folder/.gitattributes",
        "AGENTS.md",
        ".agent.toml",
    ] {
        for device in [None, Some("/dev/zero")] {
            let world = World::with(&[("a.txt", "one\n"), ("folder/b.txt", "b\n")]);
            let at = world.repo().join(name);
            match device {
                None => pipe(&at),
                Some(device) => symlink(device, at).unwrap(),
            }
            let (output, prompts) = world.obey([
                call("search", json!({"pattern": "one"})),
                call("list_files", json!({})),
                edit("a.txt", "one", "two"),
                super::command("echo x > made.txt"),
                finish(),
            ]);
            let seen = world.tell(&output);
            if name != ".agent.toml" {
                assert!(
                    seen.contains("+two") && seen.contains("made.txt"),
                    "{name} {device:?}: {seen}\n{prompts:?}"
                );
            }
            world.look_at_everything();
        }
    }
}

#[test]
fn a_file_of_ten_gigabytes_is_neither_read_nor_copied() {
    let world = World::with(&[("a.txt", "one\n")]);
    let large = world.repo().join("large.bin");
    File::create(&large).unwrap().set_len(10 << 30).unwrap();
    let calls = || {
        [
            read("large.bin"),
            call("read_file", json!({"path": "large.bin", "start_line": 5, "end_line": 6})),
            call("search", json!({"pattern": "one"})),
            edit("large.bin", "x", "y"),
            super::command("ls -l large.bin | wc -l; echo x > made.txt; truncate -s 11G larger.bin"),
            edit("a.txt", "one", "two"),
            finish(),
        ]
    };
    let (output, prompts) = world.obey(calls());
    let seen = world.tell(&output);
    assert!(seen.contains("+two") && seen.contains("made.txt"), "{seen}");
    assert!(prompts[1].contains("too large") && prompts[2].contains("too large"), "{prompts:?}");
    assert!(prompts[3].contains("a.txt:1: one"), "{prompts:?}");
    world.look_at_everything();
    assert_eq!(world.read("a.txt"), "one\n");
    let (output, _) = world.obey_with(&["--dry-run"], calls());
    assert!(world.tell(&output).contains("+two"), "{}", world.tell(&output));
    let held = std::process::Command::new("du").args(["-sm"]).arg(world.home()).output().unwrap();
    let held: u64 = String::from_utf8(held.stdout).unwrap().split('\t').next().unwrap().parse().unwrap();
    assert!(held < 100, "{held} MiB are kept");
}
