//! Tests that a session's changes can be reported, undone, and applied elsewhere, and that other
//! people's changes are preserved.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod common;

use std::fs;

use common::{Setting, tree};
use workspace::{BringError, By, CleanPath, History, NetChange, Workspace};

fn names(changes: &[NetChange]) -> Vec<&str> {
    changes.iter().map(|c| c.path.as_str()).collect()
}

fn conflicts(error: BringError) -> Vec<(String, String)> {
    match error {
        BringError::Conflicts(all) => all.into_iter().map(|c| (c.path.to_string(), c.why)).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn reverted_changes_no_longer_count_and_come_back_when_the_revert_is_reverted() {
    let s = Setting::repository();
    let start = tree(s.ws.root());
    s.ws.set_turn(1);
    s.edit("a.txt", "A\n");
    s.run("rm b.txt; mkdir -p x/y; echo z > x/y/z.txt; chmod +x src/c.txt");
    let first = tree(s.ws.root());
    let revert = s.ws.revert(&s.history().since(1).unwrap()).unwrap().id.unwrap();
    assert_eq!((tree(s.ws.root()), s.history().net(..).unwrap()), (start.clone(), Vec::new()));
    s.ws.set_turn(2);
    s.edit("a.txt", "other\n");
    s.edit("new.txt", "new\n");
    assert_eq!(names(&s.history().net(..).unwrap()), ["a.txt", "new.txt"]);
    s.ws.revert(&s.history().since(revert).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), first);
    assert_eq!(names(&s.history().net(..).unwrap()), ["a.txt", "b.txt", "src/c.txt", "x/y/z.txt"]);
    assert_eq!(
        s.ws.revert(&s.history().since(revert).unwrap()).unwrap().id,
        None,
        "a second revert finds nothing to do"
    );
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), start);
}

#[test]
fn reverting_over_the_change_of_someone_else_changes_nothing() {
    let s = Setting::repository();
    s.edit("a.txt", "A\n");
    s.edit("b.txt", "B\n");
    s.put("b.txt", "theirs\n");
    let error = s.ws.revert(&s.history().since(1).unwrap()).unwrap_err();
    assert_eq!(conflicts(error), [("b.txt".to_owned(), "it has changed since".to_owned())]);
    assert_eq!((s.read("a.txt"), s.read("b.txt")), ("A\n".into(), "theirs\n".into()));
}

#[test]
fn the_history_lists_edits_and_commands_in_order_with_their_turns() {
    let s = Setting::repository();
    s.ws.set_turn(1);
    s.edit("a.txt", "A\n");
    s.ws.set_turn(2);
    s.run("sed -i s/A/AA/ a.txt; rm b.txt; mkdir -p x/y; echo z > x/y/z.txt; chmod +x src/c.txt");
    let history = s.history();
    let listed: Vec<_> = history
        .records()
        .iter()
        .map(|r| (r.turn, r.by, r.files.iter().map(|f| f.path.to_string()).collect::<Vec<_>>().join(" ")))
        .collect();
    assert_eq!(
        listed,
        [(1, By::Edit, "a.txt".to_owned()), (2, By::Command, "a.txt b.txt src/c.txt x/y/z.txt".to_owned())]
    );
    let net = history.net(2..).unwrap();
    assert_eq!(names(&net), ["a.txt", "b.txt", "src/c.txt", "x/y/z.txt"]);
    assert_eq!(net[0].before.as_ref().unwrap().bytes, b"A\n");
    assert_eq!(net[0].after.as_ref().unwrap().bytes, b"AA\n");
    assert_eq!(history.net(..).unwrap()[0].before.as_ref().unwrap().bytes, b"a\n");
    assert!(net.iter().all(|c| !c.foreign));
}

#[test]
fn an_undo_restores_every_byte_mode_link_and_folder() {
    let s = Setting::repository();
    let before = tree(s.ws.root());
    s.ws.set_turn(1);
    s.edit("a.txt", "A\n");
    s.edit("new/deep/file.txt", "n\n");
    s.run("rm link b.txt; ln -s elsewhere made; mkdir -p x/y; echo z > x/y/z; chmod 600 src/c.txt; printf '\\0\\377' > image.bin");
    assert_ne!(tree(s.ws.root()), before);
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
    assert_eq!(s.history().standing(..).unwrap(), []);
    assert!(!s.history().net(..).unwrap().is_empty());
}

#[test]
fn an_undo_to_a_turn_keeps_earlier_changes() {
    let s = Setting::repository();
    for turn in 1..=3 {
        s.ws.set_turn(turn);
        s.edit("a.txt", &format!("{turn}\n"));
        s.run(&format!("echo {turn} > of{turn}.txt"));
    }
    let at_two = {
        let other = Setting::repository();
        for turn in 1..=2 {
            other.edit("a.txt", &format!("{turn}\n"));
            other.run(&format!("echo {turn} > of{turn}.txt"));
        }
        tree(other.ws.root())
    };
    s.ws.put_back(&s.history().standing(3..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), at_two);
    assert_eq!(names(&s.history().standing(..).unwrap()), ["a.txt", "of1.txt", "of2.txt"]);
    assert_eq!(s.history().standing(3..).unwrap(), []);
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), tree(Setting::repository().ws.root()));
}

#[test]
fn an_undo_that_conflicts_lists_every_file_and_changes_nothing() {
    let s = Setting::repository();
    s.edit("a.txt", "A\n");
    s.edit("b.txt", "B\n");
    s.edit("n.txt", "n\n");
    s.run("rm src/c.txt");
    s.put("a.txt", "mine\n");
    s.put("src/c.txt", "mine too\n");
    fs::remove_file(s.ws.root().join("n.txt")).unwrap();
    fs::create_dir(s.ws.root().join("n.txt")).unwrap();
    let before = tree(s.ws.root());
    let found = conflicts(s.ws.put_back(&s.history().standing(..).unwrap()).unwrap_err());
    let expected = [
        ("a.txt", "it has changed since"),
        ("n.txt", "it is no longer a file"),
        ("src/c.txt", "someone else created this file"),
    ];
    assert_eq!(found, expected.map(|(p, w)| (p.to_owned(), w.to_owned())));
    assert_eq!(tree(s.ws.root()), before);
}

#[test]
fn changes_by_others_between_commands_are_not_attributed_to_the_agent() {
    let s = Setting::repository();
    s.run("echo x > x.txt");
    s.put("a.txt", "mine\n");
    s.put("mine.txt", "mine\n");
    fs::remove_file(s.ws.root().join("b.txt")).unwrap();
    s.run("echo y > y.txt");
    let net = s.history().net(..).unwrap();
    assert_eq!(names(&net), ["x.txt", "y.txt"]);
    s.ws.put_back(&net).unwrap();
    assert_eq!(fs::read(s.ws.root().join("mine.txt")).unwrap(), b"mine\n");
    assert!(!s.ws.root().join("x.txt").exists());
}

#[test]
fn a_file_that_someone_else_changed_between_two_edits_is_not_undone() {
    let s = Setting::repository();
    s.ws.set_turn(1);
    s.edit("a.txt", "1\n");
    s.put("a.txt", "mine\n");
    s.ws.set_turn(2);
    s.edit("a.txt", "2\n");
    let all = s.history().standing(..).unwrap();
    assert!(all[0].foreign);
    let found = conflicts(s.ws.put_back(&all).unwrap_err());
    assert_eq!(found[0].1, "someone else changed it between two of the agent's changes");
    s.ws.put_back(&s.history().standing(2..).unwrap()).unwrap();
    assert_eq!(fs::read(s.ws.root().join("a.txt")).unwrap(), b"mine\n");
}

#[test]
fn a_second_undo_finds_nothing_to_do() {
    let s = Setting::repository();
    s.edit("a.txt", "A\n");
    let changes = s.history().standing(..).unwrap();
    assert_eq!(s.ws.put_back(&changes).unwrap().files.len(), 1);
    let again = s.ws.put_back(&changes).unwrap();
    assert_eq!((again.id, again.files), (None, vec![]));
    assert_eq!(s.history().standing(..).unwrap(), []);
}

#[test]
fn changes_of_a_dry_run_can_be_applied_and_undone() {
    let s = Setting::repository();
    let dry = s.dry_run();
    dry.ws.set_turn(1);
    dry.edit("a.txt", "A\n");
    dry.ws.set_turn(2);
    dry.run("rm b.txt; echo n > n.txt; ln -s a.txt l");
    let before = tree(s.ws.root());
    assert_eq!(dry.history().records().len(), 2);
    let real = s.with_state_of(&dry);
    let brought = real.bring(&dry.history().net(..).unwrap(), false).unwrap();
    assert_eq!(brought.commit.files.len(), 4);
    assert_eq!(tree(s.ws.root()), tree(dry.ws.root()));
    let again = real.bring(&dry.history().net(..).unwrap(), false).unwrap();
    assert_eq!((again.commit.files.len(), again.already.len()), (0, 4));
    let later = dry.history().standing(2..).unwrap();
    assert_eq!(names(&later), ["b.txt", "l", "n.txt"]);
    real.put_back(&later).unwrap();
    real.put_back(&dry.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
    real.bring(&dry.history().net(..).unwrap(), false).unwrap();
    assert_eq!(tree(s.ws.root()), tree(dry.ws.root()));
}

#[test]
fn an_undo_of_merged_files_keeps_the_changes_of_others() {
    let s = Setting::repository();
    let lines = |first: &str, last: &str| format!("{first}\n2\n3\n4\n5\n{last}\n");
    s.put("m.txt", &lines("1", "6"));
    let dry = s.dry_run();
    dry.edit("m.txt", &lines("one", "6"));
    dry.edit("a.txt", "A\n");
    s.put("m.txt", &lines("1", "six"));
    let net = dry.history().net(..).unwrap();
    let real = s.with_state_of(&dry);
    let before = tree(s.ws.root());
    let found = conflicts(real.bring(&net, false).unwrap_err());
    assert_eq!(found, [("m.txt".to_owned(), "it has changed since".to_owned())]);
    assert_eq!(tree(s.ws.root()), before);
    let brought = real.bring(&net, true).unwrap();
    assert_eq!(brought.merged.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["m.txt"]);
    assert_eq!(fs::read_to_string(s.ws.root().join("m.txt")).unwrap(), lines("one", "six"));
    real.put_back(&dry.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
}

#[test]
fn a_merge_of_changes_among_identical_lines_keeps_both_changes() {
    let s = Setting::repository();
    s.put("m.txt", "l1\nl1\nl1\nl0\nl0\nl1\nl1\nl1\nl1\nl1\nl0\n");
    let dry = s.dry_run();
    dry.edit("m.txt", "l1\nl1\nl1\nl0\nl0\nl1\na0\nl1\nl1\nl1\nl0\n");
    s.put("m.txt", "l1\nl1\nl1\nl0\nl0\nl1\nl1\nl1\nb0\nl1\nl0\n");
    s.ws.bring(&dry.history().net(..).unwrap(), true).unwrap();
    assert_eq!(s.read("m.txt"), "l1\nl1\nl1\nl0\nl0\nl1\na0\nl1\nb0\nl1\nl0\n");
}

#[test]
fn permissions_are_merged_and_binary_files_are_not() {
    let s = Setting::repository();
    fs::write(s.ws.root().join("x.bin"), b"1\n2\n\0\n4\n5\n").unwrap();
    let dry = s.dry_run();
    dry.run(
        "printf '1\\n2\\n\\0\\n4\\nfive\\n' > x.bin; rm b.txt; chmod +x a.txt; echo A > a.txt; rm src/c.txt",
    );
    fs::write(s.ws.root().join("x.bin"), b"one\n2\n\0\n4\n5\n").unwrap();
    s.put("b.txt", "mine\n");
    s.script("chmod 600 a.txt; rm src/c.txt");
    let found = conflicts(s.ws.bring(&dry.history().net(..).unwrap(), true).unwrap_err());
    let paths: Vec<_> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["a.txt", "b.txt", "x.bin"]);
    assert_eq!(found[0].1, "its permissions have changed since");
    assert_eq!(found[2].1, "it has changed since, and only text can be merged");
    // If only one side has changed the permissions, that change is kept.
    s.script("chmod 755 a.txt; printf '1\\n2\\n\\0\\n4\\n5\\n' > x.bin; echo b > b.txt");
    let brought = s.ws.bring(&dry.history().net(..).unwrap(), false).unwrap();
    assert_eq!(brought.already.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["src/c.txt"]);
    assert_eq!(s.read("a.txt"), "A\n");
}

#[test]
fn lines_changed_on_both_sides_conflict_and_nothing_is_written() {
    let s = Setting::repository();
    let dry = s.dry_run();
    dry.edit("a.txt", "A\n");
    dry.edit("b.txt", "B\n");
    s.put("a.txt", "mine\n");
    let before = tree(s.ws.root());
    let real = s.with_state_of(&dry);
    let found = conflicts(real.bring(&dry.history().net(..).unwrap(), true).unwrap_err());
    assert_eq!(found, [("a.txt".to_owned(), "the same lines have changed since".to_owned())]);
    assert_eq!(tree(s.ws.root()), before);
}

#[test]
fn a_history_without_changes_is_empty() {
    let s = Setting::repository();
    assert_eq!(s.history().records(), []);
    assert_eq!(s.history().standing(..).unwrap(), []);
    assert!(History::open(std::path::Path::new("/nonexistent/folder")).unwrap().records().is_empty());
    s.run("cat a.txt > /dev/null; touch a.txt; echo more > ignored/more");
    assert_eq!(s.history().records(), []);
}

/// Simulates a crash during an undo, before it was marked as done.
#[test]
fn an_interrupted_undo_is_rolled_back_with_links_and_modes() {
    let s = Setting::repository();
    s.run(
        "rm link b.txt; ln -s nowhere made; ln -sf b.txt a.txt; chmod 700 src/c.txt; mkdir x; echo y > x/y",
    );
    let before = tree(s.ws.root());
    let id = s.ws.put_back(&s.history().standing(..).unwrap()).unwrap().id.unwrap();
    assert_ne!(tree(s.ws.root()), before);
    fs::remove_file(s.state().join(format!("commits/{id:06}/done"))).unwrap();
    assert_eq!(s.history().records().len(), 1);
    fs::create_dir_all(s.ws.root().join("x")).unwrap();
    Workspace::open_with(s.ws.root(), s.state()).unwrap();
    assert_eq!(tree(s.ws.root()), before);
    s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
    assert_eq!(tree(s.ws.root()), tree(Setting::repository().ws.root()));
}

#[test]
fn an_undo_writes_neither_outside_the_root_nor_in_git() {
    let s = Setting::repository();
    s.edit("src/c.txt", "C\n");
    let mut changes = s.history().standing(..).unwrap();
    fs::rename(s.ws.root().join("src"), s.outer().join("moved")).unwrap();
    std::os::unix::fs::symlink(s.outer().join("moved"), s.ws.root().join("src")).unwrap();
    assert!(s.ws.put_back(&changes).is_err());
    assert_eq!(fs::read(s.outer().join("moved/c.txt")).unwrap(), b"C\n");
    let path = |text: &str| serde_json::from_value::<CleanPath>(serde_json::json!(text));
    for given in [".git/config", "sub/.GIT/config"] {
        (changes[0].before, changes[0].after) =
            (changes[0].after.clone().or(changes[0].before.clone()), None);
        changes[0].path = path(given).unwrap();
        let found = conflicts(s.ws.put_back(&changes).unwrap_err());
        assert!(found[0].1.contains("belongs to git"), "{found:?}");
    }
    for given in ["../outside.txt", "/etc/hostname", "", "a/../../x", "./a", "a//b", "a/", "a\0b"] {
        assert!(path(given).is_err(), "{given}");
    }
}
