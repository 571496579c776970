//! Tests the results of a batch: records, predictions, summary and exit code.

use std::fs;

use crate::support::{Place, Script, attempt, run_with};
use batch::{BatchLimits, BatchOptions, Selection, Settings, Task};
use journal::{Budget, Ending};
use serde_json::{Value, json};

fn by_id(task: &Task) -> Ending {
    match task.id.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "verified" => Ending::Verified,
        "unverified" => Ending::Unverified,
        "lost" => Ending::GaveUp,
        "slow" => Ending::Budget { budget: Budget::Time },
        "offline" => Ending::Unavailable,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_result_contains_everything_about_an_attempt() {
    let place = Place::new();
    let tasks = place.tasks(&["verified"]);
    place.run(&tasks, &Script::ending(by_id)).await;
    let mut record: Value = serde_json::from_str(&place.lines("results.jsonl")[0]).unwrap();
    assert!(record["time_ms"].take().as_u64().is_some_and(|ms| ms > 0));
    assert!(record["seconds"].take().as_f64().is_some_and(|s| s > 0.0));
    let expected = json!({
        "v": 1, "id": "verified", "attempt": 1, "digest": tasks[0].digest(), "time_ms": null,
        "ending": {"kind": "verified"}, "infrastructure": false, "message": "verified was worked on",
        "diff": {"files": ["a"], "added": 2, "removed": 1, "patch": "patch of verified\n"},
        "totals": {"turns": 3, "prompt_tokens": 100, "generated_tokens": 10,
                   "saved_tokens": 0, "saved_bytes": 0, "cost": 0.25, "ms": 0},
        "seconds": null, "session": "session-verified",
    });
    assert_eq!(record, expected);
}

#[tokio::test]
async fn the_exit_code_reports_the_worst_outcome() {
    for (ids, code) in [
        (&["verified1", "verified2"][..], 0),
        (&["verified", "unverified"], 1),
        (&["verified", "lost"], 1),
        (&["slow"], 1),
        (&["unverified", "offline"], 5),
    ] {
        let place = Place::new();
        let summary = place.run(&place.tasks(ids), &Script::ending(by_id)).await;
        assert_eq!(summary.exit_code(), code, "{ids:?}");
    }
}

#[tokio::test]
async fn predictions_leave_out_attempts_that_failed_because_of_the_infrastructure() {
    let place = Place::new();
    let mut tasks = place.tasks(&["verified", "offline", "slow"]);
    place.run(&tasks, &Script::ending(by_id)).await;
    let prediction = |id: &str| json!({"instance_id": id, "model_name_or_path": "test-model", "model_patch": format!("patch of {id}\n")});
    let read = || -> Vec<Value> {
        place.lines("predictions.jsonl").iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    assert_eq!(read(), [prediction("verified"), prediction("slow")]);

    // A lost file is rebuilt, even if the only task that runs adds no prediction.
    fs::remove_file(place.out().join("predictions.jsonl")).unwrap();
    place.run(&tasks, &Script::ending(by_id)).await;
    assert_eq!(read(), [prediction("verified"), prediction("slow")]);

    // A changed task has no prediction until it has been run again.
    tasks[0].text = "something else".into();
    place.run(&tasks, &Script::ending(|_| Ending::Unavailable)).await;
    assert_eq!(read(), [prediction("slow")]);
}

#[tokio::test]
async fn the_summary_counts_endings_and_adds_up_all_attempts() {
    let place = Place::new();
    let tasks = place.tasks(&["verified1", "verified2", "lost", "offline"]);
    let options = BatchOptions { retries: 1, ..place.options() };
    let (summary, _) = run_with(&tasks, &options, &Script::ending(by_id)).await.unwrap();
    let endings = [("verified", 2), ("gave up", 1), ("model unavailable", 1)];
    assert_eq!(summary.endings, endings.map(|(label, n)| (label.to_owned(), n)));
    assert_eq!((summary.tasks, summary.attempts, summary.tokens), (4, 5, 550));
    assert_eq!(summary.cost, Some(1.25));
    assert_eq!(summary.rows[3].attempts, 2);
    let file: Value = serde_json::from_slice(&fs::read(place.out().join("summary.json")).unwrap()).unwrap();
    // Reading a number back may change its last digit.
    let reread: Value = serde_json::from_str(&serde_json::to_string(&summary).unwrap()).unwrap();
    assert_eq!(file, reread);
    assert_eq!(file["rows"][2]["ending"], json!({"kind": "gave_up"}));

    let text = summary.to_text();
    assert!(text.contains("4 tasks: 2 verified, 1 gave up, 1 model unavailable\n"), "{text}");
    assert!(text.contains("5 attempts, 550 tokens") && text.contains("$1.2500"), "{text}");
    assert!(text.lines().any(|l| l.trim() == "lost was worked on"), "{text}");
    assert!(!text.contains("verified1 was worked on"), "{text}");
}

#[tokio::test]
async fn escape_sequences_from_the_model_do_not_reach_the_table() {
    let place = Place::new();
    let runner = Script::new(|_, _, _| {
        std::future::ready(batch::Attempt::failed(Ending::GaveUp, "red \u{1b}[31m\u{9b}2J\nmore"))
    });
    let summary = place.run(&place.tasks(&["a"]), &runner).await;
    let text = summary.to_text();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains("more"), "{text:?}");
    assert_eq!(
        place.results()[0].message,
        "red \u{1b}[31m\u{9b}2J\nmore",
        "the record should keep the message unchanged"
    );
}

#[tokio::test]
async fn the_scheduler_rejects_an_id_that_leads_out_of_the_folder() {
    let place = Place::new();
    let runner = Script::ending(|_| Ending::Verified);
    let error = run_with(&place.tasks(&["../../up"]), &place.options(), &runner).await.unwrap_err();
    assert!(error.to_string().contains("../../up"), "{error}");
    assert!(!place.out().exists());
}

#[tokio::test]
async fn merged_shards_equal_one_batch() {
    let place = Place::new();
    let (all, runner) = (place.tasks(&["verified", "slow", "unverified"]), Script::ending(by_id));
    let whole = place.run(&all, &runner).await;
    let mut folders = Vec::new();
    for part in ["1/2", "2/2"] {
        let selection = Selection { shard: Some(part.parse().unwrap()), ..Selection::default() };
        let out = place.path(&part.replace('/', "-"));
        let options = BatchOptions { out: out.clone(), ..place.options() };
        run_with(&selection.of(all.clone()), &options, &runner).await.unwrap();
        folders.push(out);
    }
    let out = place.path("merged");
    let merged = batch::merge(&folders, &out).unwrap();
    assert_eq!((merged.tasks, merged.attempts, merged.tokens), (3, whole.attempts, whole.tokens));
    assert_eq!((merged.exit_code(), merged.cost), (1, whole.cost));
    let ids = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(ids(&read("results.jsonl")), ["verified", "unverified", "slow"]);
    assert_eq!(ids(&read("attempts.jsonl")), ["verified", "unverified", "slow"]);
    assert_eq!(read("predictions.jsonl").lines().count(), 3);
    let written: Value = serde_json::from_str(&read("summary.json")).unwrap();
    assert_eq!(written["rows"].as_array().unwrap().len(), 3);

    // The merged folder works like a batch folder, and there are no tasks left to run in it.
    runner.take();
    run_with(&all, &BatchOptions { out: out.clone(), ..place.options() }, &runner).await.unwrap();
    assert_eq!(runner.take(), [""; 0]);
}

#[tokio::test]
async fn bug_running_batches_and_stale_summaries_were_merged() {
    let place = Place::new();
    let (tasks, out) = (place.tasks(&["verified", "slow"]), place.path("merged"));
    let options =
        BatchOptions { limits: BatchLimits { tokens: Some(1), ..BatchLimits::default() }, ..place.options() };
    run_with(&tasks, &options, &Script::ending(by_id)).await.unwrap();
    let (summary, predictions) = (place.lines("summary.json"), place.lines("predictions.jsonl"));
    assert_eq!(predictions.len(), 1);

    // Simulates a second invocation that is killed before it writes a summary.
    let (folder, merged) = (place.out(), out.clone());
    let runner = Script::new(move |task, _, _| {
        let said = batch::merge(std::slice::from_ref(&folder), &merged).unwrap_err().to_string();
        assert!(said.contains("is in use by process"), "{said}");
        std::future::ready(attempt(Ending::Verified, &task.id))
    });
    place.run(&tasks, &runner).await;
    fs::write(place.out().join("summary.json"), summary.join("\n")).unwrap();
    fs::write(place.out().join("predictions.jsonl"), predictions.join("\n")).unwrap();
    let merged = batch::merge(&[place.out()], &out).unwrap();
    assert_eq!((merged.exit_code(), merged.stopped, merged.attempts), (0, None, 2));
    let predictions = fs::read_to_string(out.join("predictions.jsonl")).unwrap();
    assert_eq!(predictions.matches("test-model").count(), 2, "{predictions}");
}

#[tokio::test]
async fn results_that_do_not_fit_together_are_not_merged() {
    let place = Place::new();
    place.run(&place.tasks(&["verified"]), &Script::ending(by_id)).await;
    let said = |from: &[std::path::PathBuf], out: &str| {
        batch::merge(from, &place.path(out)).unwrap_err().to_string()
    };
    assert!(said(&[place.out(), place.out()], "merged").contains("the task verified is in both"));
    assert!(said(&[place.path("repo")], "merged").contains("has not ended"));
    assert!(!place.path("merged").exists());
    assert!(said(&[place.out()], "out").contains("already has results"));
}

#[tokio::test]
async fn a_check_finds_missing_repositories_and_commits_without_changing_anything() {
    let place = Place::new();
    let mut tasks = place.tasks(&["good", "gone", "old"]);
    tasks[1].repo = place.path("nowhere");
    tasks[2].base_commit = Some("deadbeef".into());
    let before = place.state();
    let problems = batch::check(&tasks).await;
    assert_eq!(problems.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["gone", "old"]);
    assert!(problems[0].1.contains("nowhere") && problems[1].1.contains("deadbeef"), "{problems:?}");
    assert!(!place.out().exists());
    assert_eq!(place.state(), before);
}

#[tokio::test]
async fn an_invocation_with_other_settings_names_the_tasks_that_keep_their_results() {
    let place = Place::new();
    let tasks = place.tasks(&["verified1", "lost", "verified2"]);
    let with = |model: &str| BatchOptions {
        settings: Settings::from([("model".into(), Some(model.into()))]),
        retry_failed: true,
        ..place.options()
    };
    let script = Script::ending(by_id);
    run_with(&tasks[..2], &with("a"), &script).await.unwrap();
    let (_, told) = run_with(&tasks, &with("b"), &script).await.unwrap();
    assert_eq!(told[..2], ["plan 3, 1 done", "verified1 with other model: Some(\"b\")"], "{told:?}");
    assert!(
        told.contains(&"started lost 2".to_owned()),
        "a task that runs again should not keep its result: {told:?}"
    );
    let (_, told) = run_with(&tasks, &with("b"), &script).await.unwrap();
    assert_eq!(told[..2], ["plan 3, 2 done", "verified1 with other model: Some(\"b\")"], "{told:?}");
    let (_, told) = run_with(&tasks, &with("a"), &script).await.unwrap();
    assert_eq!(told[..2], ["plan 3, 2 done", "verified2 with other model: Some(\"a\")"], "{told:?}");
}
