//! Signals that end a run. The first one asks the run to stop; the second one stops it immediately.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The signals of this process.
pub(crate) struct Signals {
    asked: watch::Sender<bool>,
    insisted: watch::Sender<bool>,
}

impl Signals {
    /// Handles SIGINT, SIGTERM and SIGHUP from now on. Must be called inside a runtime.
    ///
    /// # Errors
    /// If a signal handler cannot be installed.
    pub(crate) fn take() -> std::io::Result<Self> {
        let (asked, insisted) = (watch::Sender::new(false), watch::Sender::new(false));
        let ignored = ignored();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            // A process that was started with a signal ignored (under `nohup`, or as a background
            // job in a script) keeps ignoring it.
            if ignored >> (kind.as_raw_value() - 1) & 1 == 1 {
                continue;
            }
            let mut signals = signal(kind)?;
            let (asked, insisted) = (asked.clone(), insisted.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if asked.send_replace(true) {
                        insisted.send_replace(true);
                    }
                }
            });
        }
        Ok(Self { asked, insisted })
    }

    /// Returns a receiver whose value becomes true on the first signal.
    pub(crate) fn asked(&self) -> watch::Receiver<bool> {
        self.asked.subscribe()
    }

    /// Waits for the first signal.
    pub(crate) async fn wait(&self) {
        let _ = self.asked().wait_for(|stop| *stop).await;
    }

    /// Waits for the second signal.
    pub(crate) async fn insisted(&self) {
        let _ = self.insisted.subscribe().wait_for(|stop| *stop).await;
    }
}

/// Returns a bit mask of the signals that were already ignored when this process started. If the
/// kernel does not report them, the mask is empty.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Runs a future on this thread, without waiting for tasks that the future leaves running.
///
/// # Errors
/// If the runtime cannot be created, or the future fails.
pub(crate) fn block_on<T>(future: impl Future<Output = crate::exit::Result<T>>) -> crate::exit::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    result
}

/// Does work on a separate thread with its own runtime, so that blocking calls do not stall the
/// caller's runtime.
///
/// # Errors
/// If the runtime cannot be created, or the work fails.
pub(crate) async fn on_own_thread<T: Send + 'static>(
    work: impl AsyncFnOnce() -> crate::exit::Result<T> + Send + 'static,
) -> crate::exit::Result<T> {
    match tokio::task::spawn_blocking(|| block_on(work())).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(e) => Err(crate::exit::Failure::refused(e)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bug: file reads, tree walks and syncs of one task in a batch stalled the streams of all
    /// other tasks.
    #[test]
    fn work_that_blocks_does_not_hold_up_other_work() {
        let (send, receive) = std::sync::mpsc::channel();
        let blocked = on_own_thread(async move || Ok(receive.recv().is_ok()));
        let other = on_own_thread(async move || Ok(send.send(()).is_ok()));
        let both = block_on(async { Ok(tokio::join!(blocked, other)) }).ok().unwrap();
        assert!(both.0.ok().unwrap() && both.1.ok().unwrap());
    }
}
