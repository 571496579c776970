//! Follows a record during a replay: supplies recorded results to the parts of the planner that ask
//! for them, and compares every event with the record.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Check, Event, ModelRole, Record, Step, Trace};
use models::Identity;
use models::replay::Turn;
use serde_json::Value;
use tokio::sync::watch;
use tool_api::Outcome;
use workspace::{CleanPath, Seed};

use crate::difference::Difference;
use crate::recording::{CallResult, Checked, ModelChange, Recording, command_tool};

/// The files changed by commands and reverts, keyed by the number of the record that holds the
/// command's result or the revert.
pub type Changes = HashMap<u64, Vec<(CleanPath, Option<Seed>)>>;

/// The record, and the replay's position in it.
pub struct Script {
    state: Mutex<State>,
    stop: watch::Sender<bool>,
}

struct State {
    recorded: Vec<Step>,
    /// Whether more steps may follow the last recorded one.
    open: bool,
    trace: Trace,
    /// The number of steps that matched.
    same: usize,
    answers: VecDeque<Option<Turn>>,
    changes: VecDeque<ModelChange>,
    requests: usize,
    windows: HashMap<u32, u64>,
    window: Option<u64>,
    results: Vec<Option<CallResult>>,
    checks: VecDeque<Checked>,
    command: String,
    reverts: VecDeque<(u64, Option<u64>)>,
    tries: VecDeque<u64>,
    /// The names of the tools that ran commands in the record, or that have run one in the replay
    /// so far.
    commands: HashSet<String>,
    /// The current turn, and the number of calls opened in its answer.
    turn: u32,
    opened: usize,
    /// Recorded refusals by turn: the number of calls before the refusal, the tool and the message.
    refused: HashMap<u32, (usize, String, String)>,
    difference: Option<Difference>,
    /// Whether the whole record matched.
    done: bool,
}

/// The result of comparing a replay with its record.
#[derive(Debug, Default)]
pub struct Comparison {
    /// The first difference, if there is one.
    pub difference: Option<Difference>,
    /// Events compared.
    pub events: usize,
    /// Requests compared.
    pub requests: usize,
    /// Calls compared.
    pub calls: usize,
}

impl Script {
    /// Creates a script from a recording, and moves the steps and results out of the recording.
    pub fn new(recording: &mut Recording) -> Self {
        let recorded = std::mem::take(&mut recording.steps);
        let mut refused = HashMap::new();
        let mut calls = (0, 0);
        for step in &recorded {
            match &step.event {
                Event::Call { turn, .. } => calls = (*turn, if calls.0 == *turn { calls.1 + 1 } else { 1 }),
                Event::Refused { turn, tool: Some(tool), message, .. } => {
                    let before = if calls.0 == *turn { calls.1 } else { 0 };
                    refused.insert(*turn, (before, tool.clone(), message.clone()));
                }
                _ => {}
            }
        }
        let checks: VecDeque<Checked> = std::mem::take(&mut recording.checks).into();
        let state = State {
            recorded,
            open: recording.open,
            trace: Trace::default(),
            same: 0,
            answers: std::mem::take(&mut recording.answers).into(),
            changes: std::mem::take(&mut recording.changes).into(),
            requests: 0,
            windows: std::mem::take(&mut recording.windows),
            window: recording.identity.window,
            results: std::mem::take(&mut recording.results).into_iter().map(Some).collect(),
            command: checks.front().map(|c| c.check.command.clone()).unwrap_or_default(),
            checks,
            reverts: std::mem::take(&mut recording.reverts).into(),
            tries: std::mem::take(&mut recording.tries).into(),
            commands: std::mem::take(&mut recording.commands),
            turn: 0,
            opened: 0,
            refused,
            difference: None,
            done: false,
        };
        Self { state: Mutex::new(state), stop: watch::Sender::new(false) }
    }

    /// Returns a value that becomes true when the replay must stop.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares an event with the record.
    pub fn observe(&self, record: &Record) {
        let mut state = self.state();
        if state.difference.is_some() || state.done {
            return;
        }
        if let Event::Request { turn, .. } = &record.event {
            (state.turn, state.opened) = (*turn, 0);
        }
        state.commands.extend(command_tool(&record.event));
        state.trace.push(record);
        state.compare();
        if state.difference.is_some() || state.done {
            self.stop.send_replace(true);
        }
    }

    /// Returns the recorded answer to the current request, or `None` if the replay has ended.
    pub(crate) fn answer(&self) -> Option<(usize, Turn)> {
        let mut state = self.state();
        if state.difference.is_some() || state.done {
            return None;
        }
        state.requests += 1;
        let number = state.requests;
        match state.answers.pop_front() {
            Some(Some(turn)) => Some((number, turn)),
            _ => {
                self.end(&mut state, "another request to the model");
                None
            }
        }
    }

    /// Returns the next model that the recorded run switched to, if it has this role. The outer
    /// `None` means that the replay has ended.
    pub(crate) fn change_model(&self, role: ModelRole) -> Option<Option<Identity>> {
        let mut state = self.state();
        let Some(next) = state.changes.front() else {
            self.end(&mut state, "another model");
            return None;
        };
        if next.role != Some(role) {
            return Some(None);
        }
        let identity = state.changes.pop_front()?.identity;
        state.window = identity.window;
        Some(Some(identity))
    }

    /// Returns the user's message at this point in the session.
    pub(crate) fn user_message(&self) -> Option<String> {
        let mut state = self.state();
        state.settle();
        match state.recorded.get(state.same).map(|step| &step.event) {
            Some(Event::UserMessage { text }) if state.difference.is_none() => Some(text.clone()),
            _ => None,
        }
    }

    /// Returns the model's window, if known.
    pub(crate) fn window(&self) -> Option<u64> {
        self.state().window
    }

    /// Applies the window that the recorded run detected in this turn. Called at the end of the
    /// turn.
    pub(crate) fn update_window(&self) {
        let mut state = self.state();
        state.window = state.windows.get(&state.turn).copied().or(state.window);
    }

    /// Removes and returns the recorded outcome of this call if the call was vetoed.
    pub(crate) fn vetoed(&self, tool: &str, arguments: &Value) -> Option<Outcome> {
        let mut state = self.state();
        let turn = state.turn;
        let vetoed = |r: &CallResult| {
            let same = r.turn == turn && r.tool == tool && r.arguments.as_ref() == Some(arguments);
            same && r.outcome.facts[crate::VETOED] == true
        };
        let at = state.results.iter().position(|result| result.as_ref().is_some_and(vetoed))?;
        state.results[at].take().map(|result| result.outcome)
    }

    /// Removes and returns the findings that were recorded when these changed files were inspected
    /// in this turn, if there are any. A replay cannot inspect the files again, because that
    /// requires programs outside the agent.
    #[must_use]
    pub fn inspection(&self, changed: &[String]) -> Option<String> {
        let mut state = self.state();
        let turn = state.turn;
        let inspected = |r: &CallResult| {
            r.turn == turn && r.outcome.changed == changed && r.outcome.inspection().is_some()
        };
        let at = state.results.iter().position(|result| result.as_ref().is_some_and(inspected))?;
        state.results[at].take()?.outcome.inspection().map(str::to_owned)
    }

    /// Removes and returns the result of a call in this turn, along with its record number.
    pub(crate) fn result(&self, tool: &str, arguments: &Value) -> Option<(u64, Outcome)> {
        let mut state = self.state();
        let turn = state.turn;
        let matches = |result: &Option<CallResult>, exactly: bool| {
            let same = |r: &CallResult| r.arguments.as_ref().map_or(!exactly, |a| a == arguments);
            result.as_ref().is_some_and(|r| r.turn == turn && r.tool == tool && same(r))
        };
        let exact = state.results.iter().position(|r| matches(r, true));
        let at = exact.or_else(|| state.results.iter().position(|r| matches(r, false)));
        match at.and_then(|at| state.results[at].take()) {
            Some(result) => Some((result.seq, result.outcome)),
            None => {
                self.end(&mut state, &format!("a call to {tool} without a recorded result"));
                None
            }
        }
    }

    /// Removes and returns the result of the next verification, along with its record number.
    pub(crate) fn check(&self) -> Option<(u64, Check)> {
        let mut state = self.state();
        match state.checks.pop_front() {
            Some(Checked { seq, check }) => {
                if let Some(next) = state.checks.front().map(|c| c.check.command.clone()) {
                    state.command = next;
                }
                Some((seq, check))
            }
            None => {
                self.end(&mut state, "another verification");
                None
            }
        }
    }

    /// Removes and returns the next revert: its number in the session's records, and its number in
    /// the history of the tree.
    pub(crate) fn reverted(&self) -> Option<(u64, Option<u64>)> {
        self.state().reverts.pop_front()
    }

    /// Returns the number of lines that the current try changed.
    pub(crate) fn changed_lines(&self) -> u64 {
        self.state().tries.pop_front().unwrap_or_default()
    }

    /// Returns the command of the next verification.
    pub(crate) fn command(&self) -> String {
        self.state().command.clone()
    }

    /// Counts an opened call.
    pub(crate) fn call_opened(&self) {
        self.state().opened += 1;
    }

    /// Refuses the open call if it was refused in the record.
    pub(crate) fn refusal(&self, tool: &str) -> Result<(), String> {
        let state = self.state();
        match state.refused.get(&state.turn) {
            Some((before, refused, message)) if refused == tool && state.opened > *before => {
                Err(message.clone())
            }
            _ => Ok(()),
        }
    }

    /// Ends the replay because the record does not contain `what`.
    fn end(&self, state: &mut State, what: &str) {
        state.settle();
        if state.difference.is_none() {
            let next = state.recorded.get(state.same);
            match next {
                None if state.open => state.done = true,
                next => state.difference = Some(Difference::beyond(next, state.turn, what, &state.commands)),
            }
        }
        self.stop.send_replace(true);
    }

    /// Returns the result of the comparison once the run has ended.
    pub fn finish(&self) -> Comparison {
        let mut state = self.state();
        if state.difference.is_none() && !state.done {
            state.settle();
        }
        if state.difference.is_none()
            && let Some(step) = state.recorded.get(state.same)
        {
            state.difference =
                Some(Difference::between(Some(step), None, &state.recorded[..state.same], &state.commands));
        }
        let counted = |wanted: fn(&Event) -> bool| {
            state.recorded[..state.same].iter().filter(|s| wanted(&s.event)).count()
        };
        Comparison {
            events: state.same,
            requests: counted(|e| matches!(e, Event::Request { .. })),
            calls: counted(|e| matches!(e, Event::ToolFinished { .. })),
            difference: state.difference.take(),
        }
    }
}

impl State {
    fn settle(&mut self) {
        self.trace.settle();
        self.compare();
    }

    fn compare(&mut self) {
        while self.difference.is_none() && !self.done {
            let Some(now) = self.trace.steps().get(self.same) else { return };
            match self.recorded.get(self.same) {
                Some(wanted) if wanted.event == now.event => self.same += 1,
                None if self.open => self.done = true,
                wanted => {
                    let before = &self.recorded[..self.same];
                    self.difference = Some(Difference::between(wanted, Some(now), before, &self.commands));
                }
            }
        }
    }
}
