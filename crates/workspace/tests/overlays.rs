//! In an overlay, what was changed is found in the folder of its changes, and nothing else is looked at.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{fs, path::PathBuf};

use common::{Setting, git};
use rustix::fs::XattrFlags;
use workspace::Baseline;

/// A repository with a folder `a/b` and one `c`, both with a file, and a folder for the changes of an overlay that is not there: what
/// an overlay would put into it, the tests do.
fn setting() -> (Setting, PathBuf) {
    let s = Setting::repository();
    for path in ["a/b/file", "c/file"] {
        fs::create_dir_all(s.ws.root().join(path).parent().unwrap()).unwrap();
        s.put(path, "before\n");
    }
    git(s.ws.root(), &["add", "-A"]);
    git(s.ws.root(), &["commit", "-qm", "second"]);
    let upper = s.outer().join("upper");
    fs::create_dir(&upper).unwrap();
    s.ws.overlays(&upper);
    (s, upper)
}

/// What a command and the whole session changed.
fn told(s: &Setting, change: impl FnOnce()) -> [Vec<String>; 2] {
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    let watch = s.ws.watch().unwrap();
    change();
    s.ws.watched(watch).unwrap();
    let net = s.history().net(..).unwrap();
    let by_command = net.into_iter().map(|change| change.path.to_string()).collect();
    [by_command, baseline.diff().unwrap().files.into_iter().map(|file| file.path).collect()]
}

#[test]
fn folders_without_changes_are_not_looked_at() {
    let (s, upper) = setting();
    let all = told(&s, || {
        s.put("a/b/file", "after\n");
        s.put("a/b/new", "new\n");
        fs::create_dir_all(upper.join("a/b")).unwrap();
        // Not by this overlay, which would have this folder too.
        s.put("c/file", "after\n");
    });
    assert_eq!(all, [["a/b/file", "a/b/new"], ["a/b/file", "a/b/new"]]);
}

#[test]
fn a_folder_that_took_the_place_of_another_is_looked_at_with_all_that_is_in_it() {
    for mark in ["user.overlay.opaque", "trusted.overlay.redirect"] {
        let (s, upper) = setting();
        let all = told(&s, || {
            // `rm -r a; mv other a`: the content of `a/b` lies in a lower layer, under another name.
            s.put("a/b/file", "other\n");
            fs::create_dir(upper.join("a")).unwrap();
            if rustix::fs::setxattr(upper.join("a"), mark, b"y", XattrFlags::empty()).is_err() {
                fs::create_dir(upper.join("a/b")).unwrap(); // only root may set it
            }
        });
        assert_eq!(all, [["a/b/file"], ["a/b/file"]], "{mark}");
    }
}
