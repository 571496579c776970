//! Tests the lock file and the log, which sessions and batches both use.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;

use journal::{LockFile, Log, Versioned};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    v: u32,
    text: String,
}

impl Versioned for Line {
    const VERSION: u32 = 3;

    fn version(&self) -> u32 {
        self.v
    }
}

#[test]
fn a_lock_names_its_holder_and_a_killed_previous_holder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let first = LockFile::acquire(&path, "process 1").unwrap().unwrap();
    assert_eq!(first.left(), "");
    assert_eq!(LockFile::acquire(&path, "process 2").unwrap().unwrap_err(), "process 1");
    drop(first);
    assert_eq!(LockFile::acquire(&path, "process 2").unwrap().unwrap().left(), "");
    fs::write(&path, "process 7").unwrap(); // a kill releases the lock but leaves the text
    assert_eq!(LockFile::acquire(&path, "process 2").unwrap().unwrap().left(), "process 7");
}

#[test]
fn a_log_truncates_a_torn_line_before_it_appends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let line = |text: &str| Line { v: 3, text: text.to_owned() };
    let (mut log, records) = Log::<Line>::open(path.clone()).unwrap();
    assert_eq!(records, []);
    log.append(log.encode(&line("one")).unwrap(), true).unwrap();
    drop(log);
    fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"v\":3,\"te").unwrap();
    assert_eq!(Log::<Line>::read(&path).unwrap(), [line("one")]);
    let (mut log, _) = Log::<Line>::open(path.clone()).unwrap();
    log.append(log.encode(&line("two")).unwrap(), false).unwrap();
    assert_eq!(Log::<Line>::read(&path).unwrap(), [line("one"), line("two")]);
}
