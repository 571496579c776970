//! The kernel's reports about folders replace full scans and do not change the result.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _};

use common::Setting;
use proptest::prelude::*;
use workspace::Baseline;

/// Shell commands that change a tree of three levels. Any of the commands may fail.
const DEEDS: [&str; 20] = [
    "echo 1 > a.txt",
    "echo 2 > src/c.txt",
    "mkdir -p new/deep/er; echo 3 > new/deep/er/x",
    "echo 4 > new/deep/er/x",
    "rm -rf new",
    "mv new/deep new/moved",
    "mv src lib",
    "mv lib src",
    "mv new/deep/er/x src/x",
    "chmod +x a.txt",
    "rm a.txt; ln -s b.txt a.txt",
    "rm -f b.txt; mkdir b.txt; echo 5 > b.txt/inner",
    "ln src/c.txt ignored/c; echo 6 >> ignored/c",
    "echo 7 > ignored/cache; echo 8 > src/x.log",
    "echo new/ >> .gitignore",
    "echo src/ > .git/info/exclude",
    "rm -f .git/info/exclude",
    "git init -q new/deep",
    "mkdir -p many/1/2/3 many/2/2/3; touch many/1/2/3/f many/2/2/3/f",
    "rm -rf many/1; mv many/2 many/1; echo 9 > many/1/2/3/g",
];

#[derive(Debug, Clone, Copy)]
enum Who {
    Command,
    SomeoneElse,
}

fn act(s: &Setting, who: Who, deed: usize) {
    let script = format!("({}) 2> /dev/null || true", DEEDS[deed]);
    match who {
        Who::Command => drop(s.run(&script)),
        Who::SomeoneElse => s.script(&script),
    }
}

fn patch(baseline: &Baseline) -> String {
    String::from_utf8(baseline.diff().unwrap().patch).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn the_diff_is_that_of_a_full_scan(
        acts in prop::collection::vec((prop_oneof![Just(Who::Command), Just(Who::SomeoneElse)], 0..DEEDS.len()), 1..10)
    ) {
        let s = Setting::repository();
        let state = s.outer().join("baseline");
        let baseline = Baseline::of(&s.ws, &state).unwrap();
        for (who, deed) in acts {
            // A write by someone else through a hard link is not noticed until a command runs.
            let unnoticed = DEEDS[deed].starts_with("ln ");
            act(&s, if unnoticed { Who::Command } else { who }, deed);
            let full = Baseline::open(s.ws.root(), &state).unwrap();
            prop_assert_eq!(patch(&baseline), patch(&full));
        }
    }

    #[test]
    fn commands_changes_are_those_that_full_scans_find(
        acts in prop::collection::vec((prop_oneof![Just(Who::Command), Just(Who::SomeoneElse)], 0..DEEDS.len()), 1..10)
    ) {
        let (watched, scanned) = (Setting::repository(), Setting::repository());
        let _baseline = Baseline::of(&watched.ws, &watched.outer().join("baseline")).unwrap();
        for (who, deed) in acts {
            let unnoticed = DEEDS[deed].starts_with("ln ");
            for s in [&watched, &scanned] {
                act(s, if unnoticed { Who::Command } else { who }, deed);
            }
        }
        let changes = |s: &Setting| {
            let net = s.history().net(..).unwrap().into_iter();
            net.map(|c| format!("{} {:?} {:?}", c.path, c.before, c.after)).collect::<Vec<_>>()
        };
        prop_assert_eq!(changes(&watched), changes(&scanned));
    }
}

#[test]
fn what_someone_else_does_between_commands_is_not_the_commands() {
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
fn more_changes_than_the_kernel_reports_are_found() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let s = Setting::repository();
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    for n in 0..=limit {
        fs::set_permissions(s.ws.root().join("b.txt"), fs::Permissions::from_mode(0o600 + (n as u32 & 1)))
            .unwrap();
        fs::set_permissions(s.ws.root().join("src/c.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    s.put("src/c.txt", "changed\n");
    assert_eq!(baseline.changed().unwrap(), ["src/c.txt"]);
}
