//! What is known of a batch: for programs as JSON, for people as a table, for shells as an exit code.

use std::collections::HashMap;
use std::fmt::Write as _;

use journal::Ending;
use serde::Serialize;

use crate::record::{Finished, Started};
use crate::task::Task;

/// The exit code when nothing worse is known: an attempt of the agent did not end verified.
const NOT_VERIFIED: u8 = 1;

/// All tasks of a batch, and how they stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Version of the format: 1.
    pub v: u32,
    /// Tasks in the task file.
    pub tasks: usize,
    /// Tasks per ending, by [`Ending::label`], and `not run`; the most frequent first.
    pub endings: Vec<(String, usize)>,
    /// Whether the batch was interrupted.
    pub interrupted: bool,
    /// All attempts at these tasks, over all invocations, those that a kill cut off included.
    pub attempts: usize,
    /// Prompt and generated tokens of all attempts.
    pub tokens: u64,
    /// Dollars of all attempts; `None` when no price was known.
    pub cost: Option<f64>,
    /// Seconds of all attempts, added up.
    pub seconds: f64,
    /// One for each task, in the order of the task file.
    pub rows: Vec<Row>,
}

/// How a task stands: its last attempt by the agent, otherwise its last attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The task.
    pub id: String,
    /// `None` when no attempt at the task as it is now has ended.
    pub ending: Option<Ending>,
    /// Whether the infrastructure failed rather than the agent.
    pub infrastructure: bool,
    /// Attempts at it so far.
    pub attempts: usize,
    /// Lines added.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// Requests answered by the model.
    pub turns: u32,
    /// Prompt and generated tokens.
    pub tokens: u64,
    /// Dollars, where prices are known.
    pub cost: Option<f64>,
    /// By the wall clock.
    pub seconds: f64,
    /// The session.
    pub session: Option<String>,
    /// One sentence.
    pub message: String,
}

fn tokens(result: &Finished) -> u64 {
    result.totals.prompt_tokens.saturating_add(result.totals.generated_tokens)
}

impl Summary {
    pub(crate) fn new(tasks: &[Task], started: &[Started], finished: &[Finished], interrupted: bool) -> Self {
        let mut attempts: HashMap<&str, usize> = HashMap::new();
        for attempt in started {
            *attempts.entry(&attempt.id).or_default() += 1;
        }
        let mut results: HashMap<&str, Vec<&Finished>> = HashMap::new();
        for result in finished {
            results.entry(&result.id).or_default().push(result);
        }
        let of = |task: &Task| results.get(task.id.as_str()).map_or(&[][..], Vec::as_slice);
        let spent = || tasks.iter().flat_map(of);
        let costs: Vec<f64> = spent().filter_map(|r| r.totals.cost).collect();
        let rows: Vec<Row> = tasks
            .iter()
            .map(|task| Row::new(task, of(task), attempts.get(task.id.as_str()).copied().unwrap_or(0)))
            .collect();
        Self {
            v: 1,
            tasks: tasks.len(),
            endings: count(&rows),
            interrupted,
            attempts: rows.iter().map(|row| row.attempts).sum(),
            tokens: spent().map(|result| tokens(result)).fold(0, u64::saturating_add),
            cost: (!costs.is_empty()).then(|| costs.iter().sum()),
            seconds: spent().map(|result| result.seconds).sum(),
            rows,
        }
    }

    /// The exit code of a batch, the first that fits: 130 when it was interrupted; 5 when a task has no result by the agent (the
    /// infrastructure failed, so run the batch again); 1 when a task is not verified; 0 when all are.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.interrupted {
            return Ending::Interrupted.exit_code();
        }
        if self.rows.iter().any(|row| row.infrastructure || row.ending.is_none()) {
            return Ending::Unavailable.exit_code();
        }
        if self.rows.iter().any(|row| row.ending != Some(Ending::Verified)) { NOT_VERIFIED } else { 0 }
    }

    /// The table and the sums, as plain text without escapes.
    #[must_use]
    pub fn to_text(&self) -> String {
        let width = self.rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max(4);
        let mut text = format!(
            "{:width$}  {:19}  {:>5}  {:>11}  {:>5}  {:>8}  {:>8}\n",
            "task", "ending", "tries", "lines", "turns", "tokens", "seconds"
        );
        for row in &self.rows {
            let lines = format!("+{} -{}", row.added, row.removed);
            // Writing into a string cannot fail.
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
        let cost = self.cost.map_or(String::new(), |cost| format!(", ${cost:.4}"));
        let _ = writeln!(text, "\n{} task{plural}: {}", self.tasks, endings.join(", "));
        let _ = writeln!(
            text,
            "{} attempts, {} tokens, {:.1} s of work{cost}",
            self.attempts, self.tokens, self.seconds
        );
        if self.interrupted {
            text.push_str("interrupted; the same command goes on\n");
        }
        text
    }

    pub(crate) fn to_json(&self) -> String {
        // Only strings and numbers: this cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl Row {
    fn new(task: &Task, results: &[&Finished], attempts: usize) -> Self {
        let digest = task.digest();
        let mut current = results.iter().rev().filter(|result| result.digest == digest);
        let last = current.clone().find(|result| !result.infrastructure).or_else(|| current.next());
        Self {
            id: task.id.clone(),
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

    fn label(&self) -> &'static str {
        self.ending.as_ref().map_or("not run", Ending::label)
    }
}

fn count(rows: &[Row]) -> Vec<(String, usize)> {
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

/// The first line, without what a terminal would obey.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
