//! The results of a batch: records, predictions, summary and exit code.

use std::fs;

use crate::support::{Place, Script, run_with};
use batch::{BatchOptions, Task};
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
async fn predictions_contain_the_agents_patches_without_infrastructure_failures() {
    let place = Place::new();
    let mut tasks = place.tasks(&["verified", "offline", "slow"]);
    place.run(&tasks, &Script::ending(by_id)).await;
    let prediction = |id: &str| json!({"instance_id": id, "model_name_or_path": "test-model", "model_patch": format!("patch of {id}\n")});
    let read = || -> Vec<Value> {
        place.lines("predictions.jsonl").iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    assert_eq!(read(), [prediction("verified"), prediction("slow")]);

    // A lost file is rebuilt, even if the only task left is one that was offline.
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
    assert_eq!(file, serde_json::to_value(&summary).unwrap());
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
    assert_eq!(place.results()[0].message, "red \u{1b}[31m\u{9b}2J\nmore", "the record is exact");
}

#[tokio::test]
async fn the_scheduler_rejects_an_id_that_leads_out_of_the_folder() {
    let place = Place::new();
    let runner = Script::ending(|_| Ending::Verified);
    let error = run_with(&place.tasks(&["../../up"]), &place.options(), &runner).await.unwrap_err();
    assert!(error.to_string().contains("../../up"), "{error}");
    assert!(!place.out().exists());
}
