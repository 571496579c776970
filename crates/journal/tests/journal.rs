//! Tests sessions on disk through the public interface.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs;
use std::io::Write;
use std::sync::{Arc, Mutex};

use journal::{Ending, Error, Event, Mode, Store};

fn warning(message: &str) -> Event {
    Event::Warning { message: message.into() }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    (folder, store)
}

#[test]
fn appended_records_are_loaded_in_order_with_numbers() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    journal.append(warning("a")).unwrap();
    journal.append(warning("b")).unwrap();
    let records = store.load(journal.id()).unwrap();
    assert_eq!(records.iter().map(|r| r.seq).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(records[1].event, warning("b"));
}

#[test]
fn a_torn_last_line_is_dropped_and_the_next_append_follows_the_last_whole_record() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let id = journal.id().to_owned();
    journal.append(warning("whole")).unwrap();
    drop(journal);
    let path = store.folder(&id).join("journal.jsonl");
    for tail in [&b"{\"v\":1,\"seq\":1,\"ti"[..], b"\0\0\0\0\n", b"{"] {
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(tail).unwrap();
        assert_eq!(store.load(&id).unwrap().len(), 1, "{tail:?}");
        let (mut journal, records) = store.open(&id).unwrap();
        assert_eq!(records.len(), 1);
        journal.append(warning("next")).unwrap();
        drop(journal);
        let records = store.load(&id).unwrap();
        assert_eq!((records.len(), records[1].seq), (2, 1));
        let first_line_only: Vec<u8> =
            fs::read(&path).unwrap().split_inclusive(|b| *b == b'\n').next().unwrap().to_vec();
        fs::write(&path, first_line_only).unwrap();
    }
}

#[test]
fn damage_before_the_last_line_is_reported_with_its_line_number() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let id = journal.id().to_owned();
    journal.append(warning("a")).unwrap();
    journal.append(warning("b")).unwrap();
    drop(journal);
    let path = store.folder(&id).join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap().replacen("\"event\"", "\"evnt\"", 1);
    fs::write(&path, text).unwrap();
    let error = store.load(&id).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

#[test]
fn a_record_of_a_later_version_is_not_misread() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let id = journal.id().to_owned();
    journal.append(warning("a")).unwrap();
    drop(journal);
    let path = store.folder(&id).join("journal.jsonl");
    let text = fs::read_to_string(&path).unwrap().replacen("\"v\":1", "\"v\":2", 1);
    fs::write(&path, text).unwrap();
    assert!(store.load(&id).unwrap_err().to_string().contains("version 2"));
}

#[test]
fn a_second_writer_is_refused_with_the_holders_name() {
    let (_folder, store) = store();
    let journal = store.create().unwrap();
    let Err(Error::Locked { holder, .. }) = store.open(journal.id()) else { panic!("not locked") };
    assert_eq!(holder, format!("process {}", std::process::id()));
    assert!(matches!(store.remove(journal.id()), Err(Error::Locked { .. })));
    let id = journal.id().to_owned();
    drop(journal);
    store.open(&id).unwrap();
}

#[test]
fn sessions_are_found_by_id_prefix_or_last() {
    let (_folder, store) = store();
    let (a, b) = (store.create().unwrap(), store.create().unwrap());
    let mut ids = [a.id().to_owned(), b.id().to_owned()];
    ids.sort();
    assert_eq!(store.find(&ids[0]).unwrap(), ids[0]);
    assert_eq!(store.find("last").unwrap(), ids[1]);
    assert!(matches!(store.find("2"), Err(Error::Ambiguous { .. })));
    assert!(matches!(store.find("nothing"), Err(Error::NotFound(_))));
    assert!(matches!(store.find(""), Err(Error::NotFound(_))));
}

#[test]
fn a_summary_has_the_task_and_the_ending() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let id = journal.id().to_owned();
    journal
        .append(Event::Session {
            id: id.clone(),
            version: "0".into(),
            task: "fix it".into(),
            root: "/r".into(),
            mode: Mode::DryRun,
            settings: Vec::new(),
            protected: Vec::new(),
            images: Vec::new(),
            output_schema: None,
            forked_from: None,
        })
        .unwrap();
    assert_eq!(store.summary(&id).unwrap().ending, None);
    journal.append(Event::Finished(journal::Report::new(Ending::GaveUp, ""))).unwrap();
    let summary = store.summary(&id).unwrap();
    assert_eq!(
        (summary.task.as_str(), summary.mode, summary.ending),
        ("fix it", Mode::DryRun, Some(Ending::GaveUp))
    );
}

#[test]
fn observers_see_each_record_after_it_is_written() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let path = journal.folder().join("journal.jsonl");
    journal.observe(Box::new(move |record| {
        let on_disk = fs::read_to_string(&path).unwrap().lines().count();
        sink.lock().unwrap().push((record.seq, on_disk));
    }));
    journal.append(warning("a")).unwrap();
    journal.append(warning("b")).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(0, 1), (1, 2)]);
}

#[test]
fn the_committed_event_schema_matches_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/events.schema.json");
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        committed.trim(),
        format!("{:#}", journal::schema()),
        "stale: cargo run -p journal --example event_schema > crates/journal/events.schema.json"
    );
}

#[test]
fn filtered_text_is_neither_written_nor_observed() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&seen);
    journal.observe(Box::new(move |record| shown.lock().unwrap().push(record.event.clone())));
    // This filter also replaces the name of the `warning` event, so the record of that event
    // becomes invalid.
    journal.filter(Box::new(|text| match text.contains("hidden") || text.contains("warning") {
        true => text.replace("hidden", "[x]").replace("warning", "[y]").into(),
        false => text.into(),
    }));
    journal.append(warning("a hidden \"word\"")).unwrap();
    journal.append(Event::Guard { message: "a hidden \"word\"".into() }).unwrap();
    journal.append(Event::Guard { message: "plain".into() }).unwrap();
    let records = store.load(journal.id()).unwrap();
    assert_eq!(records[0].event, warning("a hidden \"word\""), "a filter that breaks the record is ignored");
    assert_eq!(records[1].event, Event::Guard { message: "a [x] \"word\"".into() });
    assert_eq!(*seen.lock().unwrap(), records.into_iter().map(|r| r.event).collect::<Vec<_>>());
}

#[test]
fn a_fork_copies_records_and_state_and_does_not_change_the_original() {
    let (_folder, store) = store();
    let mut journal = store.create().unwrap();
    let id = journal.id().to_owned();
    let session = Event::Session {
        id: id.clone(),
        version: "0".into(),
        task: "fix it".into(),
        root: "/r".into(),
        mode: Mode::Run,
        settings: Vec::new(),
        protected: Vec::new(),
        images: Vec::new(),
        output_schema: None,
        forked_from: None,
    };
    journal.append(session).unwrap();
    std::fs::create_dir_all(journal.folder().join("state/objects")).unwrap();
    std::fs::write(journal.folder().join("state/objects/one"), "before").unwrap();
    assert!(matches!(store.fork(&id), Err(journal::Error::Locked { .. })), "the session is in use");
    drop(journal);
    let before = store.load(&id).unwrap();
    let (mut fork, records) = store.fork(&id).unwrap();
    assert!(matches!(&records[0].event, Event::Session { id, forked_from: Some(first), .. }
        if id == fork.id() && *first == id_of(&before)));
    assert_eq!(journal::origin(&records), Some(id.as_str()));
    assert_eq!(std::fs::read_to_string(fork.folder().join("state/objects/one")).unwrap(), "before");
    fork.append(Event::UserMessage { text: "more".into() }).unwrap();
    let fork_id = fork.id().to_owned();
    drop(fork);
    assert_eq!(store.load(&fork_id).unwrap().len(), 2);
    assert_eq!(store.load(&id).unwrap(), before);
    let (second, records) = store.fork(&fork_id).unwrap();
    assert_eq!(journal::origin(&records), Some(id.as_str()), "a fork of a fork");
    assert_ne!(second.id(), fork_id);
}

fn id_of(records: &[journal::Record]) -> String {
    journal::origin(records).unwrap().to_owned()
}

#[test]
fn bug_the_message_about_an_ambiguous_id_counted_at_most_five_sessions() {
    let (_folder, store) = store();
    for _ in 0..7 {
        store.create().unwrap();
    }
    let message = store.find("2").unwrap_err().to_string();
    assert!(message.contains("matches 7 sessions (") && message.contains(", …)"), "{message}");
}
