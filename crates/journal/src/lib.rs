//! The event log: what happened in a session, in order, each event written before its effect.
//!
//! A session is a folder; its `journal.jsonl` holds one [`Record`] a line and is only ever appended to. Everything else is a view of
//! it: the live display, `--json`, `sessions show`, replay, reports, and what a resumed run knows. One process writes a session at
//! a time ([`Journal`] holds a lock); a last line that a crash tore is dropped when the session is loaded.
//!
//! ```
//! use journal::{Event, Store};
//! let folder = tempfile::tempdir()?;
//! let store = Store::new(folder.path());
//! let mut journal = store.create()?;
//! journal.append(Event::Warning { message: "the window is smaller than asked".into() })?;
//! let id = journal.id().to_owned();
//! drop(journal);
//! assert_eq!(store.load(&id)?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ending;
mod event;
mod fork;
mod store;
mod trace;

pub use ending::{Budget, Ending};
pub use event::{
    Check, Counts, CutReason, Diff, Doubt, EndedBy, Event, Mode, ModelInfo, Record, Role, Totals, TreeWay,
    VERSION, schema,
};
pub use fork::origin;
pub use store::{Error, Filter, Journal, Observer, SessionLock, Store, Summary, TreeLock};
pub use trace::{Step, Trace, uninterrupted};
