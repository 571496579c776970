//! The summary of a batch, as JSON for programs, as a table for humans, and as an exit code for
//! shells.

use std::collections::HashMap;
use std::fmt::Write as _;

use journal::{Date, Ending};
use serde::{Deserialize, Serialize};

use crate::record::{Finished, Started};
use crate::stop::Stop;
use crate::task::Task;

/// The exit code if a task was not verified but nothing worse happened.
const NOT_VERIFIED: u8 = 1;

/// All tasks of a batch, with their state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of the format: 1.
    pub v: u32,
    /// The number of tasks that were selected.
    pub tasks: usize,
    /// The number of tasks for each ending, most frequent first. The string is [`Ending::label`] or
    /// `not run`.
    pub endings: Vec<(String, usize)>,
    /// Why the batch stopped, if it stopped before all tasks had a result from the agent.
    pub stopped: Option<Stop>,
    /// The number of attempts at these tasks across all invocations, including killed attempts.
    pub attempts: usize,
    /// Prompt and generated tokens of all attempts.
    pub tokens: u64,
    /// The cost of all attempts in dollars; `None` if no price was known.
    pub cost: Option<f64>,
    /// The date of the prices; the oldest date if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices_of: Option<Date>,
    /// Total duration of all attempts, in seconds.
    pub seconds: f64,
    /// One row per task, in the order they run.
    pub rows: Vec<Row>,
}

/// The state of a task, taken from an attempt at the task's current version: the last one that the
/// agent itself finished or, if there is none, the last one that ended some other way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The task.
    pub id: String,
    /// `None` if no attempt at the current version of the task has ended.
    pub ending: Option<Ending>,
    /// Whether the attempt failed because of the infrastructure, not because of the agent.
    pub infrastructure: bool,
    /// Attempts so far.
    pub attempts: usize,
    /// Lines added.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// Requests answered by the model.
    pub turns: u32,
    /// Prompt and generated tokens.
    pub tokens: u64,
    /// Dollars, if prices are known.
    pub cost: Option<f64>,
    /// Wall-clock time.
    pub seconds: f64,
    /// The session.
    pub session: Option<String>,
    /// One sentence.
    pub message: String,
}

pub(crate) fn tokens(result: &Finished) -> u64 {
    result.totals.prompt_tokens.saturating_add(result.totals.generated_tokens)
}

impl Summary {
    pub(crate) fn new(
        tasks: &[Task],
        started: &[Started],
        finished: &[Finished],
        stopped: Option<Stop>,
    ) -> Self {
        let mut attempts: HashMap<&str, usize> = HashMap::new();
        for attempt in started {
            *attempts.entry(&attempt.id).or_default() += 1;
        }
        let mut results: HashMap<&str, Vec<&Finished>> = HashMap::new();
        for result in finished {
            results.entry(&result.id).or_default().push(result);
        }
        let of = |task: &Task| results.get(task.id.as_str()).map_or(&[][..], Vec::as_slice);
        let rows = tasks.iter().map(|task| {
            let attempts = attempts.get(task.id.as_str()).copied().unwrap_or(0);
            Row::new(&task.id, &task.digest(), of(task), attempts)
        });
        Self::of(rows.collect(), || tasks.iter().flat_map(of).copied(), stopped)
    }

    /// Summarizes the rows. `spent` returns the results of all attempts at the tasks.
    pub(crate) fn of<'a, I: Iterator<Item = &'a Finished>>(
        rows: Vec<Row>,
        spent: impl Fn() -> I,
        stopped: Option<Stop>,
    ) -> Self {
        let costs: Vec<f64> = spent().filter_map(|result| result.totals.cost).collect();
        Self {
            v: 1,
            tasks: rows.len(),
            endings: count(&rows),
            stopped: stopped.filter(|_| rows.iter().any(|row| !row.has_result())),
            attempts: rows.iter().map(|row| row.attempts).sum(),
            tokens: spent().map(tokens).fold(0, u64::saturating_add),
            cost: (!costs.is_empty()).then(|| costs.iter().sum()),
            prices_of: spent().filter_map(|result| result.totals.prices_of).min(),
            // Not `sum`, which returns -0.0 if there are no results.
            seconds: spent().map(|result| result.seconds).fold(0.0, |sum, seconds| sum + seconds),
            rows,
        }
    }

    /// Returns the exit code of a batch, which is determined by the first condition that applies:
    /// 130 if the batch was interrupted; 4 if it paused at a limit; 5 if a task has no result from
    /// the agent and the batch should therefore be run again; 1 if a task is not verified; 0
    /// otherwise. After [`Stop::FailFast`], tasks that were not run do not cause code 5.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if let Some(code) = self.stopped.and_then(Stop::exit_code) {
            return code;
        }
        let on_purpose = self.stopped == Some(Stop::FailFast);
        if self.rows.iter().any(|row| if on_purpose { row.infrastructure } else { !row.has_result() }) {
            return Ending::Unavailable.exit_code();
        }
        if self.rows.iter().any(|row| row.ending != Some(Ending::Verified)) { NOT_VERIFIED } else { 0 }
    }

    /// Returns the table and the totals as plain text without escape sequences.
    #[must_use]
    pub fn to_text(&self) -> String {
        let width = self.rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max(4);
        let mut text = format!(
            "{:width$}  {:19}  {:>5}  {:>11}  {:>5}  {:>8}  {:>8}\n",
            "task", "ending", "tries", "lines", "turns", "tokens", "seconds"
        );
        for row in &self.rows {
            let lines = format!("+{} -{}", row.added, row.removed);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:width$}  {:19}  {:>5}  {lines:>11}  {:>5}  {:>8}  {:>8.1}",
                row.id,
                row.label(),
                row.attempts,
                row.turns,
                row.tokens,
                row.seconds
            );
            if row.ending != Some(Ending::Verified) && !row.message.is_empty() {
                let _ = writeln!(text, "{:width$}  {}", "", one_line(&row.message));
            }
        }
        let endings: Vec<_> = self.endings.iter().map(|(label, n)| format!("{n} {label}")).collect();
        let plural = if self.tasks == 1 { "" } else { "s" };
        let dollars = |cost| format!(", {}", journal::dollars(cost, self.prices_of));
        let cost = self.cost.map_or_else(String::new, dollars);
        let _ = writeln!(text, "\n{} task{plural}: {}", self.tasks, endings.join(", "));
        let _ = writeln!(
            text,
            "{} attempts, {} tokens, {:.1} s of work{cost}",
            self.attempts, self.tokens, self.seconds
        );
        if let Some(stop) = self.stopped {
            let _ = writeln!(text, "{}", stop.describe());
        }
        text
    }

    pub(crate) fn to_json(&self) -> String {
        // Encoding strings and numbers cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl Row {
    /// Returns the state of the task with this id and digest. `results` contains all results for
    /// the id, in order.
    pub(crate) fn new(id: &str, digest: &str, results: &[&Finished], attempts: usize) -> Self {
        let mut current = results.iter().rev().filter(|result| result.digest == digest);
        let last = current.clone().find(|result| !result.infrastructure).or_else(|| current.next());
        Self {
            id: id.to_owned(),
            ending: last.map(|r| r.ending.clone()),
            infrastructure: last.is_some_and(|r| r.infrastructure),
            attempts,
            added: last.map_or(0, |r| r.diff.added),
            removed: last.map_or(0, |r| r.diff.removed),
            turns: last.map_or(0, |r| r.totals.turns),
            tokens: last.map_or(0, |r| tokens(r)),
            cost: last.and_then(|r| r.totals.cost),
            seconds: last.map_or(0.0, |r| r.seconds),
            session: last.and_then(|r| r.session.clone()),
            message: last.map_or(String::new(), |r| r.message.clone()),
        }
    }

    /// Whether the task is done and its verification passed.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.ending == Some(Ending::Verified)
    }

    /// Whether the task has a result, which means that the agent itself finished an attempt.
    #[must_use]
    pub fn has_result(&self) -> bool {
        self.ending.is_some() && !self.infrastructure
    }

    /// Returns [`Ending::label`], or `not run`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.ending.as_ref().map_or("not run", Ending::label)
    }
}

/// Counts the rows with each label. The most frequent label comes first.
pub(crate) fn count(rows: &[Row]) -> Vec<(String, usize)> {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for row in rows {
        match counts.iter_mut().find(|(label, _)| label == row.label()) {
            Some((_, n)) => *n += 1,
            None => counts.push((row.label().to_owned(), 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts
}

/// Returns the first line with control characters replaced by spaces.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
