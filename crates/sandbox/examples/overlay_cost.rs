//! Prints how much an overlay of a large repository costs compared with a copy: `cargo run -p
//! sandbox --example overlay_cost [FILES]`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for use at a terminal")]

use std::{env, fs, path::Path, process::Command, process::ExitCode, time::Instant};

use sandbox::overlay;
use workspace::Workspace;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["launcher"] => return sandbox::launcher_main(),
        ["enter", root, dir] => enter(Path::new(root), Path::new(dir)),
        [] => measure(100_000),
        [files, ..] => measure(files.parse().unwrap()),
    }
    ExitCode::SUCCESS
}

fn enter(root: &Path, dir: &Path) {
    let begin = Instant::now();
    let overlay = overlay::enter(root, dir, root).unwrap();
    println!("entering the overlay {:?}", begin.elapsed());
    git(root, &["status", "--short"], "first git status in the overlay");
    fs::write(root.join("pkg0/part0/file0.txt"), "changed\n").unwrap();
    git(root, &["status", "--short"], "second git status, after a change");
    let begin = Instant::now();
    drop(overlay);
    println!("removing the overlay {:?}", begin.elapsed());
}

fn git(root: &Path, arguments: &[&str], what: &str) {
    let begin = Instant::now();
    // Turn off git's background maintenance, which would disturb the measurement.
    let name = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "gc.auto=0"];
    let output = Command::new("git").current_dir(root).args(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("{what} {:?}", begin.elapsed());
}

fn measure(files: usize) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    for i in 0..files {
        let folder = root.join(format!("pkg{}/part{}", i % 50, i % 2_000));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file{i}.txt")), format!("file {i}\n").repeat(300)).unwrap();
    }
    println!("{files} files");
    git(&root, &["init", "-q"], "git init");
    git(&root, &["add", "-A"], "git add");
    git(&root, &["commit", "-qm", "first"], "git commit");
    git(&root, &["status", "--short"], "git status");
    // Flush to disk, as if the repository had existed for a while.
    rustix::fs::sync();
    let dir = outer.path().join("session");
    let begin = Instant::now();
    let said = overlay::probe(&root, &dir, &["/proc/self/exe".into(), "launcher".into()]);
    println!("probing an overlay {:?}: {said:?}", begin.elapsed());
    let me = env::current_exe().unwrap();
    assert!(said.is_err() || Command::new(me).arg("enter").args([&root, &dir]).status().unwrap().success());
    let ws = Workspace::open(&root).unwrap();
    let begin = Instant::now();
    println!("{:?} in {:?}", ws.copy_cost(&dir).unwrap(), begin.elapsed());
    let begin = Instant::now();
    let report = ws.copy_to(&outer.path().join("copy")).unwrap();
    println!("a copy {:?}: {} files, {} shared", begin.elapsed(), report.files, report.reflinked);
}
