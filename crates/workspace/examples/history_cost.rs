//! Measures how long it takes to make commits and to watch commands: `cargo run --release -p
//! workspace --example history_cost [FILES…]`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example prints and may panic")]

use std::{fs, path::Path, process::Command, time::Instant};

use workspace::{Change, Expect, History, Workspace};

fn main() {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    for files in if given.is_empty() { vec![50, 20_000] } else { given } {
        for tracked in [true, false] {
            measure(files, tracked);
        }
    }
}

fn measure(files: usize, tracked: bool) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    for i in 0..files {
        let folder = root.join(format!("pkg{}/part{}", i % 20, i % 400));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file{i}.txt")), format!("file {i}\n").repeat(100)).unwrap();
    }
    if tracked {
        git(&root, &["init", "-q"]);
        git(&root, &["add", "-A"]);
        git(&root, &["commit", "-qm", "first"]);
        git(&root, &["repack", "-adq"]);
    }
    let state = outer.path().join("state");
    let ws = Workspace::open_with(&root, &state).unwrap();
    let kind = if tracked { "tracked" } else { "untracked" };
    let report =
        |what: &str, begin: Instant| println!("{files} {kind} files: {what} {:.1?}", begin.elapsed());

    for what in ["commit of one file", "second commit of one file"] {
        let path = ws.target("pkg0/part0/file0.txt").unwrap();
        let change =
            Change::Write { path, bytes: what.as_bytes().to_vec(), executable: None, expect: Expect::Any };
        let begin = Instant::now();
        ws.commit(vec![change]).unwrap();
        report(what, begin);
    }
    for (command, script) in [
        ("that does nothing, first run", ""),
        ("that does nothing", ""),
        ("that changes one file", "echo x > pkg1/part1/file1.txt"),
        ("that changes all files", "find . -name '*.txt' -exec sed -i s/file/line/ {} +"),
    ] {
        let begin = Instant::now();
        let watch = ws.watch().unwrap();
        report(&format!("before a command {command}"), begin);
        assert!(Command::new("sh").args(["-c", script]).current_dir(&root).status().unwrap().success());
        let begin = Instant::now();
        ws.watched(watch).unwrap();
        report(&format!("after a command {command}"), begin);
    }
    let begin = Instant::now();
    let net = History::open(&state).unwrap().standing(..).unwrap();
    report(&format!("net change of {} files", net.len()), begin);
    let begin = Instant::now();
    ws.put_back(&net).unwrap();
    report(&format!("undo of {} files", net.len()), begin);
}

fn git(root: &Path, arguments: &[&str]) {
    let name = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    assert!(Command::new("git").current_dir(root).args(name).args(arguments).status().unwrap().success());
}
