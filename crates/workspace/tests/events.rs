//! Tests that scanning only the folders reported by the kernel finds the same changes as a full
//! scan.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _};

use common::Setting;
use proptest::prelude::*;
use workspace::Baseline;

/// Shell commands that change a three-level tree. Any of the commands may fail.
const DEEDS: [&str; 14] = [
    "echo 1 > a.txt",
    "echo 2 > src/c.txt",
    "mkdir -p new/deep/er; echo 3 > new/deep/er/x",
    "echo 4 > new/deep/er/x",
    "rm -rf new",
    "mv new/deep/er/x src/x",
    "chmod +x a.txt",
    "rm a.txt; ln -s b.txt a.txt",
    "rm -f b.txt; mkdir b.txt; echo 5 > b.txt/inner",
    "echo 6 > ignored/cache; echo 7 > src/x.log",
    "mkdir -p many/1/2/3 many/2/2/3; touch many/1/2/3/f many/2/2/3/f",
    "rm -rf many/1; mkdir -p many/1/2/3; echo 8 > many/1/2/3/g",
    "rm -rf src; mkdir src; echo 9 > src/c.txt",
    "rm -rf src; ln -s many src",
];

/// Commands after which the kernel's reports are no longer used.
const ENDING: [&str; 7] = [
    "mv new/deep new/moved",
    "mv src lib",
    "rm -rf many/1; mv many/2 many/1; echo 10 > many/1/2/3/g",
    "echo new/ >> .gitignore",
    "echo src/ > .git/info/exclude",
    "rm -rf .git/info",
    "git init -q new/deep",
];

#[derive(Debug, Clone, Copy)]
enum Who {
    Command,
    SomeoneElse,
}

fn act(s: &Setting, (who, deed): (Who, &str)) {
    let script = format!("({deed}) 2> /dev/null || true");
    match who {
        Who::Command => drop(s.run(&script)),
        Who::SomeoneElse => s.script(&script),
    }
}

fn acts() -> impl Strategy<Value = Vec<(Who, &'static str)>> {
    let who = prop_oneof![Just(Who::Command), Just(Who::SomeoneElse)];
    let deed = prop_oneof![14 => prop::sample::select(&DEEDS[..]), 1 => prop::sample::select(&ENDING[..])];
    prop::collection::vec((who, deed), 1..12)
}

fn patch(baseline: &Baseline) -> String {
    String::from_utf8(baseline.diff().unwrap().patch).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_diff_equals_that_of_a_full_scan(acts in acts(), held in any::<bool>()) {
        let s = Setting::repository();
        let state = s.outer().join("baseline");
        let baseline = Baseline::of(&s.ws, &state).unwrap();
        // While a folder is held open, the kernel does not report its deletion.
        let _held = held.then(|| fs::File::open(s.ws.root().join("src")).unwrap());
        for each in acts {
            act(&s, each);
            let full = Baseline::open(s.ws.root(), &state).unwrap();
            prop_assert_eq!(patch(&baseline), patch(&full));
        }
    }
}

#[test]
fn bug_changes_that_the_kernel_did_not_report_were_attributed_to_the_next_command() {
    let s = Setting::repository();
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    fs::hard_link(s.ws.root().join("src/c.txt"), s.outer().join("link")).unwrap();
    fs::create_dir(s.ws.root().join("held")).unwrap();
    s.run("echo 1 > a.txt");
    let _held = fs::File::open(s.ws.root().join("held")).unwrap();
    s.script("rmdir held; mkdir held; echo theirs > held/new; echo theirs >> ../link");
    s.ws.set_turn(2);
    s.run("echo 2 > b.txt");
    let changed = |turn| -> Vec<String> {
        s.history().net(turn..).unwrap().iter().map(|change| change.path.to_string()).collect()
    };
    assert_eq!(changed(2), ["b.txt"]);
    s.ws.put_back(&s.history().standing(2..).unwrap()).unwrap();
    assert_eq!((s.read("src/c.txt").as_str(), s.read("held/new").as_str()), ("c\ntheirs\n", "theirs\n"));
    assert_eq!(baseline.changed().unwrap(), ["a.txt", "held/new", "src/c.txt"]);
}

#[test]
fn changes_by_others_between_commands_are_not_attributed_to_the_next_command() {
    let s = Setting::repository();
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    s.run("echo 1 > a.txt");
    s.script("mkdir -p deep/er; echo x > deep/er/x; echo 2 > src/c.txt; chmod +x b.txt");
    s.ws.set_turn(2);
    s.run("echo 3 > deep/er/y");
    let made = s.history().net(2..).unwrap();
    assert_eq!(made.iter().map(|change| change.path.to_string()).collect::<Vec<_>>(), ["deep/er/y"]);
    let changed = baseline.changed().unwrap();
    assert_eq!(changed, ["a.txt", "b.txt", "deep/er/x", "deep/er/y", "src/c.txt"]);
}

#[test]
fn a_write_through_a_memory_map_or_a_hard_link_by_a_command_is_in_the_diff() {
    let s = Setting::repository();
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    fs::hard_link(s.ws.root().join("src/c.txt"), s.outer().join("link")).unwrap();
    s.run(&format!("echo more >> {}", s.outer().join("link").display()));
    s.run("python3 -c \"import mmap; f = open('b.txt', 'r+b'); mmap.mmap(f.fileno(), 0)[0] = 67\"");
    assert_eq!(baseline.changed().unwrap(), ["b.txt", "src/c.txt"]);
}

#[test]
fn changes_are_found_even_if_the_kernel_does_not_report_all_of_them() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let s = Setting::repository();
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    // Alternate between two files, because identical consecutive events would be merged. All of
    // these events are for the root folder, not for `src`.
    for n in 0..=limit {
        let file = if n % 2 == 0 { "a.txt" } else { "b.txt" };
        fs::set_permissions(s.ws.root().join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    // The kernel's event queue is now full, so the kernel does not report this change.
    s.put("src/c.txt", "changed\n");
    assert_eq!(baseline.changed().unwrap(), ["src/c.txt"]);
}
