//! Huge numbers of files, very deep folders, very long lines, and folders that are swapped while in
//! use.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};

use super::{MARK, command, edit, finish, read};
use crate::support::{World, call};
use serde_json::json;

#[test]
fn a_hundred_thousand_files_and_four_thousand_levels_work() {
    let world = World::with(&[("a.txt", "one\n")]);
    let make = "mkdir many && cd many && seq 1 100000 | xargs touch && cd .. && mkdir deep && cd deep && \
                d=$(printf 'd/%.0s' $(seq 1 1000)) && for i in 1 2 3 4; do mkdir -p $d && cd -P $d || exit 1; done; echo x > bottom";
    assert!(
        std::process::Command::new("bash")
            .args(["-c", make])
            .current_dir(world.repo())
            .status()
            .unwrap()
            .success()
    );
    let (output, prompts) = world.obey([
        call("list_files", json!({})),
        call("search", json!({"pattern": "one"})),
        edit("a.txt", "one", "two"),
        read(&format!("deep/{}bottom", "d/".repeat(4000))),
        finish(),
    ]);
    let seen = world.tell(&output);
    assert!(seen.contains("+two") && prompts[2].contains("a.txt:1: one"), "{seen}");
    assert!(
        prompts.iter().all(|prompts| prompts.len() < 20_000),
        "the messages to the model should be short"
    );
    let output = world.limited(&["undo", "last"]).output().unwrap();
    assert_eq!(world.read("a.txt"), "one\n", "{}", world.tell(&output));
    // The path is too long for `remove_dir_all`.
    assert!(
        std::process::Command::new("rm")
            .arg("-rf")
            .arg(world.repo().join("deep"))
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_line_of_fifty_megabytes_is_truncated() {
    let world = World::with(&[("a.txt", "one\n")]);
    fs::write(world.repo().join("long.txt"), "x".repeat(50 << 20)).unwrap();
    fs::write(world.repo().join("shorter.txt"), "one ".repeat(3 << 20)).unwrap();
    let (output, prompts) = world.obey([
        read("long.txt"),
        read("shorter.txt"),
        call("search", json!({"pattern": "one"})),
        edit("shorter.txt", "two", "three"),
        command("cat shorter.txt shorter.txt"),
        finish(),
    ]);
    assert!(prompts[1].contains("too large") && prompts[2].contains("…"), "{}", world.tell(&output));
    assert!(
        prompts.iter().all(|prompts| prompts.len() < 20_000),
        "{:?}",
        prompts.iter().map(String::len).collect::<Vec<_>>()
    );
}

#[test]
fn a_folder_repeatedly_swapped_with_a_link_does_not_lead_outside() {
    let world = World::with(&[("d/a.txt", "one\n")]);
    let outside = world.home().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("a.txt"), format!("one {MARK}\n")).unwrap();
    let (folder, link) = (world.repo().join("d"), world.home().join("link"));
    symlink(&outside, &link).unwrap();
    let over = AtomicBool::new(false);
    let (prompts, seen) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Swap the folder with the link, then swap them back. Each swap is atomic.
                for _ in 0..2 {
                    rustix::fs::renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let round = |n: usize| {
            [
                read("d/a.txt"),
                edit(
                    "d/a.txt",
                    if n.is_multiple_of(2) { "one" } else { "two" },
                    if n.is_multiple_of(2) { "two" } else { "one" },
                ),
                call("search", json!({"pattern": MARK, "path": format!("d{}", "/".repeat(n))})),
                call("apply_patch", json!({"path": format!("d/new{n}.txt"), "content": "x\n"})),
            ]
        };
        let calls = (0..10).flat_map(round).chain([finish()]);
        let (output, prompts) = world.obey_with(&["--max-turns", "60"], calls);
        over.store(true, Ordering::Relaxed);
        (prompts, world.tell(&output))
    });
    let secrets = prompts
        .iter()
        .flat_map(|prompts| prompts.lines())
        .filter(|line| line.contains(MARK) && !line.starts_with("search ") && !line.contains("no matches"));
    assert_eq!(secrets.collect::<Vec<_>>(), Vec::<&str>::new(), "{seen}");
    assert_eq!(fs::read_to_string(outside.join("a.txt")).unwrap(), format!("one {MARK}\n"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing should be created outside: {seen}");
}
