//! The driver's work around effects: records the original tree before the first one, records what
//! commands change, and runs the verification.

use std::sync::Arc;

use journal::{Check, Event};

use crate::calls::CallQueue;
use crate::driver::{Driver, Stop, refused, stopped};
use crate::machine::Turn;

impl Driver<'_> {
    /// Runs the verification, and journals its result and what it changed.
    pub(crate) async fn check(&mut self) -> Result<Check, Stop> {
        let Some(verifier) = self.verifier.clone() else {
            return Err(refused("there is no verification command"));
        };
        self.await_snapshot().await?;
        self.before_command().await?;
        self.journal.append(Event::CheckStarted { command: verifier.command() })?;
        let check = tokio::select! {
            check = verifier.verify() => check.map_err(refused)?,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        self.after_command().await?;
        self.dirty = false;
        self.checked = true;
        self.journal.append(Event::Checked(check.clone()))?;
        Ok(check)
    }

    /// Prepares to record what a command changes.
    pub(crate) async fn before_command(&mut self) -> Result<(), Stop> {
        self.command_running = true;
        let repository = Arc::clone(&self.repository);
        unwrap_record(tokio::task::spawn_blocking(move || repository.before_command()).await)
    }

    /// Records what a command changed. Returns whether it changed anything.
    pub(crate) async fn after_command(&mut self) -> Result<bool, Stop> {
        if !std::mem::take(&mut self.command_running) {
            return Ok(false);
        }
        let repository = Arc::clone(&self.repository);
        let changed = unwrap_record(tokio::task::spawn_blocking(move || repository.after_command()).await)?;
        if let Some(record) = changed {
            self.journal.append(Event::CommandChanged { record })?;
        }
        Ok(changed.is_some())
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

    /// Waits until the original tree is recorded. Called before anything can change it, so a run
    /// that is stopped here has changed nothing.
    pub(crate) async fn await_snapshot(&mut self) -> Result<(), Stop> {
        let Some(handle) = &mut self.snapshot else { return Ok(()) };
        let recorded = tokio::select! {
            biased;
            recorded = handle => recorded,
            stop = stopped(self.interrupt.clone(), self.deadline) => return Err(stop),
        };
        self.snapshot = None;
        match recorded {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(refused(format!("cannot record the state of the repository: {why}"))),
            Err(_) => Err(refused("cannot record the state of the repository: worker thread panicked")),
        }
    }
}

/// Unwraps the result of a thread that records what a command changes.
pub(crate) fn unwrap_record<T>(done: Result<Result<T, String>, tokio::task::JoinError>) -> Result<T, Stop> {
    let why = match done {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(why)) => why,
        Err(_) => "worker thread panicked".into(),
    };
    Err(refused(format!("cannot record what a command changes: {why}")))
}
