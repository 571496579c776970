//! The driver's work around effects: records the original tree before the first one, records what
//! commands change, and runs the verification.

use std::sync::Arc;

use journal::{Check, Event};

use crate::Repository;
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

    /// Calls the tree on another thread, because its calls block.
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
        recorded
            .unwrap_or_else(|_| Err("worker thread panicked".into()))
            .map_err(|why| refused(format!("cannot record the state of the repository: {why}")))
    }
}

pub(crate) fn not_recorded(why: String) -> Stop {
    refused(format!("cannot record what a command changes: {why}"))
}
