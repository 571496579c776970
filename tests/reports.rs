//! Tests the reports on a batch's results (JUnit XML, Markdown, the HTML report and the comparison
//! with another batch) and the page for a single session.

use std::io::Read as _;
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fake_model::{Reply, Server};
use quick_junit::{NonSuccessKind, TestCaseStatus};
use serde_json::{Value, json};

use crate::support::{World, call, json_lines, snapshot};

/// Text that tries to break out of every format.
const HOSTILE: &str =
    "</script><script>alert(1)</script> <!-- | `x` ]]> & \u{1b}[31mred \u{202e}reversed\u{202c} \u{7}";

/// Writes a task file. Each task consists of an id, the task text and a verification command.
fn write_tasks(world: &World, name: &str, tasks: &[(&str, &str, &str)]) {
    let line = |(id, text, verify): &(&str, &str, &str)| {
        json!({"id": id, "repo": world.repo(), "task": text, "verify": verify}).to_string() + "\n"
    };
    std::fs::write(world.home().join(name), tasks.iter().map(line).collect::<String>()).unwrap();
}

fn batch(world: &World, server: &Server, name: &str) -> Output {
    let tasks = world.home().join(name).display().to_string();
    let args = ["batch", &tasks, "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap()
}

fn fix(server: &Server) {
    let edits = json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]});
    server.enqueue(Reply::text(call("apply_patch", edits)));
    server.enqueue(Reply::text(call("finish", json!({}))));
}

fn change_nothing(server: &Server, summary: &str) {
    for _ in 0..2 {
        server.enqueue(Reply::text(call("finish", json!({"summary": summary}))));
    }
}

/// Runs a batch of two tasks: `fixed`, which is verified, and `idle`, which ends with a hostile
/// message. The results are in `tasks.results`.
fn two_tasks(world: &World) {
    let server = Server::start();
    let idle = format!("Do nothing. {HOSTILE}");
    write_tasks(
        world,
        "tasks.jsonl",
        &[("fixed", "Make the tests pass.", "sh check.sh"), ("idle", &idle, "true")],
    );
    fix(&server);
    change_nothing(&server, HOSTILE);
    let output = batch(world, &server, "tasks.jsonl");
    assert_eq!(output.status.code(), Some(1), "{}", world.tell(&output));
}

fn result(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.home().join("tasks.results").join(name)).unwrap()
}

/// Returns the data and the trajectories embedded in a page.
fn contents(page: &str) -> (Value, Vec<Value>) {
    let element = |start: &str| {
        let (_, rest) = page.split_once(start)?;
        rest.split_once("</script>").map(|(text, _)| text)
    };
    let data = element("<script type=\"application/json\" id=\"data\">").unwrap();
    let unpack = |packed: &str| {
        let bytes = STANDARD.decode(packed).unwrap();
        let mut text = String::new();
        flate2::read::DeflateDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let packed = (0..).map_while(|n| element(&format!("<script type=\"text/plain\" id=\"trajectory-{n}\">")));
    (serde_json::from_str(data).unwrap(), packed.map(unpack).collect())
}

fn has_harmful_character(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c))
}

#[test]
fn a_batch_writes_results_that_ci_systems_can_read() {
    let world = World::with_a_bug();
    two_tasks(&world);
    let xml = result(&world, "junit.xml");
    let report = quick_junit::Report::deserialize_from_str(&xml).unwrap();
    let cases = &report.test_suites[0].test_cases;
    assert_eq!((cases[0].name.as_str(), cases[1].name.as_str()), ("fixed", "idle"));
    assert!(matches!(cases[0].status, TestCaseStatus::Success { .. }));
    let TestCaseStatus::NonSuccess { kind, message, .. } = &cases[1].status else { panic!("{xml}") };
    assert_eq!(*kind, NonSuccessKind::Failure);
    assert!(message.as_ref().unwrap().as_str().starts_with("</script><script>"), "{message:?}");
    assert!(!has_harmful_character(&xml), "{xml}");

    let markdown = result(&world, "summary.md");
    assert!(markdown.starts_with("## `tasks`: 1 of 2 tasks verified\n"), "{markdown}");
    assert!(markdown.contains("| no change | 1 |\n"), "{markdown}");
    assert!(markdown.contains("| `idle` | no change | 2 |"), "{markdown}");
    assert!(!has_harmful_character(&markdown), "{markdown}");
}

#[test]
fn a_report_is_one_page_that_hostile_text_cannot_break_out_of() {
    let world = World::with_a_bug();
    two_tasks(&world);
    let results = world.home().join("tasks.results");
    let seen = world.observe(&["report", results.to_str().unwrap()]);
    assert!(
        seen.starts_with("exit 0\n--- stderr\nwrote [WORLD]/home/tasks.results/report.html: 2 tasks, "),
        "{seen}"
    );

    let page = result(&world, "report.html");
    assert!(!page.contains("<script>alert") && !has_harmful_character(&page));
    assert_eq!(
        page.matches("</script>").count(),
        4,
        "there should be one end tag each for the data, the script and two trajectories"
    );
    let (data, trajectories) = contents(&page);
    let tasks = data["tasks"].as_array().unwrap();
    assert_eq!((&tasks[0]["id"], &tasks[0]["ending"]), (&json!("fixed"), &json!("verified")));
    assert_eq!((&tasks[1]["ending"], &tasks[1]["turns"]), (&json!("no change"), &json!(2)));
    assert!(tasks[1]["message"].as_str().unwrap().contains("␛[31mred <U+202E>reversed"), "{}", tasks[1]);

    let kinds = |trajectory: &Value| {
        let parts =
            trajectory.as_array().unwrap().iter().flat_map(|step| step["parts"].as_array().unwrap().clone());
        parts.map(|part| part["kind"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = kinds(&trajectories[0]);
    for kind in ["task", "check", "edit", "result", "end", "diff"] {
        assert!(first.iter().any(|k| k == kind), "no {kind} in {first:?}");
    }
    let task = trajectories[1][0]["parts"][0]["text"].as_str().unwrap();
    assert!(task.contains("</script><script>alert(1)") && !has_harmful_character(task), "{task}");
}

#[test]
fn a_report_shows_neither_secrets_nor_the_unmasked_patch() {
    let world = World::with_a_bug();
    // The key is assembled from parts so that secret scanners ignore this file.
    let key = ["AKIA", "Q3VZLN5XKJWT7R2D"].concat();
    world.write("add.sh", &format!("# aws_access_key_id = {key}\nadd() {{\n    echo $(($1 - $2))\n}}\n"));
    world.git(&["commit", "--all", "--quiet", "--message=key"]);
    let server = Server::start();
    write_tasks(&world, "tasks.jsonl", &[("fixed", "Make the tests pass.", "sh check.sh")]);
    fix(&server);
    assert_eq!(batch(&world, &server, "tasks.jsonl").status.code(), Some(0));
    assert!(result(&world, "results.jsonl").contains(&key), "the patch of a result should not be masked");

    world.observe(&["report", world.home().join("tasks.results").to_str().unwrap()]);
    let (data, trajectories) = contents(&result(&world, "report.html"));
    let shown = format!("{data}{}", Value::Array(trajectories));
    assert!(shown.contains("# aws_access_key_id = [secret-") && !shown.contains(&key), "{shown}");
}

#[test]
fn a_secret_that_the_model_wrote_from_memory_is_masked_in_every_view() {
    let world = World::with_a_bug();
    let key = ["ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv"].concat();
    let server = Server::start();
    write_tasks(&world, "tasks.jsonl", &[("idle", "Do nothing.", "true")]);
    change_nothing(&server, &format!("Use the key {key}."));
    assert_eq!(batch(&world, &server, "tasks.jsonl").status.code(), Some(1));

    world.observe(&["report", world.home().join("tasks.results").to_str().unwrap()]);
    let (data, trajectories) = contents(&result(&world, "report.html"));
    let page = format!("{data}{}", Value::Array(trajectories));
    let written =
        ["results.jsonl", "summary.json", "junit.xml", "summary.md"].map(|name| result(&world, name));
    for shown in written.into_iter().chain([page]) {
        assert!(shown.contains("Use the key [secret-") && !shown.contains(&key), "{shown}");
    }
}

#[test]
fn a_task_whose_session_is_gone_stays_in_the_report() {
    let world = World::with_a_bug();
    two_tasks(&world);
    let idle = json_lines(&result(&world, "results.jsonl")).remove(1);
    world.observe(&["sessions", "rm", idle["session"].as_str().unwrap()]);
    let results = world.home().join("tasks.results");
    let out = world.home().join("elsewhere.html");
    let seen = world.observe(&["report", results.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let (data, trajectories) = contents(&std::fs::read_to_string(out).unwrap());
    let attempt = &data["tasks"][1]["attempts"][0];
    assert!(attempt["note"].as_str().unwrap().contains("cannot be shown: there is no session"), "{attempt}");
    assert_eq!(trajectories.len(), 1);
}

#[test]
fn a_report_of_a_folder_without_a_batch_is_refused() {
    let world = World::new();
    snapshot!(world.observe(&["report", "."]), @r"
    exit 2
    --- stderr
    error: . is not a batch folder: it has no results.jsonl
    ");
    snapshot!(world.observe(&["compare", ".", "missing"]), @r"
    exit 2
    --- stderr
    error: . is not a batch folder: it has no results.jsonl
    ");
}

#[test]
fn two_batches_are_compared_task_by_task() {
    let world = World::with_a_bug();
    let server = Server::start();
    let (fixed, idle) = ("sh check.sh", "true");
    write_tasks(&world, "a.jsonl", &[("one", "Fix.", idle), ("two", "Fix.", fixed), ("old", "Fix.", fixed)]);
    write_tasks(&world, "b.jsonl", &[("one", "Fix.", fixed), ("two", "Fix.", fixed), ("new", "Fix.", idle)]);
    for verified in [false, true, true, true, true, false] {
        if verified {
            fix(&server);
        } else {
            change_nothing(&server, "Done.");
        }
    }
    for name in ["a.jsonl", "b.jsonl"] {
        assert_eq!(batch(&world, &server, name).status.code(), Some(1));
    }
    let folder = |name: &str| world.home().join(name).display().to_string();
    let (a, b) = (folder("a.results"), folder("b.results"));
    let seen = world.observe(&["compare", &a, &b]);
    let (head, sums) = seen.split_once("\n2 compared tasks").unwrap();
    snapshot!(head, @r"
    exit 0
    --- stdout
    A  [WORLD]/home/a.results: 3 tasks, 2 verified
    B  [WORLD]/home/b.results: 3 tasks, 2 verified

    better in B             1
        one
    worse in B              0
    verified in both        1
    verified in neither     0
    only in A               1  old
    only in B               1  new
    changed description     1  one

    sign test: p = 1.000 (1 better, 0 worse)
    ");
    assert!(sums.contains("turns                             4               4    1.00\n"), "{sums}");

    let output = world.agent(&["compare", "--json", &b, &a]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "worse results should not be an error");
    let compared: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&compared["better"], &compared["worse"]), (&json!([]), &json!(["one"])));
    assert_eq!((&compared["both"], &compared["p"]), (&json!(1), &json!(1.0)));
}

#[test]
fn a_session_can_be_shown_as_a_page() {
    let world = World::with_a_bug();
    let server = Server::start();
    fix(&server);
    let args = ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", HOSTILE];
    assert_eq!(world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap().status.code(), Some(0));
    let output = world.agent(&["sessions", "show", "--html"]).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(page.starts_with("<!doctype html>") && !has_harmful_character(&page));
    let (data, trajectories) = contents(&page);
    assert_eq!((&data["kind"], &data["tasks"][0]["ending"]), (&json!("session"), &json!("verified")));
    let steps = trajectories[0].as_array().unwrap();
    assert_eq!(steps.len(), 4, "the steps should be the start, two turns and the end");
    assert!(steps[0]["parts"][0]["text"].as_str().unwrap().starts_with("</script>"), "{}", steps[0]);
}
