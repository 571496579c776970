//! The driver's work before and after effects: it records the original tree before the first
//! effect, records what commands change, and runs the verification.

use std::sync::Arc;
use std::time::Duration;

use journal::{Check, Ending, Event};
use tokio::task::JoinError;

use crate::Repository;
use crate::calls::CallQueue;
use crate::driver::{Driver, Stop, refused, stopped};
use crate::machine::{Machine, Turn};

/// If a candidate's verification takes this many times as long as the longest earlier one, it is
/// considered hung.
const SLOWER: u32 = 10;
/// The shortest time limit for the verification of a candidate. A shorter limit could stop a
/// verification that is only momentarily slow.
const LEAST_LIMIT: Duration = Duration::from_secs(30);

impl Driver<'_> {
    /// Runs the verification, and journals its result and what it changed.
    pub(crate) async fn check(&mut self) -> Result<Check, Stop> {
        self.check_within(None).await
    }

    /// Verifies a candidate. Its code may loop forever, so the verification is stopped if it takes
    /// much longer than earlier ones.
    pub(crate) async fn check_candidate(&mut self) -> Result<Check, Stop> {
        let limit = self.usual_check.map(|usual| (usual * SLOWER).max(LEAST_LIMIT));
        let check = self.check_within(limit).await?;
        self.candidate = None;
        Ok(check)
    }

    async fn check_within(&mut self, limit: Option<Duration>) -> Result<Check, Stop> {
        let Some(verifier) = self.verifier.clone() else {
            return Err(refused("there is no verification command"));
        };
        self.await_snapshot().await?;
        self.before_command().await?;
        self.journal.append(Event::CheckStarted { command: verifier.command() })?;
        let check = tokio::select! {
            check = verifier.verify(limit) => check.map_err(refused)?,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        self.after_command().await?;
        self.dirty = false;
        self.checked = true;
        let event = Event::Checked(check.clone());
        self.usual_check = self.usual_check.max(usual(&event));
        self.journal.append(event)?;
        Ok(check)
    }

    /// Calls into the tree on another thread, because such calls block.
    pub(crate) async fn on_tree<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn Repository) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let repository = Arc::clone(&self.repository);
        let called = tokio::task::spawn_blocking(move || call(&*repository)).await;
        called.unwrap_or_else(|_| Err("worker thread panicked".into()))
    }

    /// Prepares to record what a command changes.
    pub(crate) async fn before_command(&mut self) -> Result<(), Stop> {
        self.command_running = true;
        self.on_tree(|tree| tree.before_command()).await.map_err(not_recorded)
    }

    /// Records what a command changed. Returns whether it changed anything.
    pub(crate) async fn after_command(&mut self) -> Result<bool, Stop> {
        if !std::mem::take(&mut self.command_running) {
            return Ok(false);
        }
        let changed = self.on_tree(|tree| tree.after_command()).await.map_err(not_recorded)?;
        if let Some(record) = changed {
            self.start = if self.turn == 0 { record } else { self.start };
            self.journal.append(Event::CommandChanged { record })?;
        }
        Ok(changed.is_some())
    }

    /// Journals the end of a try. Returns the number of lines that the try changed.
    pub(crate) async fn end_try(&mut self, machine: &Machine) -> Result<u64, Stop> {
        self.await_snapshot().await?;
        let lines = self.on_tree(|tree| Ok(tree.changed_lines())).await.map_err(refused)?;
        if let (Some((number, of)), Some((ending, message))) =
            (machine.tries.several(), machine.tries.ended().cloned())
        {
            let failing = machine.counts().map(|counts| counts.failing);
            let turn = self.turn;
            self.journal.append(Event::TryEnded { turn, number, of, ending, message, failing, lines })?;
        }
        Ok(lines)
    }

    /// Reverts record `from` of the tree's history and all later records. `None` reverts everything
    /// since the first turn began. The revert is journaled only after it has happened. If the run
    /// is killed in between, the resumed run finds the revert in the tree's history
    /// ([`Repository::last_revert`]), and repeating the revert changes nothing.
    pub(crate) async fn revert_from(&mut self, from: Option<u64>) -> Result<Option<u64>, Stop> {
        self.await_snapshot().await?;
        let from = from.unwrap_or(self.start + 1);
        let reverted = self.on_tree(move |tree| tree.revert_from(from)).await;
        let record = reverted.map_err(|why| refused(format!("cannot revert the changes of a try: {why}")))?;
        self.dirty = true;
        self.journal.append(Event::Reverted { turn: self.turn, from, record })?;
        Ok(record)
    }

    /// Reverts changes that must not stay in the tree when the run is stopped: those of a candidate
    /// that has not been verified yet, or those of a try that is not known to be better than the
    /// best result so far. A resumed run restores the reverted changes and continues.
    pub(crate) async fn leave(
        &mut self,
        machine: Option<&Machine>,
        ending: Ending,
        message: String,
    ) -> Result<(Ending, String), Stop> {
        let at_a_limit = matches!(ending, Ending::Budget { .. } | Ending::Unavailable);
        let known = |machine: &Machine| if self.unsettled { None } else { machine.counts() };
        let try_ended = machine.filter(|_| at_a_limit).and_then(|m| m.tries.stop(known(m)));
        let candidate = self.candidate.take().filter(|_| at_a_limit || ending == Ending::Interrupted);
        let (from, left) = match (try_ended, candidate) {
            (Some(stopped), _) => stopped,
            (None, Some(from)) => {
                (Some(from), "a candidate that had not been verified yet was reverted".into())
            }
            (None, None) => return Ok((ending, message)),
        };
        if let Some(recorded) = self.snapshot.take() {
            original_recorded(recorded.await)?; // wait, even though the run is being stopped
        }
        self.after_command().await?;
        self.revert_from(from).await?;
        let message = if matches!(ending, Ending::Budget { .. }) { ending.label().into() } else { message };
        Ok((ending, format!("{message}; {left}")))
    }

    /// Runs all queued calls.
    pub(crate) async fn run_queued_calls(
        &mut self,
        calls: &mut CallQueue,
        turn: &mut Turn,
    ) -> Result<(), Stop> {
        let stopped = stopped(self.interrupt.clone(), self.deadline);
        tokio::pin!(stopped);
        loop {
            self.start_calls(calls, false).await?;
            if calls.is_idle() {
                return Ok(());
            }
            tokio::select! {
                finished = calls.next() => self.record_result(finished, turn).await?,
                stop = &mut stopped => return Err(stop),
            }
        }
    }

    /// Waits until the original tree is recorded. Called before anything can change the tree, so a
    /// run that is stopped here has changed nothing.
    pub(crate) async fn await_snapshot(&mut self) -> Result<(), Stop> {
        let Some(handle) = &mut self.snapshot else { return Ok(()) };
        let recorded = tokio::select! {
            biased;
            recorded = handle => recorded,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        self.snapshot = None;
        original_recorded(recorded)
    }
}

/// Turns a failure to record the original tree into a reason to stop.
fn original_recorded(recorded: Result<Result<(), String>, JoinError>) -> Result<(), Stop> {
    recorded
        .unwrap_or_else(|_| Err("worker thread panicked".into()))
        .map_err(|why| refused(format!("cannot record the state of the repository: {why}")))
}

/// Returns how long a verification took, if its tests ran to completion.
pub(crate) fn usual(event: &Event) -> Option<Duration> {
    let Event::Checked(check) = event else { return None };
    let count = |name: &str| check.facts[name].as_u64().unwrap_or(0);
    let ran = count("passed") + count("failed") > 0 && check.facts["could_not_run"].is_null();
    (ran && check.facts["timed_out"] != true).then(|| Duration::from_millis(check.ms))
}

pub(crate) fn not_recorded(why: String) -> Stop {
    refused(format!("cannot record what a command changes: {why}"))
}
