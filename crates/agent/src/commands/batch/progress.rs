//! Shows what a batch or a worker is doing: as a table on a terminal, as lines in a log, or as
//! machine-readable JSON lines.

mod json;
mod lines;
mod row;
mod table;

use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use batch::{Event, Summary};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use journal::Observer;

use self::table::Table;
use crate::console;
use crate::sanitize;

/// How often to redraw the table.
const REFRESH: Duration = Duration::from_millis(200);

/// Shows the events of a batch. Clones share one table, because tasks run on their own threads.
#[derive(Clone)]
pub(in crate::commands) struct Display(Arc<Mutex<View>>);

enum View {
    /// One JSON object per event on standard output.
    Json,
    /// One line per event on standard error.
    Lines,
    /// A table at the bottom of the terminal, with lines above it.
    Live(Box<Live>),
}

/// The table, and the progress bar that draws it on the terminal.
///
/// The whole table is one progress bar with several lines. With one bar per task in a
/// `MultiProgress`, the bars of tasks that do not fit would have to be removed and added again.
struct Live {
    bar: ProgressBar,
    table: Table,
}

impl Display {
    /// Creates a display that prints either JSON or human-readable lines.
    pub(in crate::commands) fn new(json: bool) -> Self {
        Self(Arc::new(Mutex::new(if json { View::Json } else { View::Lines })))
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an event.
    pub(in crate::commands) fn show(&self, event: &Event<'_>) {
        let paint = console::stderr_paint();
        match &mut *self.view() {
            View::Json => json::print(json::events(event)),
            View::Lines => console::say(lines::line(event, paint)),
            View::Live(live) => {
                live.table.apply(event, Instant::now());
                // A task that starts gets a row instead of a line.
                if !matches!(event, Event::Started { .. }) {
                    live.say(&lines::line(event, paint));
                }
            }
        }
    }

    /// Shows a message about the whole batch.
    pub(in crate::commands) fn note(&self, message: &str) {
        match &mut *self.view() {
            View::Json => json::print([json::note(message)]),
            View::Lines => console::say(sanitize::line(message)),
            View::Live(live) => live.say(&sanitize::line(message)),
        }
    }

    /// Prints the summary of the batch to standard output, either as JSON or as a human-readable
    /// table.
    ///
    /// # Errors
    /// If the table cannot be written.
    pub(super) fn summary(&self, summary: &Summary, out: &std::path::Path) -> std::io::Result<()> {
        if matches!(*self.view(), View::Json) {
            json::print([json::summary(summary, out)]);
            return Ok(());
        }
        console::print(&*sanitize::text(&summary.to_text()))?;
        console::say(format_args!("results are in {}", out.display()));
        Ok(())
    }

    /// Returns an observer for a task's session if the display shows what tasks are doing.
    pub(super) fn observer(&self, id: &str) -> Option<Observer> {
        matches!(*self.view(), View::Live(_)).then(|| {
            let (display, id) = (self.clone(), id.to_owned());
            Box::new(move |record: &journal::Record| {
                if let View::Live(live) = &mut *display.view() {
                    live.table.record(&id, &record.event, Instant::now());
                }
            }) as Observer
        })
    }

    /// On a terminal, shows a table while `work` runs, and then removes it.
    pub(in crate::commands) async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        self.open();
        let mut work = std::pin::pin!(work);
        let done = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                () = tokio::time::sleep(REFRESH) => {
                    if let View::Live(live) = &*self.view() {
                        live.draw();
                    }
                }
            }
        };
        self.close();
        done
    }

    fn open(&self) {
        let (mut view, target) = (self.view(), ProgressDrawTarget::stderr());
        // The target is hidden if standard error is not a terminal, or if TERM is unset or `dumb`.
        if matches!(*view, View::Lines) && !target.is_hidden() {
            *view = View::Live(Box::new(Live::new(target)));
        }
    }

    /// Removes the table. From then on, messages from tasks that are still running are shown as
    /// lines.
    fn close(&self) {
        let mut view = self.view();
        if let View::Live(live) = &*view {
            live.bar.finish_and_clear();
            *view = View::Lines;
        }
    }
}

impl Live {
    fn new(target: ProgressDrawTarget) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, table: Table::new(Instant::now()) }
    }

    fn draw(&self) {
        let lines = self.table.lines(console::stderr_size(), console::stderr_paint(), Instant::now());
        self.bar.set_message(lines.join("\n"));
        rewind();
    }

    /// Writes a line above the table. Draws the table first, because a line without a table below
    /// it would be overwritten by the next line.
    fn say(&self, line: &str) {
        self.draw();
        self.bar.println(line);
        rewind();
    }
}

/// Moves the cursor to the start of its line. Otherwise, the `^C` that a terminal shows for Ctrl-C
/// would wrap to a line of its own, and the table would be cleared in the wrong place.
fn rewind() {
    let _ = std::io::stderr().lock().write_all(b"\r");
}
