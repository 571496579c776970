//! Tests that a model that has seen only placeholders can edit files that contain secrets.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;

use serde_json::{Value, json};
use tool_api::{Registry, ToolError};
use tool_apply_patch::ApplyPatch;
use tool_stream::{Event, Options, Parser};
use workspace::Workspace;

/// A line as it is on disk, and as the model sees it.
type Line = (String, String);

/// A deterministic random number generator.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn letters(&mut self, n: usize) -> String {
        (0..n)
            .map(|_| {
                char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"[self.roll(62)])
            })
            .collect()
    }

    /// Returns the lines of a new file. A third of the lines contain secrets.
    fn file(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for i in 0..10 + self.roll(30) {
            match self.roll(9) {
                0 => lines.push(format!("    key_{i} = \"{}{}\"", "ghp_", self.letters(36) + "0a1")),
                1 => lines.push(format!("API_KEY_{i}={}7k2", self.letters(24))),
                2 => lines.push(format!("url = 'postgres://app:{}9x@db/{i}'", self.letters(12))),
                3 if i % 3 == 0 => {
                    lines.push("-----BEGIN PRIVATE KEY-----".into());
                    lines.extend((0..3).map(|_| self.letters(64)));
                    lines.push("-----END PRIVATE KEY-----".into());
                }
                _ => lines.push(format!("line {i} of {}", self.roll(5))),
            }
        }
        lines
    }

    /// Changes, removes, duplicates and adds some lines.
    fn edited(&mut self, lines: &[Line]) -> Vec<Line> {
        let mut out = Vec::new();
        let new = |text: String| (text.clone(), text);
        for (i, line) in lines.iter().enumerate() {
            match self.roll(12) {
                0 => {}
                1 => out.push(new(format!("changed {i}"))),
                2 => out.extend([line.clone(), new(format!("new behind {i}"))]),
                3 => out.extend([line.clone(), line.clone()]),
                _ => out.push(line.clone()),
            }
        }
        out
    }
}

/// Returns why the call was refused while it streamed in; `None` if it was not refused.
fn followed(registry: &Registry, call: &str) -> Option<String> {
    let options = Options {
        known_tools: Some(vec!["apply_patch".into()]),
        followed: vec!["apply_patch".into()],
        ..Options::default()
    };
    let (mut parser, mut events) = (Parser::new(options), Vec::new());
    let mut follow = registry.open("apply_patch").unwrap();
    for piece in call.as_bytes().chunks(11) {
        parser.feed(piece, &mut events);
        for event in events.drain(..) {
            if let Event::FieldText { path, text, closed, .. } = event
                && let Err(why) = follow.text(&path, &text, closed)
            {
                return Some(why.message);
            }
        }
    }
    None
}

#[tokio::test]
async fn edits_of_the_masked_file_apply_to_the_real_one_byte_for_byte() {
    let (mut with_secrets, mut calls) = (0, 0);
    for seed in 0..300u64 {
        let mut dice = Dice(seed);
        let end = if seed % 2 == 0 { "\n" } else { "\r\n" };
        let text =
            |lines: &mut dyn Iterator<Item = &String>| lines.map(|l| format!("{l}{end}")).collect::<String>();
        let real = dice.file();
        let before = text(&mut real.iter());
        // The model edits the masked file. Lines that it does not change keep their placeholders.
        let old = secrets::Secrets::new("session", Vec::new()).mask(&before).into_owned();
        let seen: Vec<Line> = real.into_iter().zip(old.lines().map(str::to_owned)).collect();
        let after = dice.edited(&seen);
        let new = text(&mut after.iter().map(|l| &l.1));
        let after = text(&mut after.iter().map(|l| &l.0));
        if before == after {
            continue;
        }
        with_secrets += usize::from(old != before);
        let lines = |text: &str| text.replace('\r', "");
        let patch = diffy::create_patch(&lines(&old), &lines(&new)).to_string();
        let patch = patch.replacen("--- original", "--- a/f.py", 1).replacen("+++ modified", "+++ b/f.py", 1);
        let whole = json!({"path": "f.py", "content": lines(&new)});
        let edit = json!({"edits": [{"path": "f.py", "search": lines(&old), "replace": lines(&new)}]});
        let ways = [json!({ "patch": patch }), whole, edit];
        for (way, arguments) in ways.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("f.py"), &before).unwrap();
            // This object has not masked anything yet, as if it were in another process.
            let own = secrets::Secrets::new("session", Vec::new());
            let tool = ApplyPatch::new(Workspace::open(folder.path()).unwrap(), own);
            let registry = Registry::of([tool.into_tool()]).unwrap();
            let call = json!({"tool": "apply_patch", "arguments": arguments}).to_string();
            assert_eq!(followed(&registry, &call), None, "seed {seed}, way {way}: {call}");
            let arguments = registry
                .accept("apply_patch", &arguments)
                .map(|accepted| accepted.arguments)
                .map_err(|r| r.message)
                .unwrap();
            let done = registry.call("apply_patch", arguments).await;
            assert!(done.is_ok(), "seed {seed}, way {way}: {done:?}\n{call}");
            let there = fs::read_to_string(folder.path().join("f.py")).unwrap();
            assert_eq!(there, after, "seed {seed}, way {way}\n{call}");
            calls += 1;
        }
    }
    assert!(with_secrets > 200 && calls > 800, "{with_secrets}, {calls}");
}

async fn refusal(registry: &Registry, arguments: Value) -> String {
    let arguments = registry
        .accept("apply_patch", &arguments)
        .map(|accepted| accepted.arguments)
        .map_err(|r| r.message)
        .unwrap();
    match registry.call("apply_patch", arguments).await {
        Err(ToolError::Model(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_refusal_shows_the_masked_file() {
    let folder = tempfile::tempdir().unwrap();
    let token = ["ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv"].concat();
    let file = format!("import os\n{}KEY = '{token}'\nRETRIES = 3\n", "# long ".repeat(26));
    fs::write(folder.path().join("a.py"), file).unwrap();
    let own = secrets::Secrets::new("session", Vec::new());
    let registry =
        Registry::of([ApplyPatch::new(Workspace::open(folder.path()).unwrap(), own).into_tool()]).unwrap();
    // After a second miss in the same place, the refusal shows the file's lines there.
    for _ in 0..2 {
        let search = "KEY = 'something else'\nRETRIES = 4";
        let why =
            refusal(&registry, json!({"edits": [{"path": "a.py", "search": search, "replace": "x"}]})).await;
        assert!(why.contains("RETRIES = 3"), "{why}");
        assert!(!why.contains("ghp_"), "{why}");
    }
}
