//! The progress of a download: a bar for people, a line now and then for logs. Success is judged by the stream alone.

use std::time::Duration;

use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use models::Error;
use models::ollama::{PullProgress, Server};

use crate::console;
use crate::figures::bytes;
use crate::sanitize;

/// Pulls a model and shows how it goes on standard error.
///
/// # Errors
/// As the server says in its stream, or when the stream ends before it said that the model is there.
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
            "the server stopped before {name} was complete; pull again, what is there is kept"
        )));
    }
    console::say(format_args!("{} is there", sanitize::line(name)));
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
                bar.set_position(completed.min(total)); // may go down: a part that failed is fetched again
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
