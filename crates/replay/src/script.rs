//! Follows the record: every edge of the planner gets recorded results here, and every event is
//! compared here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use journal::{Check, Event, Record, Step, Trace};
use models::replay::Turn;
use serde_json::Value;
use tokio::sync::watch;
use tool_api::Outcome;
use workspace::{CleanPath, Seed};

use crate::difference::Difference;
use crate::recording::{Checked, Done, Recording, command_tool};

/// The files that commands changed, by the number of the record with the command's result.
pub type Changes = HashMap<u64, Vec<(CleanPath, Option<Seed>)>>;

/// The record, and how far the replay has followed it.
pub struct Script {
    state: Mutex<State>,
    stop: watch::Sender<bool>,
}

struct State {
    wanted: Vec<Step>,
    /// Nothing is known about what would follow the last of them.
    open: bool,
    trace: Trace,
    /// Steps that matched.
    same: usize,
    heard: VecDeque<Option<Turn>>,
    asked: usize,
    windows: HashMap<u32, u64>,
    window: Option<u64>,
    results: Vec<Option<Done>>,
    checks: VecDeque<Checked>,
    command: String,
    /// The tools that run commands, as far as they were called.
    commands: HashSet<String>,
    /// The current turn, and the calls that its answer has opened.
    turn: u32,
    begun: usize,
    /// Recorded refusals by turn: after how many calls, of which tool, with what message.
    refused: HashMap<u32, (usize, String, String)>,
    found: Option<Difference>,
    /// The whole record has been followed.
    over: bool,
}

/// How far a replay got.
#[derive(Debug, Default)]
pub struct Followed {
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
    /// Moves the steps and results out of a recording.
    pub fn new(recording: &mut Recording) -> Self {
        let wanted = std::mem::take(&mut recording.steps);
        let mut refused = HashMap::new();
        let mut calls = (0, 0);
        for step in &wanted {
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
            wanted,
            open: recording.open,
            trace: Trace::default(),
            same: 0,
            heard: std::mem::take(&mut recording.heard).into(),
            asked: 0,
            windows: std::mem::take(&mut recording.windows),
            window: recording.identity.window,
            results: std::mem::take(&mut recording.results).into_iter().map(Some).collect(),
            command: checks.front().map(|c| c.check.command.clone()).unwrap_or_default(),
            checks,
            commands: std::mem::take(&mut recording.commands),
            turn: 0,
            begun: 0,
            refused,
            found: None,
            over: false,
        };
        Self { state: Mutex::new(state), stop: watch::Sender::new(false) }
    }

    /// Becomes true when the replay is to stop.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares an event with the record.
    pub fn observe(&self, record: &Record) {
        let mut state = self.state();
        if state.found.is_some() || state.over {
            return;
        }
        if let Event::Request { turn, .. } = &record.event {
            (state.turn, state.begun) = (*turn, 0);
        }
        state.commands.extend(command_tool(&record.event));
        state.trace.push(record);
        state.compare();
        if state.found.is_some() || state.over {
            self.stop.send_replace(true);
        }
    }

    /// The answer to the request just sent; `None` when the replay has ended.
    pub(crate) fn answer(&self) -> Option<(usize, Turn)> {
        let mut state = self.state();
        if state.found.is_some() || state.over {
            return None;
        }
        state.asked += 1;
        let number = state.asked;
        match state.heard.pop_front() {
            Some(Some(turn)) => Some((number, turn)),
            _ => {
                self.end(&mut state, "the agent asks the model once more");
                None
            }
        }
    }

    /// What the user says at this point of the session.
    pub(crate) fn user_message(&self) -> Option<String> {
        let mut state = self.state();
        state.settle();
        match state.wanted.get(state.same).map(|step| &step.event) {
            Some(Event::UserMessage { text }) if state.found.is_none() => Some(text.clone()),
            _ => None,
        }
    }

    /// The model's window as far as it is known.
    pub(crate) fn window(&self) -> Option<u64> {
        self.state().window
    }

    /// The turn is over: takes over the window that was detected then.
    pub(crate) fn look_at_server(&self) {
        let mut state = self.state();
        state.window = state.windows.get(&state.turn).copied().or(state.window);
    }

    /// The result of a call of this turn, and the number of its record.
    pub(crate) fn result(&self, tool: &str, arguments: &Value) -> Option<(u64, Outcome)> {
        let mut state = self.state();
        let turn = state.turn;
        let fits = |done: &Option<Done>, exactly: bool| {
            let same = |d: &Done| d.arguments.as_ref().map_or(!exactly, |a| a == arguments);
            done.as_ref().is_some_and(|d| d.turn == turn && d.tool == tool && same(d))
        };
        let exact = state.results.iter().position(|d| fits(d, true));
        let at = exact.or_else(|| state.results.iter().position(|d| fits(d, false)));
        match at.and_then(|at| state.results[at].take()) {
            Some(done) => Some((done.seq, done.outcome)),
            None => {
                self.end(&mut state, &format!("{tool} is called, and what it answered is not on record"));
                None
            }
        }
    }

    /// The next verification's result, and the number of its record.
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
                self.end(&mut state, "the agent verifies once more");
                None
            }
        }
    }

    /// The command of the next verification.
    pub(crate) fn command(&self) -> String {
        self.state().command.clone()
    }

    /// Counts a call that was opened.
    pub(crate) fn call_begins(&self) {
        self.state().begun += 1;
    }

    /// Refuses the call that is being written, if it was refused in the record.
    pub(crate) fn refusal(&self, tool: &str) -> Result<(), String> {
        let state = self.state();
        match state.refused.get(&state.turn) {
            Some((before, refused, message)) if refused == tool && state.begun > *before => {
                Err(message.clone())
            }
            _ => Ok(()),
        }
    }

    /// Ends the replay: the record has nothing to continue with.
    fn end(&self, state: &mut State, what: &str) {
        // Some results of the last answer may be certain by now.
        state.settle();
        if state.found.is_none() {
            let next = state.wanted.get(state.same).cloned();
            match next {
                None if state.open => state.over = true,
                next => {
                    state.found = Some(Difference::beyond(next.as_ref(), state.turn, what, &state.commands))
                }
            }
        }
        self.stop.send_replace(true);
    }

    /// The result, after the run has ended.
    pub fn finish(&self) -> Followed {
        let mut state = self.state();
        if state.found.is_none() && !state.over {
            state.settle();
        }
        if state.found.is_none()
            && let Some(step) = state.wanted.get(state.same)
        {
            state.found =
                Some(Difference::between(Some(step), None, &state.wanted[..state.same], &state.commands));
        }
        let counted = |wanted: fn(&Event) -> bool| {
            state.wanted[..state.same].iter().filter(|s| wanted(&s.event)).count()
        };
        Followed {
            events: state.same,
            requests: counted(|e| matches!(e, Event::Request { .. })),
            calls: counted(|e| matches!(e, Event::ToolFinished { .. })),
            difference: state.found.take(),
        }
    }
}

impl State {
    fn settle(&mut self) {
        self.trace.settle();
        self.compare();
    }

    fn compare(&mut self) {
        while self.found.is_none() && !self.over {
            let Some(now) = self.trace.steps().get(self.same) else { return };
            match self.wanted.get(self.same) {
                Some(wanted) if wanted.event == now.event => self.same += 1,
                None if self.open => self.over = true,
                wanted => {
                    self.found = Some(Difference::between(
                        wanted,
                        Some(now),
                        &self.wanted[..self.same],
                        &self.commands,
                    ))
                }
            }
        }
    }
}
