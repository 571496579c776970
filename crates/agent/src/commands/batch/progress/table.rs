//! The table of a running batch: one line per running task, and one for the whole batch.

use std::time::{Duration, Instant};

use batch::Event;
use journal::Ending;
use preview::{Paint, Style};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::row::Row;
use crate::figures::thousands;

/// The width of the turn column, in characters.
const TURN: usize = 8;

/// The running tasks, and the counts of the tasks that have ended.
pub(super) struct Table {
    began: Instant,
    /// The number of tasks in the batch, or `None` for a worker, which does not know how many tasks
    /// it will get.
    tasks: Option<usize>,
    /// The number of tasks that earlier invocations finished.
    earlier: usize,
    /// The number of tasks that this invocation finished.
    done: usize,
    /// The number of tasks whose result is verified.
    verified: usize,
    /// The number of tokens generated in attempts that have ended.
    tokens: u64,
    running: Vec<Row>,
}

impl Table {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, tasks: None, earlier: 0, done: 0, verified: 0, tokens: 0, running: Vec::new() }
    }

    /// Records an event of the batch.
    pub(super) fn apply(&mut self, event: &Event<'_>, now: Instant) {
        match event {
            Event::Plan { tasks, done, verified } => {
                (self.tasks, self.earlier, self.verified) = (Some(*tasks), *done, *verified);
            }
            Event::Started { id, attempt } => {
                // An earlier attempt may still have a row if its machine was lost.
                self.running.retain(|row| row.id != *id);
                self.running.push(Row::new(id, *attempt, now));
            }
            Event::Finished { result, again } => {
                self.running.retain(|row| row.id != result.id);
                self.tokens += result.totals.generated_tokens;
                if !again && result.ending != Ending::Interrupted {
                    self.done += 1;
                    self.verified += usize::from(result.ending == Ending::Verified);
                }
            }
            _ => {}
        }
    }

    /// Records an event from the session of a running task.
    pub(super) fn record(&mut self, id: &str, event: &journal::Event, now: Instant) {
        if let Some(row) = self.running.iter_mut().find(|row| row.id == id) {
            row.record(event, now);
        }
    }

    /// Returns the lines of the table for a terminal with this many columns and lines. Leaves one
    /// line free for the messages above the table.
    pub(super) fn lines(&self, (columns, lines): (usize, usize), paint: Paint, now: Instant) -> Vec<String> {
        let most = lines.saturating_sub(2);
        let shown = if self.running.len() <= most { most } else { most.saturating_sub(1) };
        let rows = || self.running.iter().take(shown);
        let name = rows().map(|row| row.name().width()).max().unwrap_or(0).min(columns / 2);
        let mut text: Vec<_> = rows().map(|row| draw(row, name, columns, paint, now)).collect();
        let more = self.running.len().saturating_sub(shown);
        if more > 0 && most > 0 {
            text.push(fit(&format!("  … and {more} more"), columns));
        }
        text.push(self.state(columns, now));
        text
    }

    /// Returns the line for the whole batch, with as many parts as fit, most important first.
    fn state(&self, columns: usize, now: Instant) -> String {
        let done = self.earlier + self.done;
        let of = self.tasks.map_or_else(String::new, |tasks| format!("/{}", thousands(tasks as u64)));
        let failed = done.saturating_sub(self.verified);
        let [done, verified, failed] = [done, self.verified, failed].map(|count| thousands(count as u64));
        let mut line = fit(&format!("{done}{of} done: {verified} verified, {failed} failed"), columns);
        for part in self.rates(now) {
            let longer = format!("{line} · {part}");
            if longer.width() > columns {
                break;
            }
            line = longer;
        }
        line
    }

    /// Returns the time left, the task rate and the token rate, leaving out any that are unknown.
    fn rates(&self, now: Instant) -> Vec<String> {
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        let mut parts = Vec::new();
        if self.done > 0 && seconds > 0.0 {
            let rate = self.done as f64 / seconds;
            let left = self.tasks.map_or(0, |tasks| tasks.saturating_sub(self.earlier + self.done));
            if left > 0 {
                let left = Duration::try_from_secs_f64(left as f64 / rate).unwrap_or(Duration::MAX);
                parts.push(format!("{} left", estimate(left)));
            }
            parts.push(format!("{} tasks/min", short(rate * 60.0)));
        }
        let tokens = self.tokens + self.running.iter().map(|row| row.tokens).sum::<u64>();
        if tokens > 0 && seconds > 0.0 {
            parts.push(format!("{} tokens/s", short(tokens as f64 / seconds)));
        }
        parts
    }
}

/// Returns the line for a task. The columns after the name are aligned across all lines.
fn draw(row: &Row, name: usize, columns: usize, paint: Paint, now: Instant) -> String {
    let (turn, doing) = row.doing(now);
    let head = fit(&format!("→ {}", pad(&fit(&row.name(), name), name)), columns);
    let rest = fit(&format!("  {} {doing}", pad(&turn, TURN)), columns.saturating_sub(head.width()));
    let line = format!("{}{rest}", paint.paint(Style::Call, head));
    line.trim_end().to_owned()
}

/// Truncates text to a number of columns. An ellipsis replaces what was cut off.
fn fit(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let (mut out, mut left) = (String::new(), columns.saturating_sub(1));
    for c in text.chars() {
        let Some(rest) = left.checked_sub(c.width().unwrap_or(0)) else { break };
        left = rest;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Pads text to a number of columns.
fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// Formats a rate with at least two digits.
fn short(rate: f64) -> String {
    if rate < 9.95 { format!("{rate:.1}") } else { thousands(rate.round() as u64) }
}

/// Formats an estimated time. Seconds are shown only below one minute.
fn estimate(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        _ => span(time),
    }
}

/// Formats a time in its two largest units.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds @ 3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        seconds => format!("{} d {} h", thousands(seconds / 86_400), seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use batch::Finished;
    use journal::{Diff, Totals};
    use serde_json::json;

    use super::super::row::request;
    use super::*;

    const PLAIN: Paint = Paint(false);

    fn started(table: &mut Table, id: &str, attempt: u32, now: Instant) {
        table.apply(&Event::Started { id, attempt }, now);
    }

    fn finished(table: &mut Table, id: &str, ending: Ending, again: bool, now: Instant) {
        let result = Finished {
            v: 1,
            id: id.into(),
            attempt: 1,
            digest: String::new(),
            time_ms: 0,
            infrastructure: ending.is_infrastructure(),
            ending,
            message: String::new(),
            diff: Diff::default(),
            totals: Totals { generated_tokens: 300, ..Totals::default() },
            models: Vec::new(),
            seconds: 1.0,
            session: None,
        };
        table.apply(&Event::Finished { result: &result, again }, now);
    }

    fn call(command: &str) -> journal::Event {
        journal::Event::Call {
            turn: 1,
            call: 0,
            tool: "run_command".into(),
            arguments: json!({"command": command}),
            span: (0, 9),
            repairs: Vec::new(),
        }
    }

    /// Returns a batch of 40 tasks after 30 seconds: earlier invocations finished 2 tasks, and this
    /// one has verified 1 task, had 2 attempts without a result, and is running 2 tasks.
    fn batch() -> (Table, Instant) {
        let start = Instant::now();
        let mut table = Table::new(start);
        table.apply(&Event::Plan { tasks: 40, done: 2, verified: 1 }, start);
        for id in ["a", "b", "c"] {
            started(&mut table, id, 1, start);
        }
        finished(&mut table, "a", Ending::Verified, false, start);
        finished(&mut table, "b", Ending::Unavailable, true, start);
        finished(&mut table, "c", Ending::Interrupted, false, start);
        started(&mut table, "pager", 1, start);
        started(&mut table, "b", 2, start);
        table.record("b", &request(12), start);
        table.record("b", &call("make check"), start + Duration::from_secs(28));
        (table, start + Duration::from_secs(30))
    }

    #[test]
    fn a_table_has_a_line_per_task_and_one_for_the_batch() {
        let (table, now) = batch();
        insta::assert_snapshot!(table.lines((80, 24), PLAIN, now).join("\n"), @r"
        → pager                   30 s
        → b (attempt 2)  turn 12  run_command make check
        3/40 done: 2 verified, 1 failed · 18 min left · 2.0 tasks/min · 30 tokens/s
        ");
    }

    #[test]
    fn lines_are_shortened_to_fit_a_narrow_terminal() {
        let (table, now) = batch();
        insta::assert_snapshot!(table.lines((42, 24), PLAIN, now).join("\n"), @r"
        → pager                   30 s
        → b (attempt 2)  turn 12  run_command mak…
        3/40 done: 2 verified, 1 failed
        ");
        for columns in 0..120 {
            for line in table.lines((columns, 24), PLAIN, now) {
                assert!(line.width() <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn only_the_first_of_many_running_tasks_are_shown() {
        let now = Instant::now();
        let mut table = Table::new(now);
        for n in 0..64 {
            started(&mut table, &format!("task-{n}"), 1, now);
        }
        insta::assert_snapshot!(table.lines((40, 6), PLAIN, now).join("\n"), @r"
        → task-0
        → task-1
        → task-2
          … and 61 more
        0 done: 0 verified, 0 failed
        ");
        for lines in 0..80 {
            let shown = table.lines((40, lines), PLAIN, now).len();
            assert!(shown < lines.max(2), "{shown} lines of {lines}");
        }
        assert_eq!(table.lines((40, 66), PLAIN, now).len(), 65, "all tasks fit");
    }

    #[test]
    fn a_wide_character_takes_two_columns_and_a_color_none() {
        let (mut table, now) = batch();
        table.record("pager", &call(&"漢字".repeat(40)), now);
        let plain = table.lines((61, 24), PLAIN, now);
        assert!(plain.iter().all(|line| line.width() <= 61) && plain.iter().any(|line| line.contains("漢…")));
        let colored = table.lines((61, 24), Paint(true), now).join("\n");
        assert_eq!(colored.replace("\u{1b}[36m", "").replace("\u{1b}[0m", ""), plain.join("\n"));
        assert!(colored.contains("\u{1b}[36m→ pager"), "{colored:?}");
    }

    #[test]
    fn the_next_attempt_replaces_the_row_of_an_attempt_on_a_lost_machine() {
        let (mut table, now) = batch();
        started(&mut table, "pager", 2, now);
        let lines = table.lines((80, 24), PLAIN, now);
        assert_eq!(lines.iter().filter(|line| line.contains("pager")).count(), 1, "{lines:?}");
    }

    #[test]
    fn times_are_shown_in_their_two_largest_units() {
        let spans = [59, 61, 3_700, 90_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
        assert_eq!([short(0.04), short(9.94), short(9.96), short(1234.0)], ["0.0", "9.9", "10", "1,234"]);
    }
}
