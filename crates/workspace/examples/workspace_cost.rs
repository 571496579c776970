//! Measures how long baselines, commits, diffs, walks, searches and copies take:
//! `cargo run --release -p workspace --example workspace_cost`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example prints and may panic")]

use std::{fs, process::Command, time::Instant};

use workspace::{Baseline, Change, Expect, WalkFilter, Workspace};

fn main() {
    for files in [50, 10_000] {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        for i in 0..files {
            let folder = root.join(format!("pkg{}/part{}", i % 20, i % 400));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(format!("file{i}.txt")), format!("file {i}\n").repeat(100)).unwrap();
        }
        let git = |arguments: &[&str]| {
            let name = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
            assert!(
                Command::new("git").current_dir(&root).args(name).args(arguments).status().unwrap().success()
            );
        };
        git(&["init", "-q"]);
        let bare = Instant::now();
        let none = Baseline::take(&root, &outer.path().join("first")).unwrap();
        println!("{files} files: baseline without an index {:?}", bare.elapsed());
        drop(none);
        git(&["add", "-A"]);
        git(&["commit", "-qm", "first"]);
        let begin = Instant::now();
        let baseline = Baseline::take(&root, &outer.path().join("state")).unwrap();
        println!("{files} files: baseline {:?}", begin.elapsed());
        let ws = Workspace::open_with(&root, outer.path().join("state")).unwrap();
        let begin = Instant::now();
        let path = ws.target("pkg0/part0/file0.txt").unwrap();
        let change = Change::Write { path, bytes: b"x\n".to_vec(), executable: None, expect: Expect::Any };
        ws.commit(vec![change]).unwrap();
        println!("{files} files: commit of one file {:?}", begin.elapsed());
        let begin = Instant::now();
        println!(
            "{files} files: diff of {} changed files {:?}",
            baseline.diff().unwrap().files.len(),
            begin.elapsed()
        );
        let begin = Instant::now();
        let found = ws.walk(&WalkFilter::default()).entries.len();
        println!("{files} files: walk of {found} files {:?}", begin.elapsed());
        let begin = Instant::now();
        let nearest = ws.nearest("pkg/file77.txt", 3);
        println!("{files} files: search for similar paths {:?} {nearest:?}", begin.elapsed());
        let begin = Instant::now();
        let report = ws.copy_to(&outer.path().join("copy")).unwrap();
        println!(
            "{files} files: copy {:?}, {} files, {} bytes, {} files with shared blocks",
            begin.elapsed(),
            report.files,
            report.bytes,
            report.reflinked
        );
    }
}
