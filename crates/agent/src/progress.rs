//! The progress of a model download: a bar on a terminal, occasional lines in a log. Only the
//! stream decides whether the download succeeded.

use std::time::Duration;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::Error;
use models::ollama::{PullProgress, Server};

use crate::console;
use crate::figures::bytes;
use crate::sanitize;

/// Pulls a model and shows the progress on standard error.
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
                view.show(&progress);
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

    fn show(&mut self, progress: &PullProgress) {
        let (completed, total) = (progress.completed(), progress.total());
        match self {
            View::Bar(bar) => {
                bar.set_length(total);
                bar.set_position(completed.min(total)); // may go down when a failed part is downloaded again
                bar.set_message(sanitize::short(&progress.status, 60));
            }
            View::Lines { status, tenth } => {
                if *status != progress.status {
                    status.clone_from(&progress.status);
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
