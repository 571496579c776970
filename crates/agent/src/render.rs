//! Displays the journal's records in human-readable form, both during a run and afterwards.
//! Everything that comes from a model, a file or a server is sanitized.

use std::io::Write;

use journal::{
    Check, Counts, CutReason, Diff, EndedBy, Ending, Event, Mode, ModelInfo, ModelTotals, Record, Report,
    Totals,
};
use serde_json::Value;

use crate::figures::{bytes, counts_by_file, duration, plural, thousands};
use crate::sanitize;
use preview::{Paint, Style};

/// How much to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// The session's id, warnings, and the result.
    Quiet,
    /// Also a line for each call, result and turn, for logs.
    Plain,
    /// Also thinking and text as they arrive, for terminals.
    Live,
}

/// Maximum number of lines to show from a failed result.
const NEWS_LINES: usize = 8;
/// Maximum number of characters in a one-line summary.
const WIDTH: usize = 100;

/// What the unfinished line at the end of the output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Nothing,
    Thinking,
    Text,
    Call(u32, u32),
}

/// Writes records to a stream.
pub(crate) struct View<W> {
    out: W,
    paint: Paint,
    detail: Detail,
    open: Open,
    estimated_tokens: u64,
    saved_in_turn: u64,
    cut: Option<CutReason>,
    /// Whether the run answers a question.
    asks: bool,
}

impl<W: Write> View<W> {
    /// Creates a view that writes to a stream.
    pub(crate) fn new(out: W, paint: Paint, detail: Detail) -> Self {
        Self {
            out,
            paint,
            detail,
            open: Open::Nothing,
            estimated_tokens: 0,
            saved_in_turn: 0,
            cut: None,
            asks: false,
        }
    }

    /// Shows one record. Errors are ignored: a closed stream must not stop a run.
    pub(crate) fn show(&mut self, record: &Record) {
        let _ = self.write(&record.event).and_then(|()| self.out.flush());
    }

    /// Shows the task of a past session.
    pub(crate) fn task(&mut self, task: &str, root: &str) {
        let text = format!("in {}: {}", sanitize::line(root), sanitize::text(task.trim()));
        let _ = self.line(Detail::Quiet, text);
    }

    fn write(&mut self, event: &Event) -> std::io::Result<()> {
        match event {
            Event::Session { id, mode, .. } => {
                self.asks = *mode == Mode::Ask;
                let mode = if *mode == Mode::DryRun { " (dry run)" } else { "" };
                self.line(Detail::Quiet, format_args!("session {}{mode}", self.paint.paint(Style::Bold, id)))
            }
            Event::Sandbox { enforced: true, summary, .. } => {
                self.line(Detail::Plain, format_args!("sandbox {}", sanitize::line(summary)))
            }
            Event::Sandbox { summary, .. } => self.note(Detail::Plain, Style::Warn, "sandbox", summary),
            Event::Model(model) => self.model(model),
            Event::ModelChanged { why, model, .. } => {
                self.note(Detail::Plain, Style::Warn, "↺", &format!("changing the model: {why}"))?;
                self.model(model)
            }
            Event::Resumed { changed, .. } if changed.is_empty() => {
                self.note(Detail::Plain, Style::Dim, "↻", "resumed")
            }
            Event::UserMessage { text } => self.note(Detail::Plain, Style::Bold, "›", text),
            Event::Resumed { changed, .. } => {
                let what = format!("resumed; others have changed these files: {}", changed.join(", "));
                self.note(Detail::Plain, Style::Warn, "↻", &what)
            }
            Event::Request { estimated_tokens, .. } => {
                self.estimated_tokens = *estimated_tokens;
                Ok(())
            }
            Event::TryEnded { number, of, ending, message, failing, lines, .. } => {
                let failing = failing.map_or_else(String::new, |n| format!("{n} failing, "));
                let size = plural(*lines, "changed line");
                let text = format!("try {number} of {of}: {}: {message} ({failing}{size})", ending.label());
                self.note(Detail::Plain, Style::Warn, "✗", &text)
            }
            Event::Rewound { why, .. } => self.note(Detail::Plain, Style::Dim, "↺", why),
            Event::Retry { error, wait_ms, .. } => {
                let text = format!("{error}; retrying in {}", duration(*wait_ms));
                self.note(Detail::Plain, Style::Warn, "!", &text)
            }
            Event::Thinking { text, .. } => self.piece(Open::Thinking, text),
            Event::Text { text, .. } => self.piece(Open::Text, text),
            Event::CallOpened { turn, call, tool } => {
                if self.detail < Detail::Live {
                    return Ok(());
                }
                self.close()?;
                self.open = Open::Call(*turn, *call);
                write!(self.out, "{}", self.arrow(tool))
            }
            Event::Call { turn, call, tool, arguments, repairs, .. } => {
                let mut summary = summarize(arguments);
                if !summary.is_empty() {
                    summary.insert(0, ' ');
                }
                if !repairs.is_empty() {
                    let repairs = format!("(repaired: {})", sanitize::short(&repairs.join(", "), WIDTH));
                    summary = format!("{summary} {}", self.paint.paint(Style::Warn, repairs));
                }
                if self.open == Open::Call(*turn, *call) {
                    self.open = Open::Nothing;
                    return writeln!(self.out, "{summary}");
                }
                let arrow = self.arrow(tool);
                self.line(Detail::Plain, format_args!("{arrow}{summary}"))
            }
            Event::Refused { tool, early, message, saved_tokens, .. } => {
                self.saved_in_turn += saved_tokens;
                let what = tool.as_deref().unwrap_or("answer");
                let when = if *early { "refused while streaming" } else { "refused" };
                self.note(Detail::Plain, Style::Warn, "✗", &format!("{what} {when}: {message}"))
            }
            Event::Cut { why, .. } => {
                self.cut = Some(*why);
                Ok(())
            }
            Event::Output { turn, ended_by, counts, .. } => {
                let text = turn_line(
                    *turn,
                    *ended_by,
                    self.cut.take(),
                    counts,
                    self.estimated_tokens,
                    self.saved_in_turn,
                );
                self.saved_in_turn = 0;
                let text = self.paint.paint(Style::Dim, text);
                self.line(Detail::Plain, text)
            }
            Event::ToolFinished { status, text, changed, ms, .. } => {
                self.result(status == "ok", text, changed, *ms)
            }
            Event::CheckStarted { command } => {
                self.note(Detail::Live, Style::Dim, "·", &format!("checking: {command}"))
            }
            Event::Checked(check) => self.check(check),
            Event::Guard { message } => self.note(Detail::Plain, Style::Warn, "!", message),
            Event::Tree { way, files, bytes, why } => {
                let text = crate::dry_tree::describe(*way, *files, *bytes, why);
                self.line(Detail::Plain, format_args!("tree    {}", sanitize::line(&text)))
            }
            Event::Warning { message } => self.note(Detail::Quiet, Style::Warn, "warning:", message),
            Event::Finished(report) => self.end(report),
            _ => Ok(()),
        }
    }

    fn model(&mut self, m: &ModelInfo) -> std::io::Result<()> {
        let server = m.server_version.as_ref().map_or(m.server.clone(), |v| format!("{} {v}", m.server));
        let window = m.window.map_or("window unknown".into(), |w| format!("window {}", thousands(w)));
        let thinking = if m.thinking { " · thinking" } else { "" };
        let text =
            format!("{} · {server} · {window} · approach {}{thinking} · {}", m.model, m.approach, m.why);
        self.line(Detail::Plain, format_args!("model   {}", sanitize::line(&text)))
    }

    fn arrow(&self, tool: &str) -> String {
        self.paint.paint(Style::Call, format_args!("→ {}", sanitize::short(tool, 40)))
    }

    /// Writes a piece of streamed text.
    fn piece(&mut self, kind: Open, text: &str) -> std::io::Result<()> {
        if self.detail < Detail::Live {
            return Ok(());
        }
        // Trim leading whitespace unless the piece continues the previous one.
        let text = if self.open == kind { text } else { text.trim_start() };
        if text.is_empty() {
            return Ok(());
        }
        if self.open != kind {
            self.close()?;
            self.open = kind;
        }
        let (begin, end) = match kind {
            Open::Thinking => (self.paint.begin(Style::Dim), self.paint.end()),
            _ => ("", ""),
        };
        write!(self.out, "{begin}{}{end}", sanitize::text(text))
    }

    fn close(&mut self) -> std::io::Result<()> {
        if std::mem::replace(&mut self.open, Open::Nothing) == Open::Nothing {
            Ok(())
        } else {
            writeln!(self.out)
        }
    }

    fn line(&mut self, from: Detail, text: impl std::fmt::Display) -> std::io::Result<()> {
        if self.detail < from {
            return Ok(());
        }
        self.close()?;
        writeln!(self.out, "{text}")
    }

    /// Writes a symbol and a message. All lines of the message after the first are indented.
    fn note(&mut self, from: Detail, style: Style, sign: &str, message: &str) -> std::io::Result<()> {
        let text = sanitize::text(message.trim_end()).replace('\n', "\n    ");
        let sign = self.paint.paint(style, sign);
        self.line(from, format_args!("  {sign} {text}"))
    }

    fn result(&mut self, ok: bool, text: &str, changed: &[String], ms: u64) -> std::io::Result<()> {
        let mut lines = text.lines().filter(|l| !l.trim().is_empty());
        let first = lines.next().unwrap_or("done");
        let first =
            if changed.is_empty() { first.to_owned() } else { format!("changed {}", changed.join(", ")) };
        self.outcome(ok, &sanitize::short(&first, WIDTH), ms, lines)
    }

    fn check(&mut self, check: &Check) -> std::io::Result<()> {
        let word = if check.passed { "passed" } else { "failed" };
        let what = format!("check {word}: {}", sanitize::short(&check.command, WIDTH));
        self.outcome(check.passed, &what, check.ms, check.text.lines().filter(|l| !l.trim().is_empty()))
    }

    /// Writes an outcome on one line and, if it is a failure, the first few of `lines` below it.
    fn outcome<'a>(
        &mut self,
        ok: bool,
        what: &str,
        ms: u64,
        lines: impl Iterator<Item = &'a str>,
    ) -> std::io::Result<()> {
        let (style, sign) = if ok { (Style::Good, "✓") } else { (Style::Bad, "✗") };
        let (sign, took) =
            (self.paint.paint(style, sign), self.paint.paint(Style::Dim, format_args!("({})", duration(ms))));
        self.line(Detail::Plain, format_args!("  {sign} {what} {took}"))?;
        for line in lines.take(if ok { 0 } else { NEWS_LINES }) {
            let line = self.paint.paint(Style::Dim, sanitize::short(line, WIDTH));
            self.line(Detail::Plain, format_args!("    {line}"))?;
        }
        Ok(())
    }

    fn end(&mut self, report: &Report) -> std::io::Result<()> {
        let Report { ending, message, diff, totals, models, result: _ } = report;
        let style = match ending {
            Ending::Verified | Ending::Answered => Style::Good,
            Ending::Unverified | Ending::NoChange | Ending::Interrupted | Ending::Budget { .. } => {
                Style::Warn
            }
            Ending::GaveUp | Ending::Unavailable | Ending::Refused => Style::Bad,
        };
        let label = self.paint.paint(style, ending.label());
        let message = sanitize::text(message.trim()).replace('\n', "\n  ");
        self.line(Detail::Quiet, format_args!("{label}: {message}"))?;
        if totals.turns == 0 && diff.files.is_empty() {
            return Ok(()); // the run never started
        }
        if !self.asks {
            self.line(Detail::Quiet, changes(diff))?;
        }
        self.line(Detail::Quiet, self.paint.paint(Style::Dim, sums(totals)))?;
        for model in models {
            self.line(Detail::Quiet, self.paint.paint(Style::Dim, sums_of_model(model)))?;
        }
        Ok(())
    }
}

/// Lists the changed files with their line counts, on one line.
fn changes(diff: &Diff) -> String {
    if diff.files.is_empty() {
        return "no files changed".into();
    }
    let counts = counts_by_file(&diff.patch);
    let each: Vec<String> = diff
        .files
        .iter()
        .take(20)
        .map(|file| {
            let name = sanitize::line(file);
            counts.iter().find(|(path, ..)| path == file).map_or_else(
                || name.to_string(),
                |(_, added, removed)| format!("{name} (+{added} -{removed})"),
            )
        })
        .collect();
    let more = diff.files.len().saturating_sub(each.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("changed {}{more}", each.join(", "))
}

fn sums(t: &Totals) -> String {
    let mut parts = vec![
        plural(u64::from(t.turns), "turn"),
        match t.evaluated_tokens {
            Some(anew) => {
                format!("{} prompt tokens ({} evaluated)", thousands(t.prompt_tokens), thousands(anew))
            }
            None => plural(t.prompt_tokens, "prompt token"),
        },
        format!("{} generated", thousands(t.generated_tokens)),
    ];
    if t.saved_tokens > 0 {
        let (tokens, size) = (thousands(t.saved_tokens), bytes(t.saved_bytes));
        parts.push(format!("about {tokens} ({size}) saved by cutting answers short"));
    }
    if let Some(cost) = t.cost {
        parts.push(journal::dollars(cost, t.prices_of));
    }
    parts.push(duration(t.ms));
    parts.join(", ")
}

fn sums_of_model(model: &ModelTotals) -> String {
    let cost = model.cost.map_or_else(String::new, |cost| format!(", {}", journal::dollars(cost, None)));
    format!(
        "  {} ({}): {}, {}, {} generated{cost}",
        sanitize::line(&model.model),
        sanitize::line(&model.server),
        plural(u64::from(model.turns), "turn"),
        plural(model.prompt_tokens, "prompt token"),
        thousands(model.generated_tokens)
    )
}

fn turn_line(
    turn: u32,
    ended_by: EndedBy,
    cut: Option<CutReason>,
    c: &Counts,
    estimated: u64,
    saved: u64,
) -> String {
    // Some servers report counts only at the end of an answer, so there are none for an answer that
    // was cut short.
    let prompt = c.prompt_tokens.map_or_else(|| format!("about {}", thousands(estimated)), thousands);
    let mut text = format!("  turn {turn}: {prompt} prompt tokens");
    if let Some(n) = c.evaluated_tokens {
        text.push_str(&format!(", {} evaluated", thousands(n)));
    }
    if let Some(n) = c.generated_tokens {
        text.push_str(&format!(", {} generated", thousands(n)));
    }
    if saved > 0 {
        text.push_str(&format!(", about {} saved", thousands(saved)));
    }
    text.push_str(&format!(", {}", duration(c.total_ms)));
    text + match (ended_by, cut) {
        (EndedBy::Length, _) => ", token limit reached",
        (EndedBy::Cut, Some(CutReason::Call)) => ", cut after the call",
        (EndedBy::Cut, Some(CutReason::Refused)) => ", cut: the call cannot succeed",
        (EndedBy::Cut, Some(CutReason::Repetition)) => ", cut: repetition",
        (EndedBy::Cut, Some(CutReason::Whitespace)) => ", cut: only white space",
        (EndedBy::Cut, Some(CutReason::Unchanged)) => ", cut: returned the file unchanged",
        (EndedBy::Cut, Some(CutReason::Line)) => ", cut after the requested line",
        (EndedBy::Cut, Some(CutReason::Stopped) | None) => ", cut",
        (EndedBy::Stop, _) => "",
    }
}

/// Summarizes the arguments of a call on one line: short values in full, long ones by their size.
pub(crate) fn summarize(arguments: &Value) -> String {
    let Some(map) = arguments.as_object() else { return sanitize::short(&arguments.to_string(), WIDTH) };
    let mut first = true;
    let parts: Vec<String> = map
        .iter()
        .map(|(name, value)| match value {
            Value::String(s) if s.contains('\n') => format!("{name}: {} lines", s.lines().count()),
            Value::String(s) if std::mem::take(&mut first) => s.clone(),
            Value::String(s) => format!("{name}={s}"),
            Value::Array(items) => format!("{name}: {}", plural(items.len() as u64, "item")),
            other => format!("{name}={other}"),
        })
        .collect();
    sanitize::short(&parts.join(" "), WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn show(detail: Detail, colour: bool, events: Vec<Event>) -> String {
        let mut out = Vec::new();
        let mut view = View::new(&mut out, Paint(colour), detail);
        for (seq, event) in events.into_iter().enumerate() {
            view.show(&Record { v: journal::VERSION, seq: seq as u64, time_ms: 0, event });
        }
        String::from_utf8(out).unwrap()
    }

    fn a_run() -> Vec<Event> {
        let counts = Counts {
            prompt_tokens: Some(1320),
            evaluated_tokens: Some(212),
            generated_tokens: Some(87),
            first_token_ms: Some(400),
            total_ms: 4120,
        };
        vec![
            Event::Session {
                id: "20261122-134405-ab12".into(),
                version: "0.1.0".into(),
                task: "fix it".into(),
                root: "/r".into(),
                mode: Mode::DryRun,
                settings: Vec::new(),
                protected: Vec::new(),
                output_schema: None,
                images: Vec::new(),
                forked_from: None,
            },
            Event::Model(journal::ModelInfo {
                server: "ollama".into(),
                server_version: Some("0.32.15".into()),
                model: "qwen2.5-coder:1.5b".into(),
                window: Some(32768),
                thinking: false,
                constrained: false,
                approach: "tools".into(),
                why: "the only model there".into(),
                family: None,
                parameters_b: None,
                local: None,
                price: None,
                peak_factor: None,
                prices_of: None,
                edit_format: None,
                role: None,
            }),
            Event::Thinking { turn: 1, text: "\nhm".into() },
            Event::Thinking { turn: 1, text: "m\x1b[2J".into() },
            Event::Text { turn: 1, text: "I will look.".into() },
            Event::CallOpened { turn: 1, call: 0, tool: "read_file".into() },
            Event::Call {
                turn: 1,
                call: 0,
                tool: "read_file".into(),
                arguments: json!({"path": "src/lib.rs", "start_line": 3}),
                span: (0, 60),
                repairs: vec![],
            },
            Event::Cut { turn: 1, why: CutReason::Call, at: 60 },
            Event::Output {
                turn: 1,
                content: "x".into(),
                thinking: String::new(),
                ended_by: EndedBy::Cut,
                doubts: Vec::new(),
                counts,
            },
            Event::ToolFinished {
                turn: 1,
                call: 0,
                tool: "read_file".into(),
                status: "ok".into(),
                text: "src/lib.rs, lines 3 to 9 of 9\n3 fn a".into(),
                changed: vec![],
                facts: Value::Null,
                ms: 3,
            },
            Event::Checked(Check {
                command: "cargo test".into(),
                passed: false,
                text: "1 failed, 2 passed\nsrc/lib.rs:3 wrong".into(),
                facts: Value::Null,
                ms: 1500,
            }),
            Event::Finished(Report {
                ending: Ending::Unverified,
                message: "done, but cargo test does not pass".into(),
                diff: Diff {
                    files: vec!["src/lib.rs".into()],
                    added: 2,
                    removed: 1,
                    patch: "--- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -1,2 +1,3 @@\n-a\n+b\n+++ c\n d\n".into(),
                },
                totals: Totals {
                    turns: 1,
                    prompt_tokens: 1320,
                    evaluated_tokens: Some(212),
                    generated_tokens: 87,
                    saved_tokens: 1000,
                    saved_bytes: 3210,
                    cost: None,
                    prices_of: None,
                    ms: 65_000,
                },
                result: None,
                models: Vec::new(),
            }),
        ]
    }

    #[test]
    fn a_run_is_shown_live() {
        insta::assert_snapshot!(show(Detail::Live, false, a_run()), @r"
        session 20261122-134405-ab12 (dry run)
        model   qwen2.5-coder:1.5b · ollama 0.32.15 · window 32,768 · approach tools · the only model there
        hmm␛[2J
        I will look.
        → read_file src/lib.rs start_line=3
          turn 1: 1,320 prompt tokens, 212 evaluated, 87 generated, 4.1 s, cut after the call
          ✓ src/lib.rs, lines 3 to 9 of 9 (3 ms)
          ✗ check failed: cargo test (1.5 s)
            1 failed, 2 passed
            src/lib.rs:3 wrong
        unverified: done, but cargo test does not pass
        changed src/lib.rs (+2 -1)
        1 turn, 1,320 prompt tokens (212 evaluated), 87 generated, about 1,000 (3 kB) saved by cutting answers short, 1 min 5 s
        ");
    }

    #[test]
    fn a_log_omits_streamed_text() {
        insta::assert_snapshot!(show(Detail::Plain, false, a_run()), @r"
        session 20261122-134405-ab12 (dry run)
        model   qwen2.5-coder:1.5b · ollama 0.32.15 · window 32,768 · approach tools · the only model there
        → read_file src/lib.rs start_line=3
          turn 1: 1,320 prompt tokens, 212 evaluated, 87 generated, 4.1 s, cut after the call
          ✓ src/lib.rs, lines 3 to 9 of 9 (3 ms)
          ✗ check failed: cargo test (1.5 s)
            1 failed, 2 passed
            src/lib.rs:3 wrong
        unverified: done, but cargo test does not pass
        changed src/lib.rs (+2 -1)
        1 turn, 1,320 prompt tokens (212 evaluated), 87 generated, about 1,000 (3 kB) saved by cutting answers short, 1 min 5 s
        ");
    }

    #[test]
    fn quiet_output_has_only_the_id_and_the_result() {
        insta::assert_snapshot!(show(Detail::Quiet, false, a_run()), @r"
        session 20261122-134405-ab12 (dry run)
        unverified: done, but cargo test does not pass
        changed src/lib.rs (+2 -1)
        1 turn, 1,320 prompt tokens (212 evaluated), 87 generated, about 1,000 (3 kB) saved by cutting answers short, 1 min 5 s
        ");
    }

    #[test]
    fn only_our_own_escapes_reach_the_terminal() {
        let shown = show(Detail::Live, true, a_run());
        let codes: Vec<_> =
            shown.split('\x1b').skip(1).map(|s| s.split('m').next().unwrap_or_default()).collect();
        assert!(!codes.is_empty() && codes.iter().all(|c| c.starts_with('[') && c.len() <= 3), "{codes:?}");
        assert!(shown.contains("␛[2J"));
    }
}
