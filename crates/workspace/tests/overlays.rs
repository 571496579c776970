//! Changes in an overlay are found by scanning only its upper layer.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod common;

use std::{
    fs::{self, File},
    path::PathBuf,
};

use common::{Setting, git};
use rustix::fs::XattrFlags;
use workspace::Baseline;

/// Creates a repository with the files `a/b/file` and `c/file`, and a folder that poses as the
/// upper layer of an overlay. The tests fill it as an overlay would.
fn fixture() -> (Setting, PathBuf) {
    let s = Setting::repository();
    for path in ["a/b/file", "c/file"] {
        fs::create_dir_all(s.ws.root().join(path).parent().unwrap()).unwrap();
        s.put(path, "before\n");
    }
    git(s.ws.root(), &["add", "-A"]);
    git(s.ws.root(), &["commit", "-qm", "second"]);
    let upper = s.outer().join("upper");
    fs::create_dir(&upper).unwrap();
    s.ws.overlays(&upper, None);
    (s, upper)
}

/// Returns the changes that the watch and the baseline report.
fn changes(s: &Setting, change: impl FnOnce()) -> [Vec<String>; 2] {
    let baseline = Baseline::of(&s.ws, &s.outer().join("baseline")).unwrap();
    let watch = s.ws.watch().unwrap();
    change();
    s.ws.watched(watch).unwrap();
    let net = s.history().net(..).unwrap();
    let by_command = net.into_iter().map(|change| change.path.to_string()).collect();
    [by_command, baseline.diff().unwrap().files.into_iter().map(|file| file.path).collect()]
}

#[test]
fn folders_without_changes_are_not_scanned() {
    let (s, upper) = fixture();
    let all = changes(&s, || {
        s.put("a/b/file", "after\n");
        s.put("a/b/new", "new\n");
        fs::create_dir_all(upper.join("a/b")).unwrap();
        // This write bypasses the overlay. A write through the overlay would also create this
        // folder in the upper layer.
        s.put("c/file", "after\n");
    });
    assert_eq!(all, [["a/b/file", "a/b/new"], ["a/b/file", "a/b/new"]]);
}

#[test]
fn a_folder_that_replaced_another_is_scanned_completely() {
    for mark in ["user.overlay.opaque", "trusted.overlay.redirect"] {
        let (s, upper) = fixture();
        let all = changes(&s, || {
            // `rm -r a; mv other a`: the content of `a/b` is in a lower layer, under another name.
            s.put("a/b/file", "other\n");
            fs::create_dir(upper.join("a")).unwrap();
            if rustix::fs::setxattr(upper.join("a"), mark, b"y", XattrFlags::empty()).is_err() {
                fs::create_dir(upper.join("a/b")).unwrap(); // only root may set this attribute
            }
        });
        assert_eq!(all, [["a/b/file"], ["a/b/file"]], "{mark}");
    }
}

#[test]
fn only_the_first_baseline_scans_the_lower_layer() {
    let (s, upper) = fixture();
    let lower = s.outer().join("lower");
    fs::create_dir(&lower).unwrap();
    s.ws.overlays(&upper, Some(File::open(&lower).unwrap().into()));
    let added = |name: &str| {
        let baseline = Baseline::of(&s.ws, &s.outer().join(name)).unwrap();
        fs::create_dir_all(upper.join("a/b")).unwrap();
        baseline.diff().unwrap().files.iter().filter(|file| file.added > 0).count()
    };
    // Compared with the empty lower layer, every file of the repository is new.
    assert_ne!(added("first"), 0);
    assert_eq!(added("second"), 0);
}
