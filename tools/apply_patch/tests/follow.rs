//! Checks calls while they stream in through the parser. A call that is refused early must also be
//! refused as a whole.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::{fs, path::Path};

use patch_corpus::{Case, Class, Input};
use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Registry, ToolError};
use tool_apply_patch::{ApplyPatch, Arguments};
use tool_stream::{Event, Options, Parser};
use workspace::Workspace;

/// The test runs one in `EVERY` cases of the corpus.
const EVERY: usize = 11;

/// Feeds a call in pieces of `n` bytes. Returns where it was refused and why.
fn followed(registry: &Registry, call: &str, n: usize) -> Option<(usize, String)> {
    let options = Options {
        known_tools: Some(vec!["apply_patch".into()]),
        followed: vec!["apply_patch".into()],
        ..Options::default()
    };
    let (mut parser, mut events) = (Parser::new(options), Vec::new());
    let mut follow = registry.open("apply_patch").unwrap();
    let mut fed = 0;
    for chunk in call.as_bytes().chunks(n) {
        parser.feed(chunk, &mut events);
        fed += chunk.len();
        for event in events.drain(..) {
            if let Event::FieldText { path, text, closed, .. } = event
                && let Err(why) = follow.text(&path, &text, closed)
            {
                return Some((fed, why.message));
            }
        }
    }
    None
}

fn call(arguments: &Value) -> String {
    json!({"tool": "apply_patch", "arguments": arguments}).to_string()
}

fn tree(root: &Path, case: &Case) {
    for (path, (bytes, _)) in &case.before {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn no_valid_call_is_refused_while_it_streams() {
    let cases = patch_corpus::cases();
    let wanted = |c: &&Case| {
        c.class != Class::Security && matches!(c.input, Input::Text(_) | Input::Lines(_) | Input::Edits(_))
    };
    let (mut early, mut calls) = (0, 0);
    for case in cases.iter().filter(wanted).step_by(EVERY) {
        let folder = tempfile::tempdir().unwrap();
        tree(folder.path(), case);
        let tool = ApplyPatch::new(Workspace::open(folder.path()).unwrap(), Secrets::disabled());
        let registry = Registry::of([tool.clone().into_tool()]).unwrap();
        let arguments = case.input.arguments();
        calls += 1;
        let Some((at, why)) = followed(&registry, &call(&arguments), 13) else { continue };
        early += 1;
        let whole = registry
            .accept("apply_patch", &arguments)
            .map(|accepted| accepted.arguments)
            .map_err(|r| r.message);
        let planned = whole.and_then(|arguments| {
            let arguments: Arguments = serde_json::from_value(arguments).unwrap();
            tool.plan(arguments).map(|_| ()).map_err(|e| e.to_string())
        });
        assert!(planned.is_err(), "{}: refused at byte {at}: {why}\n{arguments}", case.name);
    }
    assert!(calls > 1_000 && early > 50, "{early} of {calls}");
}

fn fixture() -> (tempfile::TempDir, ApplyPatch, Registry) {
    let folder = tempfile::tempdir().unwrap();
    let lines: String = (1..=300).map(|i| format!("line {i}\n")).collect();
    fs::write(folder.path().join("long.txt"), lines).unwrap();
    fs::write(folder.path().join("short.txt"), "one\ntwo\nthree\n").unwrap();
    let tool = ApplyPatch::new(Workspace::open(folder.path()).unwrap(), Secrets::disabled());
    (folder, tool.clone(), Registry::of([tool.into_tool()]).unwrap())
}

#[test]
fn an_edit_is_cut_when_its_search_matches_nothing() {
    let (_folder, _, registry) = fixture();
    let long = "something long\n".repeat(100);
    for arguments in [
        json!({"edits": [{"path": "short.txt", "search": "zwei\ndrei\nvier\nfuenf\n", "replace": long}]}),
        json!({"edits": [{"path": "short.txt", "search": ["zwei", "drei", "vier", "fuenf"], "replace": long}]}),
        json!({"patch": format!("short.txt\n<<<<<<< SEARCH\nzwei\ndrei\nvier\nfuenf\n=======\n{long}>>>>>>> REPLACE\n")}),
        json!({"patch": format!("*** Begin Patch\n*** Update File: short.txt\n@@\n-zwei\n+{long}")}),
        json!({"patch": ["--- a/short.txt", "+++ b/short.txt", "@@ -1,3 +1,3 @@", "-zwei", long]}),
        json!({"patch": format!("--- a/nowhere.txt\n+++ b/nowhere.txt\n@@\n-a\n{long}")}),
        json!({"patch": format!("--- a/../short.txt\n+++ b/../short.txt\n{long}")}),
    ] {
        let (at, why) =
            followed(&registry, &call(&arguments), 1).unwrap_or_else(|| panic!("not refused: {arguments}"));
        assert!(at < 250, "{at} bytes of {arguments}: {why}");
        assert!(why.starts_with("nothing was applied: "), "{why}");
    }
}

#[tokio::test]
async fn part_of_a_line_in_an_array_is_not_mistaken_for_a_missing_line() {
    let (_folder, _, registry) = fixture();
    let arguments = json!({"edits": [{"path": "short.txt", "search": ["hre"], "replace": ["e"]}]});
    assert_eq!(followed(&registry, &call(&arguments), 1), None);
    assert_eq!(registry.call("apply_patch", arguments).await.unwrap().text, "changed short.txt +1 -1");
}

#[tokio::test]
async fn the_second_miss_in_one_place_shows_the_lines_there_and_a_success_resets_the_count() {
    let (_folder, _, registry) = fixture();
    let edit =
        |path: &str, search: &str| json!({"edits": [{"path": path, "search": search, "replace": "x"}]});
    let missed = async |arguments: Value| match registry.call("apply_patch", arguments).await {
        Err(ToolError::Model(why)) => why,
        other => panic!("{other:?}"),
    };
    let first = missed(edit("short.txt", "one\ntwwo\nthree")).await;
    assert!(!first.contains("second miss"), "{first}");
    let second = missed(edit("short.txt", "one\ntwoo\nthree")).await;
    assert!(second.ends_with("Now:\n1|one\n2|two\n3|three"), "{second}");
    assert!(second.contains("Send the whole file with path and content."), "{second}");

    // In a large file, only the lines around the miss are shown, and a miss in another place counts
    // as a first miss.
    missed(edit("long.txt", "line 20\nline 2l\nline 22\n")).await;
    let elsewhere = missed(edit("long.txt", "line 200\nline 2ol\nline 202\n")).await;
    assert!(!elsewhere.contains("second miss"), "{elsewhere}");
    let again = missed(edit("long.txt", "line 200\nline 2Ol\nline 202\n")).await;
    assert!(again.contains("\n200|line 200\n201|line 201\n"), "{again}");
    assert!(!again.contains("\n90|") && !again.contains("\n290|"), "{again}");
    registry.call("apply_patch", edit("long.txt", "line 201")).await.unwrap();
    let after = missed(edit("long.txt", "line 200\nline 2Ol\nline 202\n")).await;
    assert!(!after.contains("second miss"), "{after}");
}

#[test]
fn only_the_last_value_of_a_repeated_key_counts() {
    let (_folder, _, registry) = fixture();
    let (wrong, right) = ("nowhere\nat all\nnot here\nnor there\n", "one\ntwo\n");
    let patch =
        |old: &str| format!("*** Begin Patch\n*** Update File: short.txt\n@@\n-{old}\n+x\n*** End Patch\n");
    let lines = |text: &str| json!(text.lines().collect::<Vec<_>>()).to_string();
    let (text, list) = (|t: &str| json!(t).to_string(), |e: &str| format!("[{{{e}}}]"));
    let edit = |path: &str, search: String| {
        format!("\"path\": \"{path}\", \"search\": {search}, \"replace\": \"x\"")
    };
    for (early, last) in [
        // In each pair, the first value alone is not refused, but both values joined together would
        // be.
        (
            format!("\"patch\": {}", text("*** Begin Patch\n*** Update File: short.txt\n@@\n one\n")),
            format!("\"patch\": {}", text(&patch("two"))),
        ),
        (
            format!("\"patch\": {}", lines("short.txt\n<<<<<<< SEARCH\none")),
            format!("\"patch\": {}", lines(&patch("two"))),
        ),
        (
            format!("\"edits\": {}", list(&edit("short.txt", text("three\n")))),
            format!("\"edits\": {}", list(&edit("short.txt", text(right)))),
        ),
        (
            format!("\"edits\": {}", list(&edit("short.txt", lines("three")))),
            format!("\"edits\": {}", list(&edit("short.txt", lines(right)))),
        ),
        (
            format!("\"edits\": {}", list(&edit("long.txt", text("line 7\n")))),
            format!("\"edits\": {}", list(&edit("short.txt", text(right)))),
        ),
    ] {
        let call = format!("{{\"tool\": \"apply_patch\", \"arguments\": {{{early}, {last}}}}}");
        assert_eq!(followed(&registry, &call, 3), None, "{call}");
        let doomed = call.replace("two", wrong.trim_end().split('\n').next().unwrap());
        if doomed.contains("-nowhere") {
            assert!(followed(&registry, &doomed, 3).is_some(), "{doomed}");
        }
    }
}

#[test]
fn a_whole_file_or_edit_is_cut_at_a_line_that_stands_for_omitted_code() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.py"), "one\ntwo\n").unwrap();
    let tool = ApplyPatch::new(Workspace::open(folder.path()).unwrap(), Secrets::disabled());
    let registry = Registry::of([tool.into_tool()]).unwrap();
    let text = "one\n# ... existing code ...\nthree\n";
    for arguments in [
        json!({"path": "a.py", "content": text}),
        json!({"edits": [{"path": "a.py", "search": "two\n", "replace": text}]}),
    ] {
        let call = call(&arguments);
        let (at, why) = followed(&registry, &call, 1).unwrap();
        assert!(why.contains("placeholder line (`# ... existing code ...`)"), "{why}");
        assert!(call[..at].ends_with("existing code ...\\n"), "{}", &call[..at]);
    }
}
