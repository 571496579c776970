//! Tests that changes made by commands are recorded byte for byte, even if git converts contents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod common;

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use common::{Setting, git, tree};
use workspace::{BringError, NetChange, Workspace};

type Reported = (String, Option<Vec<u8>>, Option<Vec<u8>>);

fn changes(s: &Setting) -> Vec<Reported> {
    let bytes = |image: Option<workspace::FileImage>| image.map(|i| i.bytes);
    let report = |c: NetChange| (c.path.to_string(), bytes(c.before), bytes(c.after));
    s.history().net(..).unwrap().into_iter().map(report).collect()
}

fn changed(path: &str, before: &[u8], after: &[u8]) -> Reported {
    (path.to_owned(), Some(before.to_vec()), Some(after.to_vec()))
}

/// Runs a script, undoes its changes, and checks that the tree is as it was before.
fn run_and_undo(s: &Setting, script: &str) {
    let before = tree(s.ws.root());
    s.run(script);
    assert_ne!(tree(s.ws.root()), before, "{script}");
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before, "{script}");
}

/// Makes all files older than the index, so that git trusts their metadata.
fn settle(root: &Path) {
    let now = SystemTime::now();
    for path in fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        File::open(path).unwrap().set_modified(now - Duration::from_secs(60)).unwrap();
    }
    while now.elapsed().unwrap() < Duration::from_millis(100) {
        git(root, &["update-index", "-q", "--refresh"]);
    }
}

/// Creates a file whose creation time is certainly later than the time of this call.
fn put_later(path: &Path) {
    let before = SystemTime::now();
    loop {
        fs::write(path, "n\n").unwrap();
        if fs::metadata(path).unwrap().created().unwrap() > before {
            break;
        }
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn an_undo_reverts_whatever_a_command_does_to_files() {
    for script in [
        "sed -i s/a/b/ a.txt",
        "printf b > a.txt",
        ": > a.txt",
        "chmod 755 a.txt; chmod 444 b.txt",
        "rm link; ln -s b.txt link",
        "rm a.txt; ln -s b.txt a.txt",
        "rm link; echo file > link",
        "ln -s /etc/passwd outside; ln -s nowhere dangling",
        "mv src lib",
        "mv a.txt b.txt",
        "rm -r src a.txt b.txt link .gitignore",
        "mkdir -p one/two/three; touch one/two/three/empty one/x",
        "git rm -q b.txt; git mv a.txt moved.txt; git -c user.name=t -c user.email=t@e commit -qm second",
        "echo x > 'a name with \"quotes\", \\ and größe'",
        "head -c 100000 /dev/urandom > random.bin",
        "cp a.txt copy.txt; cp -p b.txt older.txt; touch -d 2001-01-01 copy.txt",
        "mv a.txt c; mv b.txt a.txt; mv c b.txt",
        "chmod 000 a.txt; chmod 600 a.txt",
    ] {
        run_and_undo(&Setting::repository(), script);
    }
}

#[test]
fn contents_that_git_has_are_restored_without_a_copy() {
    let s = Setting::repository();
    settle(s.ws.root());
    run_and_undo(&s, "echo x > a.txt; rm b.txt; chmod 600 src/c.txt");
}

/// A scan reads a file only if its metadata has changed or is too recent to rely on. These scripts
/// preserve the size and modification time of each file.
#[test]
fn a_change_that_keeps_size_and_time_is_detected() {
    let in_place = "touch -r a.txt x.log; printf 'X\\n' > a.txt; touch -r x.log a.txt";
    for (script, paths) in [
        (in_place, &["a.txt"][..]),
        ("touch -r a.txt b.txt; mv a.txt c; mv b.txt a.txt; mv c b.txt", &["a.txt", "b.txt"]),
        ("mv a.txt c.txt", &["a.txt", "c.txt"]),
        (
            "mkdir new; printf 'X\\n' > new/c.txt; touch -r src/c.txt new/c.txt; rm -r src; mv new src",
            &["src/c.txt"],
        ),
    ] {
        let s = Setting::repository();
        settle(s.ws.root());
        let baseline = workspace::Baseline::of(&s.ws, s.state()).unwrap();
        s.run(script);
        assert_eq!(changes(&s).into_iter().map(|(path, ..)| path).collect::<Vec<_>>(), paths, "{script}");
        let mut now = baseline.changed().unwrap();
        now.sort();
        assert_eq!(now, paths, "{script}");
    }
}

#[test]
fn a_second_write_in_the_same_clock_tick_is_detected() {
    let s = Setting::repository();
    for i in 0..20_u32 {
        let (old, new) = (format!("{}\n", i % 10), format!("{}\n", (i + 1) % 10));
        s.put("a.txt", &old);
        let watch = s.ws.watch().unwrap();
        s.put("a.txt", &new);
        assert!(s.ws.watched(watch).unwrap().is_some(), "{i}");
    }
}

#[test]
fn ignored_files_and_files_that_are_only_touched_are_not_reported() {
    let s = Setting::repository();
    assert_eq!(s.run("touch a.txt; cp b.txt x; mv x b.txt; echo x > x.log; rm -r ignored"), None);
    assert_eq!(s.run(""), None);
}

#[test]
fn ignored_files_that_are_tracked_or_edited_are_watched() {
    let s = Setting::repository();
    s.put("tracked.log", "t\n");
    git(s.ws.root(), &["add", "-f", "tracked.log"]);
    s.edit("ignored/own", "1\n");
    s.run("echo T > tracked.log; echo 2 > ignored/own; echo x > ignored/cache");
    assert_eq!(
        changes(&s),
        [("ignored/own".into(), None, Some(b"2\n".to_vec())), changed("tracked.log", b"t\n", b"T\n")]
    );
    assert!(s.history().net(..).unwrap().iter().all(|c| !c.foreign));
}

#[test]
fn a_change_of_ignore_rules_neither_creates_nor_removes_files() {
    let s = Setting::repository();
    let watch = s.ws.watch().unwrap();
    s.script("echo '*.txt' > .gitignore; echo more >> src/c.txt; echo n > new.md");
    put_later(&s.ws.root().join("ignored/made"));
    s.ws.watched(watch).unwrap();
    assert_eq!(
        changes(&s).into_iter().map(|(path, ..)| path).collect::<Vec<_>>(),
        [".gitignore", "ignored/made", "new.md", "src/c.txt"]
    );
    assert_eq!(s.read("ignored/cache"), "cache\n");
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!([s.read("a.txt"), s.read("ignored/cache")], ["a\n", "cache\n"]);
    let without = Setting::repository();
    without.run("rm .gitignore");
    without.ws.put_back(&without.history().standing(..).unwrap()).unwrap();
    assert_eq!(without.read("ignored/cache"), "cache\n");
}

#[test]
fn files_created_together_with_ignore_rules_belong_to_the_command() {
    let s = Setting::repository();
    run_and_undo(
        &s,
        "mkdir app; echo '*.log' > app/.gitignore; echo x > app/main.rs; echo '*.tmp' >> .gitignore",
    );
    run_and_undo(&s, "echo '# nothing' >> .git/info/exclude; echo x > new.txt");
    // The command stops git from ignoring a file that someone else created. That file is not one of
    // the command's changes.
    s.put("keep.log", "log\n");
    s.run("echo '!keep.log' >> .gitignore");
    let standing = s.history().standing(..).unwrap();
    assert_eq!(standing.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), [".gitignore"]);
}

#[test]
fn contents_that_git_converts_are_restored_byte_for_byte() {
    let s = Setting::repository();
    let root = s.ws.root();
    git(root, &["config", "filter.swap.clean", "tr ab ba"]);
    git(root, &["config", "filter.swap.smudge", "tr ab ba"]);
    s.put(
        ".gitattributes",
        "*.crlf text eol=crlf\n*.swap filter=swap\n*.id ident\n*.utf16 working-tree-encoding=UTF-16LE\n",
    );
    let files: [(&str, &[u8]); 4] =
        [("x.crlf", b"1\r\n2\r\n"), ("x.swap", b"abba\n"), ("x.id", b"$Id$\n"), ("x.utf16", b"a\0\n\0")];
    for (path, bytes) in files {
        fs::write(root.join(path), bytes).unwrap();
    }
    git(root, &["add", "-A"]);
    git(root, &["commit", "-qm", "second"]);
    s.script("rm x.*; git checkout -q .");
    let before: Vec<_> = files.iter().map(|(path, _)| fs::read(root.join(path)).unwrap()).collect();
    settle(root);
    let ws = Workspace::open_with(root, s.outer().join("other")).unwrap();
    let watch = ws.watch().unwrap();
    for (path, _) in files {
        fs::write(root.join(path), b"new\n").unwrap();
    }
    ws.watched(watch).unwrap().unwrap();
    let net = workspace::History::open(&s.outer().join("other")).unwrap().net(..).unwrap();
    ws.put_back(&net).unwrap();
    let after: Vec<_> = files.iter().map(|(path, _)| fs::read(root.join(path)).unwrap()).collect();
    assert_eq!(after, before);
}

#[test]
fn a_file_too_large_to_keep_is_listed_and_the_others_are_undone() {
    let s = Setting::repository();
    let large = |name: &str, size: u64| File::create(s.ws.root().join(name)).unwrap().set_len(size).unwrap();
    large("large.bin", (64 << 20) + 1);
    s.run("echo x >> large.bin; echo x > x.txt; truncate -s 65M made.bin");
    let history = s.history();
    let left_out: Vec<_> = history.records()[0].left_out.iter().map(|p| p.as_str()).collect();
    assert_eq!(left_out, ["large.bin", "made.bin"]);
    s.ws.put_back(&history.standing(..).unwrap()).unwrap();
    assert!(!s.ws.root().join("x.txt").exists());
    assert!(s.ws.root().join("large.bin").exists());
}

#[test]
fn a_folder_without_git_is_watched_even_if_a_command_runs_git_init() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.txt"), "a\n").unwrap();
    fs::write(root.join(".gitignore"), "*.log\n.agent\n").unwrap();
    let ws = Workspace::open_with(&root, root.join(".state")).unwrap();
    let before = tree(&root);
    let watch = ws.watch().unwrap();
    git(&root, &["init", "-q"]);
    fs::write(root.join("a.txt"), "b\n").unwrap();
    fs::write(root.join("n.txt"), "n\n").unwrap();
    fs::write(root.join("x.log"), "log\n").unwrap();
    ws.watched(watch).unwrap().unwrap();
    let history = workspace::History::open(&root.join(".state")).unwrap();
    let net = history.net(..).unwrap();
    assert_eq!(net.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["a.txt", "n.txt"]);
    ws.put_back(&net).unwrap();
    fs::remove_file(root.join("x.log")).unwrap();
    fs::remove_dir_all(root.join(".git")).unwrap();
    let own = |(path, _): &(String, _)| !path.starts_with(".state");
    assert!(tree(&root).into_iter().filter(own).eq(before.into_iter().filter(own)));
}

#[test]
fn files_with_unknown_former_content_are_listed() {
    let s = Setting::repository();
    settle(s.ws.root());
    s.put("b.txt", "B\n");
    s.run("rm -rf .git; echo x > a.txt; echo x > b.txt; echo n > n.txt");
    assert_eq!(
        changes(&s),
        [changed("b.txt", b"B\n", b"x\n"), ("n.txt".into(), None, Some(b"n\n".to_vec()))]
    );
    assert_eq!(s.history().records()[0].left_out.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["a.txt"]);
}

#[test]
fn names_that_are_not_utf_8_are_reported_and_pipes_are_skipped() {
    let s = Setting::repository();
    let watch = s.ws.watch().unwrap();
    fs::write(s.ws.root().join(OsStr::from_bytes(b"\xff.txt")), "x").unwrap();
    s.script("mkfifo pipe; echo n > n.txt");
    s.ws.watched(watch).unwrap();
    let escaped = ("\\xff.txt".into(), None, Some(b"x".to_vec()));
    assert_eq!(changes(&s), [escaped.clone(), ("n.txt".into(), None, Some(b"n\n".to_vec()))]);
    s.run("rm n.txt; mkfifo n.txt");
    assert_eq!(changes(&s), [escaped]);
}

#[test]
fn a_file_that_became_a_folder_is_a_conflict() {
    let s = Setting::repository();
    s.run("rm a.txt b.txt; mkdir a.txt; echo x > a.txt/x");
    let before = tree(s.ws.root());
    match s.ws.put_back(&s.history().standing(..).unwrap()) {
        Err(BringError::Conflicts(all)) => assert_eq!(all[0].path.as_str(), "a.txt"),
        other => panic!("{other:?}"),
    }
    assert_eq!(tree(s.ws.root()), before);
}

#[test]
fn nothing_is_watched_without_a_state_folder() {
    let s = Setting::repository();
    let ws = Workspace::open(s.ws.root()).unwrap();
    let watch = ws.watch().unwrap();
    s.put("a.txt", "x\n");
    assert_eq!(ws.watched(watch).unwrap(), None);
}

#[test]
fn subfolders_and_nested_repositories_are_watched() {
    let s = Setting::repository();
    let ws = Workspace::open_with(s.ws.root().join("src"), s.outer().join("other")).unwrap();
    let watch = ws.watch().unwrap();
    s.put("src/c.txt", "C\n");
    s.put("a.txt", "elsewhere\n");
    ws.watched(watch).unwrap().unwrap();
    let net = workspace::History::open(&s.outer().join("other")).unwrap().net(..).unwrap();
    assert_eq!(net.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), ["c.txt"]);
    assert_eq!(net[0].before.as_ref().unwrap().bytes, b"c\n");
    s.script("git init -q sub; echo s > sub/s.txt");
    run_and_undo(&s, "echo S > sub/s.txt; echo t > sub/t.txt");
}
