//! The event log of a session. It records what happened, in order. Each event is written before its
//! effect.
//!
//! A session is a folder with an append-only `journal.jsonl`, one [`Record`] per line. Everything
//! else is a view of it: the live display, `--json`, `sessions show`, replays, reports and the
//! state of a resumed run. Only one process at a time writes a session ([`Journal`] holds a lock).
//! An incomplete last line is dropped when the session is loaded.
//!
//! [`LockFile`] and [`Log`] are the building blocks. `batch` uses them for its own records.
//!
//! ```
//! use journal::{Event, Store};
//! let folder = tempfile::tempdir()?;
//! let store = Store::new(folder.path());
//! let mut journal = store.create()?;
//! journal.append(Event::Warning { message: "the window is smaller than requested".into() })?;
//! let id = journal.id().to_owned();
//! drop(journal);
//! assert_eq!(store.load(&id)?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ending;
mod error;
mod event;
mod fork;
mod lock;
mod log;
mod store;
mod trace;

pub use ending::{Budget, Ending};
pub use error::{Error, io_error, is_temporary};
pub use event::{
    Check, Counts, CutReason, Diff, Doubt, EndedBy, Event, ExternalTool, Mode, ModelInfo, ModelRole,
    ModelTotals, Record, Report, Role, Totals, TreeWay, VERSION, dollars, external_tools, schema,
};
pub use fork::origin;
pub use jiff::civil::Date;
pub use lock::LockFile;
pub use log::{Log, Versioned};
pub use store::{Filter, JOURNAL, Journal, Observer, Store, Summary, TreeLock};
pub use trace::{Step, Trace, uninterrupted};
