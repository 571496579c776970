//! Writes a report on a made-up batch to standard output, for `scripts/report-test`:
//!
//! ```text
//! cargo run -p report --example synthetic -- TASKS > report.html
//! ```
//!
//! The trajectories are as large as real ones: tool results quote this repository's own sources.
//! Some of the text tries to break out of the page.

#![allow(clippy::print_stdout, reason = "the page is the output")]

use std::borrow::Cow;

use batch::{Finished, Folder, Row, State};
use journal::{Budget, Counts, Diff, EndedBy, Ending, Event, Mode, Record, Report, Role, Totals, VERSION};
use report::{Step, batch_page, steps};
use serde_json::{Value, json};

const SOURCES: [&str; 4] = [
    include_str!("../src/trajectory.rs"),
    include_str!("../src/compare.rs"),
    include_str!("../src/viewer.js"),
    include_str!("../../../ARCHITECTURE.md"),
];
const HOSTILE: &str = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'> <!-- \
                       \u{1b}[31mred\u{1b}[0m \u{202e}reversed\u{202c} \u{0}";
const SUBJECTS: [&str; 6] = ["pager", "login", "parser", "cache", "invoice", "importer"];
const FAULTS: [&str; 5] = [
    "shows an empty last page",
    "crashes on empty input",
    "ignores the time zone",
    "loses the last line",
    "is slow",
];
const PATCH: &str = "diff --git a/src/pager.py b/src/pager.py\n--- a/src/pager.py\n+++ b/src/pager.py\n@@ -10,5 +10,6 @@\n \
                     def pages(items, size):\n-    return len(items) // size + 1\n+    whole, rest = divmod(len(items), size)\n\
                     +    return whole + (1 if rest else 0)\n \n \n def first(items):\n";

fn main() {
    let tasks = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1_000);
    fastrand::seed(1);
    let folder = Folder { tasks: (0..tasks).map(state).collect() };
    let mut session = |id: &str| -> Result<Vec<Step>, String> {
        if id == "session-7" {
            return Err("session session-7 cannot be shown: it was removed".into());
        }
        let number = id.trim_start_matches("session-").parse().unwrap_or(0);
        Ok(steps(&records(number, &folder.tasks[number]), &|text| Cow::Borrowed(text)))
    };
    let page = batch_page("synthetic batch", &folder, &|text| Cow::Borrowed(text), &mut session);
    println!("{page}");
}

fn state(n: usize) -> State {
    let id = format!("{}-{n:04}", SUBJECTS[n % SUBJECTS.len()]);
    let ending = match fastrand::u32(0..100) {
        _ if n == 7 => Ending::Verified,
        _ if n % 211 == 13 => return not_run(id),
        0..58 => Ending::Verified,
        58..72 => Ending::Unverified,
        72..80 => Ending::GaveUp,
        80..88 => Ending::Budget { budget: Budget::Turns },
        88..93 => Ending::Budget { budget: Budget::Time },
        93..97 => Ending::NoChange,
        _ => Ending::Unavailable,
    };
    let message = match &ending {
        _ if n == 3 => HOSTILE.to_owned(),
        Ending::Verified => "the verification passes".into(),
        Ending::Unavailable => "the server closed the connection (3 attempts)".into(),
        _ => format!("test_{}_last: expected {}, got {}", SUBJECTS[n % 6], n % 17, n % 23),
    };
    let turns = 4 + (fastrand::f32() * fastrand::f32() * 36.0) as u32;
    let tokens = u64::from(turns) * fastrand::u64(2_000..9_000);
    let diff = Diff { files: vec!["src/pager.py".into()], added: 2, removed: 1, patch: String::new() };
    let totals = Totals {
        turns,
        prompt_tokens: tokens,
        generated_tokens: tokens / 12,
        cost: Some(tokens as f64 * 3e-7),
        ..Totals::default()
    };
    let finished = |attempt: u32, ending: Ending| Finished {
        v: 1,
        id: id.clone(),
        attempt,
        digest: "x".into(),
        time_ms: 0,
        infrastructure: ending.is_infrastructure(),
        ending,
        message: message.clone(),
        diff: diff.clone(),
        models: Vec::new(),
        totals,
        seconds: f64::from(turns) * (2.0 + 9.0 * fastrand::f64()),
        session: Some(format!("session-{n}")),
    };
    let mut attempts = vec![finished(1, ending)];
    if n % 97 == 5 {
        attempts.insert(0, finished(1, Ending::GaveUp));
        attempts[1].attempt = 2;
    }
    let last = &attempts[attempts.len() - 1];
    let row = Row {
        id: id.clone(),
        ending: Some(last.ending.clone()),
        infrastructure: last.infrastructure,
        attempts: attempts.len(),
        added: 2,
        removed: 1,
        turns,
        tokens: tokens + tokens / 12,
        cost: totals.cost,
        seconds: last.seconds,
        session: last.session.clone(),
        message,
    };
    State { row, digest: "x".into(), attempts }
}

fn not_run(id: String) -> State {
    let row = Row {
        id,
        ending: None,
        infrastructure: false,
        attempts: 0,
        added: 0,
        removed: 0,
        turns: 0,
        tokens: 0,
        cost: None,
        seconds: 0.0,
        session: None,
        message: String::new(),
    };
    State { row, digest: String::new(), attempts: Vec::new() }
}

/// Returns an excerpt from a source file, about as long as a typical tool result.
fn quoted() -> String {
    let source = SOURCES[fastrand::usize(..SOURCES.len())];
    let lines: Vec<&str> = source.lines().collect();
    let from = fastrand::usize(..lines.len());
    let length = 5 + (fastrand::f32() * fastrand::f32() * 150.0) as usize;
    let numbered = lines.iter().enumerate().skip(from).take(length);
    numbered.map(|(n, line)| format!("{}|{line}\n", n + 1)).collect()
}

fn records(n: usize, state: &State) -> Vec<Record> {
    let result = &state.attempts[state.attempts.len() - 1];
    let subject = SUBJECTS[n % SUBJECTS.len()];
    let fault = FAULTS[n % FAULTS.len()];
    let task =
        if n == 3 { HOSTILE.to_owned() } else { format!("The {subject} {fault}.\nFix it, and add a test.") };
    let message = |role: Role, content: String| Event::Message { role, content, images: Vec::new() };
    let mut events = vec![
        Event::Session {
            id: format!("session-{n}"),
            forked_from: None,
            version: "0.1.0".into(),
            task: task.clone(),
            root: "/home/somebody/shop".into(),
            mode: Mode::Run,
            settings: vec![
                ("model".into(), "qwen2.5-coder:7b".into()),
                ("verify".into(), "make check".into()),
            ],
            protected: Vec::new(),
            output_schema: None,
            images: Vec::new(),
        },
        checked(false),
        message(Role::System, include_str!("../../../prompts/secrets.md").repeat(6)),
        message(Role::User, format!("{}\n\n{task}", quoted())),
    ];
    for turn in 1..=result.totals.turns {
        events.push(Event::Request {
            turn,
            attempt: 1,
            messages: turn * 2,
            estimated_tokens: 1_000,
            temperature: None,
            seed: None,
            max_tokens: 4_096,
            peak: false,
        });
        if turn % 3 == 1 {
            let text = format!(
                "The {subject} {fault}. The cause may be in src/{subject}.py. I read it before I change it. {turn}"
            );
            events.push(Event::Thinking { turn, text: text.repeat(3) });
        }
        let last = turn == result.totals.turns;
        let changes = turn % 4 == 0;
        let (tool, arguments, said): (_, Value, String) = match () {
            () if last => ("finish", json!({"summary": format!("The {subject} is fixed.")}), String::new()),
            () if changes => (
                "apply_patch",
                json!({"edits": [{"path": format!("src/{subject}.py"), "search": "def pages(items, size):\n    return len(items) // size + 1",
                       "replace": "def pages(items, size):\n    whole, rest = divmod(len(items), size)\n    return whole + (1 if rest else 0)"}]}),
                format!("changed src/{subject}.py +2 -1"),
            ),
            () if turn % 3 == 0 => {
                let command = "python -m pytest -x 2>&1 | tail -40";
                (
                    "run_command",
                    json!({"command": command}),
                    if n == 3 { HOSTILE.repeat(20) } else { quoted() },
                )
            }
            () => ("read_file", json!({"path": format!("src/{subject}.py"), "first": turn}), quoted()),
        };
        let status = if turn % 7 == 6 { "failed" } else { "ok" };
        if turn % 5 == 3 {
            let text = format!("I look at how the {subject} is used before I change it.");
            events.push(Event::Text { turn, text });
        }
        events.push(Event::Call {
            turn,
            call: 0,
            tool: tool.into(),
            arguments,
            span: (0, 9),
            repairs: Vec::new(),
        });
        events.push(Event::Output {
            turn,
            content: String::new(),
            thinking: String::new(),
            ended_by: EndedBy::Stop,
            doubts: Vec::new(),
            counts: Counts {
                prompt_tokens: Some(u64::from(turn) * 700),
                generated_tokens: Some(fastrand::u64(20..400)),
                ..Counts::default()
            },
        });
        events.push(Event::ToolFinished {
            turn,
            call: 0,
            tool: tool.into(),
            status: status.into(),
            text: said,
            changed: Vec::new(),
            facts: Value::Null,
            ms: fastrand::u64(1..3_000),
        });
        if changes || last {
            events.push(checked(last && result.ending == Ending::Verified));
        }
    }
    events.push(Event::Finished(Report {
        ending: result.ending.clone(),
        message: result.message.clone(),
        diff: Diff { patch: PATCH.into(), ..result.diff.clone() },
        result: None,
        models: Vec::new(),
        totals: result.totals,
    }));
    let mut at = 0;
    let record = |(seq, event): (usize, Event)| {
        at += fastrand::u64(1..2_500);
        Record { v: VERSION, seq: seq as u64, time_ms: at, event }
    };
    events.into_iter().enumerate().map(record).collect()
}

fn checked(passed: bool) -> Event {
    let text = if passed {
        "214 tests passed".to_owned()
    } else {
        "FAILED tests/test_pager.py::test_last_page\n  assert pages([1, 2, 3, 4], 2) == 2\n  AssertionError: 3 != 2\n\
         1 failed, 213 passed"
            .to_owned()
    };
    Event::Checked(journal::Check {
        command: "make check".into(),
        passed,
        text,
        facts: Value::Null,
        ms: 2_300,
    })
}
