//! What commands change is known byte for byte, however git would have it; and what they do not change is left out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

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

type Told = (String, Option<Vec<u8>>, Option<Vec<u8>>);

fn told(s: &Setting) -> Vec<Told> {
    let bytes = |image: Option<workspace::FileImage>| image.map(|i| i.bytes);
    let tell = |c: NetChange| (c.path.to_string(), bytes(c.before), bytes(c.after));
    s.history().net(..).unwrap().into_iter().map(tell).collect()
}

fn changed(path: &str, before: &[u8], after: &[u8]) -> Told {
    (path.to_owned(), Some(before.to_vec()), Some(after.to_vec()))
}

/// Runs it, undoes it, and wants everything as it was.
fn there_and_back(s: &Setting, script: &str) {
    let before = tree(s.ws.root());
    s.run(script);
    assert_ne!(tree(s.ws.root()), before, "{script}");
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before, "{script}");
}

/// Waits until no file can change unnoticed any more, and has git take note of all of them.
fn settle(root: &Path) {
    let now = SystemTime::now();
    for path in fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        File::open(path).unwrap().set_modified(now - Duration::from_secs(60)).unwrap();
    }
    while now.elapsed().unwrap() < Duration::from_millis(100) {
        git(root, &["update-index", "-q", "--refresh"]);
    }
}

/// Makes a file when the clock of the file system has moved on, so that it is certain that it was not there before.
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
fn whatever_a_command_does_to_files_is_undone() {
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
        there_and_back(&Setting::repository(), script);
    }
}

#[test]
fn what_git_has_is_not_copied_and_known_all_the_same() {
    let s = Setting::repository();
    settle(s.ws.root());
    there_and_back(&s, "echo x > a.txt; rm b.txt; chmod 600 src/c.txt");
}

#[test]
fn a_file_written_again_within_the_same_moment_is_seen() {
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
fn a_touched_file_is_not_changed_and_an_ignored_one_is_not_looked_at() {
    let s = Setting::repository();
    assert_eq!(s.run("touch a.txt; cp b.txt x; mv x b.txt; echo x > x.log; rm -r ignored"), None);
    assert_eq!(s.run(""), None);
}

#[test]
fn a_tracked_file_is_looked_at_although_it_is_ignored_and_so_is_one_that_the_agent_edited() {
    let s = Setting::repository();
    s.put("tracked.log", "t\n");
    git(s.ws.root(), &["add", "-f", "tracked.log"]);
    s.edit("ignored/own", "1\n");
    s.run("echo T > tracked.log; echo 2 > ignored/own; echo x > ignored/cache");
    assert_eq!(
        told(&s),
        [("ignored/own".into(), None, Some(b"2\n".to_vec())), changed("tracked.log", b"t\n", b"T\n")]
    );
    assert!(s.history().net(..).unwrap().iter().all(|c| !c.foreign));
}

#[test]
fn other_rules_of_what_is_ignored_neither_make_nor_remove_files() {
    let s = Setting::repository();
    let watch = s.ws.watch().unwrap();
    s.script("echo '*.txt' > .gitignore; echo more >> src/c.txt; echo n > new.md");
    put_later(&s.ws.root().join("ignored/made"));
    s.ws.watched(watch).unwrap();
    assert_eq!(
        told(&s).into_iter().map(|(path, ..)| path).collect::<Vec<_>>(),
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
fn what_a_command_makes_together_with_the_rules_is_its_own() {
    let s = Setting::repository();
    there_and_back(
        &s,
        "mkdir app; echo '*.log' > app/.gitignore; echo x > app/main.rs; echo '*.tmp' >> .gitignore",
    );
    there_and_back(&s, "echo '# nothing' >> .git/info/exclude; echo x > new.txt");
    // Files of others, brought to light by an exception to what a list above says.
    s.put("keep.log", "log\n");
    s.run("echo '!keep.log' >> .gitignore");
    let standing = s.history().standing(..).unwrap();
    assert_eq!(standing.iter().map(|c| c.path.as_str()).collect::<Vec<_>>(), [".gitignore"]);
}

#[test]
fn contents_that_git_converts_are_kept_as_they_lay_there() {
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
fn a_file_too_large_to_keep_is_named_and_the_others_are_undone() {
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
fn a_folder_without_git_is_watched_too_and_a_repository_made_meanwhile_changes_nothing() {
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
fn what_cannot_be_known_is_named_and_not_guessed() {
    let s = Setting::repository();
    settle(s.ws.root());
    s.put("b.txt", "B\n");
    s.run("rm -rf .git; echo x > a.txt; echo x > b.txt; echo n > n.txt");
    assert_eq!(told(&s), [changed("b.txt", b"B\n", b"x\n"), ("n.txt".into(), None, Some(b"n\n".to_vec()))]);
    assert_eq!(s.history().records()[0].left_out.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["a.txt"]);
}

#[test]
fn names_that_are_not_utf_8_are_told_and_pipes_are_passed_over() {
    let s = Setting::repository();
    let watch = s.ws.watch().unwrap();
    fs::write(s.ws.root().join(OsStr::from_bytes(b"\xff.txt")), "x").unwrap();
    s.script("mkfifo pipe; echo n > n.txt");
    s.ws.watched(watch).unwrap();
    let escaped = ("\\xff.txt".into(), None, Some(b"x".to_vec()));
    assert_eq!(told(&s), [escaped.clone(), ("n.txt".into(), None, Some(b"n\n".to_vec()))]);
    s.run("rm n.txt; mkfifo n.txt");
    assert_eq!(told(&s), [escaped]);
}

#[test]
fn a_file_that_became_a_folder_is_named_and_nothing_is_changed() {
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
fn without_a_state_folder_nothing_is_watched() {
    let s = Setting::repository();
    let ws = Workspace::open(s.ws.root()).unwrap();
    let watch = ws.watch().unwrap();
    s.put("a.txt", "x\n");
    assert_eq!(ws.watched(watch).unwrap(), None);
}

#[test]
fn a_submodule_and_a_folder_below_the_top_are_watched_as_files() {
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
    there_and_back(&s, "echo S > sub/s.txt; echo t > sub/t.txt");
}
