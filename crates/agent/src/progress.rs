//! Downloads models and shows progress: as a bar on a terminal, or as occasional lines in a log.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model_files::catalog::Model;
use model_files::{Sources, Store};
use models::Error;
use models::ollama::Server;

use crate::console;
use crate::figures::bytes;
use crate::sanitize;

/// Pulls a model and shows progress on standard error.
///
/// # Errors
/// If the server reports an error, or its stream ends before the model is complete.
pub(crate) async fn pull(server: &Server, name: &str) -> Result<(), Error> {
    let mut stream = server.pull(name).await?;
    let mut view = View::new(name);
    let mut done = false;
    while let Some(progress) = stream.next().await {
        match progress {
            Ok(progress) => {
                done = progress.done;
                view.show(&progress.status, progress.completed(), progress.total());
            }
            Err(error) => {
                view.clear();
                return Err(error);
            }
        }
    }
    view.clear();
    if !done {
        return Err(Error::Transport(format!(
            "the download of {name} stopped early; pull again to resume it"
        )));
    }
    console::say(format_args!("pulled {}", sanitize::line(name)));
    Ok(())
}

/// Pulls a model file into the store and shows progress on standard error.
///
/// # Errors
/// Same as [`model_files::pull`].
pub(crate) async fn pull_file(
    model: &Model,
    store: &Store,
    sources: &Sources,
) -> Result<PathBuf, model_files::Error> {
    let mut view = View::new(&model.name);
    let show = |progress: model_files::Progress| view.show(&progress.status, progress.done, progress.total);
    let pulled = model_files::pull(model, store, sources, show).await;
    view.clear();
    pulled
}

enum View {
    Bar(ProgressBar),
    Lines { status: String, tenth: u64 },
}

impl View {
    fn new(name: &str) -> Self {
        if !console::stderr_is_terminal() {
            return View::Lines { status: String::new(), tenth: 0 };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(
            "{prefix} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(sanitize::short(name, 40));
        bar.enable_steady_tick(Duration::from_millis(100));
        View::Bar(bar)
    }

    fn show(&mut self, status: &str, completed: u64, total: u64) {
        match self {
            View::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(completed.min(total)); // may go down when a failed part is downloaded again
                bar.set_message(sanitize::short(status, 60));
            }
            View::Lines { status: last, tenth } => {
                if last != status {
                    status.clone_into(last);
                    console::say(sanitize::short(status, 100));
                }
                let now = completed.saturating_mul(10).checked_div(total).unwrap_or(0);
                if now > *tenth && now < 10 {
                    console::say(format_args!("  {}0 % of {}", now, bytes(total)));
                }
                *tenth = now;
            }
        }
    }

    fn clear(&self) {
        if let View::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
