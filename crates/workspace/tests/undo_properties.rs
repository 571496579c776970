//! No matter what the agent and others do to files, and in what order, an undo either restores what
//! the agent changed, byte for byte, or changes nothing. It never loses anyone else's changes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod common;

use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

use common::{Setting, tree};
use proptest::prelude::*;
use workspace::{Change, Expect};

const PATHS: [&str; 5] = ["a.txt", "b.txt", "src/c.txt", "new/x", "new/deep/y"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Edit,
    Command,
    SomeoneElse,
}

/// What someone does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Write(u8),
    Executable(u8),
    Link(u8),
    Remove,
}

type Act = (Who, usize, Deed);

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Deed::Write),
        1 => (0..2_u8).prop_map(Deed::Executable),
        1 => (0..2_u8).prop_map(Deed::Link),
        2 => Just(Deed::Remove),
    ]
}

fn acts(
    who: impl Strategy<Value = Who>,
    deed: impl Strategy<Value = Deed>,
) -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec((who, 0..PATHS.len(), deed), 1..12)
}

fn by_hand(s: &Setting, path: &str, deed: Deed) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = s.ws.root().join(path);
    if path.symlink_metadata().is_ok() {
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match deed {
        Deed::Write(n) | Deed::Executable(n) => {
            fs::write(&path, format!("{n}\n")).unwrap();
            let mode = if matches!(deed, Deed::Write(_)) { 0o644 } else { 0o755 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        Deed::Link(n) => symlink(format!("to{n}"), &path).unwrap(),
        Deed::Remove => {}
    }
}

/// Makes an edit. Edits that the tools would not make, such as an edit to a link, are refused.
fn edit(s: &Setting, path: &str, deed: Deed) {
    let Ok(path) = s.ws.target(path) else { return };
    let expect = Expect::Any;
    let change = match deed {
        Deed::Write(n) | Deed::Executable(n) => Change::Write {
            path,
            bytes: format!("{n}\n").into_bytes(),
            executable: Some(matches!(deed, Deed::Executable(_))),
            expect,
        },
        Deed::Link(_) | Deed::Remove => Change::Delete { path, expect },
    };
    let _ = s.ws.commit(vec![change]);
}

fn act(s: &Setting, (who, path, deed): Act) {
    match who {
        Who::Edit => edit(s, PATHS[path], deed),
        Who::Command => {
            let watch = s.ws.watch().unwrap();
            by_hand(s, PATHS[path], deed);
            s.ws.watched(watch).unwrap();
        }
        Who::SomeoneElse => by_hand(s, PATHS[path], deed),
    }
}

/// Returns files but no folders, because an empty folder that a command created may be left behind.
fn files(s: &Setting) -> BTreeMap<String, (u32, Vec<u8>)> {
    tree(s.ws.root()).into_iter().filter(|(_, (mode, _))| mode & 0o170_000 != 0o040_000).collect()
}

/// The history of one file, as the test observed it.
#[derive(Debug, Default)]
struct Model {
    /// The state that the agent found the file in. The inner `None` means that it did not exist.
    found: Option<Option<(u32, Vec<u8>)>>,
    left: Option<(u32, Vec<u8>)>,
    /// Whether someone else changed the file between two of the agent's changes.
    shared: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_undo_to_any_turn_restores_the_tree_of_that_turn(
        acts in acts(prop_oneof![Just(Who::Edit), Just(Who::Command)], deed()),
        to in 0..12_u32,
    ) {
        let s = Setting::repository();
        let mut at = vec![files(&s)];
        for (turn, one) in acts.into_iter().enumerate() {
            s.ws.set_turn(turn as u32 + 1);
            act(&s, one);
            at.push(files(&s));
        }
        let to = to.min(at.len() as u32 - 1);
        s.ws.put_back(&s.history().standing(to + 1..).unwrap()).unwrap();
        prop_assert_eq!(&files(&s), &at[to as usize]);
        s.ws.put_back(&s.history().standing(..).unwrap()).unwrap();
        prop_assert_eq!(&files(&s), &at[0]);
        prop_assert_eq!(s.history().standing(..).unwrap(), vec![]);
    }

    #[test]
    fn an_undo_never_loses_the_changes_of_others(
        acts in acts(
            prop_oneof![Just(Who::Edit), Just(Who::Command), Just(Who::SomeoneElse)],
            // Leave out changes to permissions: permissions set by others are always preserved,
            // because an undo merges permission bits.
            deed().prop_filter("content", |deed| !matches!(deed, Deed::Executable(_))),
        ),
    ) {
        let s = Setting::repository();
        let mut models: BTreeMap<&str, Model> = BTreeMap::new();
        for one in acts {
            let path = PATHS[one.1];
            let before = files(&s).remove(path);
            act(&s, one);
            let after = files(&s).remove(path);
            if one.0 != Who::SomeoneElse && before != after {
                let model = models.entry(path).or_default();
                model.shared |= model.found.is_some() && model.left != before;
                model.found.get_or_insert(before);
                model.left = after;
            }
        }
        let before = files(&s);
        let all = tree(s.ws.root());
        let undone = s.ws.put_back(&s.history().standing(..).unwrap());
        let after = files(&s);
        if undone.is_err() {
            prop_assert_eq!(tree(s.ws.root()), all);
        }
        for path in PATHS {
            let (now, then) = (after.get(path), before.get(path));
            let Some(model) = models.get(path) else {
                prop_assert_eq!(now, then, "{}", path);
                continue;
            };
            let found = model.found.as_ref().unwrap().as_ref();
            if undone.is_ok() && then != found && model.left.as_ref() != found {
                prop_assert!(!model.shared && model.left.as_ref() == then, "{path}: {model:?}");
                prop_assert_eq!(now, found, "{}", path);
            } else {
                prop_assert_eq!(now, then, "{}", path);
            }
        }
        let refused = models.iter().any(|(path, model)| model.shared || model.left.as_ref() != before.get(*path));
        prop_assert!(undone.is_ok() || refused, "{:?}", undone);
    }
}
