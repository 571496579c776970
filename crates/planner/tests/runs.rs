//! Tests whole runs of the planner with a scripted model: requests, effects and endings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use journal::{CutReason, Ending, Event, Record};
use models::{Delta, Error};
use planner::{Approach, Cut, Instructions};
use support::{Reply, says, text, unchanged_and_unsure, world, world_with_branches};

const READ: &str = r#"{"tool": "read_file", "arguments": {"path": "calc.py"}}"#;
const FIX: &str = r#"{"tool": "apply_patch", "arguments": {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"}}"#;
const FINISH: &str = r#"{"tool": "finish", "arguments": {"summary": "added instead of subtracting"}}"#;
const FIXED: &str = "def add(a, b):\n    return a + b\n";

#[tokio::test]
async fn a_session_with_tools_word_for_word() {
    let mut world = world();
    world.instructions = vec![Instructions { path: "AGENTS.md".into(), text: "Use four spaces.".into() }];
    let ran = world.run("Fix the sum.", vec![says(READ), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.report.message, "added instead of subtracting");
    assert_eq!(ran.report.diff.files, ["calc.py"]);
    assert!(ran.only_grew());
    insta::assert_snapshot!(ran.conversation());
}

#[tokio::test]
async fn a_run_treats_tools_by_capability_not_by_name() {
    let renamed = |approach| {
        let mut world = world();
        world.settings.approach = approach;
        world.names = vec![("apply_patch", "put"), ("finish", "end_task")];
        world
    };
    let (fix, end) = (FIX.replace("apply_patch", "put"), FINISH.replace("finish", "end_task"));
    let ran = renamed(Approach::Tools).run("t", vec![says(&fix), says(&end)]).await;
    assert_eq!((ran.report.ending, ran.files["calc.py"].as_str()), (Ending::Verified, FIXED));
    // A call that writes the requested file does not switch the run to tools.
    let wrong = fix.replace("a + b", "a * b");
    let ran = renamed(Approach::WholeFile).run("t", vec![says(&wrong), says(&fix)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert!(ran.last_messages().iter().all(|told| !told.contains("Tools, with the JSON Schema")));
    // Between the two attempts, the planner reverted the file with the same tool.
    let written = |r: &Record| matches!(&r.event, Event::ToolStarted { tool, .. } if tool == "put");
    assert_eq!(ran.records.iter().filter(|r| written(r)).count(), 3);
}

#[tokio::test]
async fn a_whole_file_session_word_for_word() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    let unchanged = "```python\ndef add(a, b):\n    return a - b\n```\n";
    let right = "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nDone.";
    let ran = world.run("Fix the sum.", vec![says(unchanged), says(right)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.files["calc.py"], FIXED);
    assert!(
        ran.requests[1].temperature > ran.requests[0].temperature,
        "sending the same bytes again would not help"
    );
    insta::assert_snapshot!(ran.last_messages().join("\n=======================\n"));
}

#[tokio::test]
async fn a_json_call_instead_of_the_whole_file_applies_to_the_file_it_names() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    let other = r#"{"tool": "apply_patch", "arguments": {"path": "notes.py", "content": "def notes_of_the_day():\n    return 'half'\n"}}"#;
    let ran = world.run("t", vec![says(other), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.files["calc.py"], FIXED);
    assert!(
        ran.files["notes.py"].contains("notes_of_the_day"),
        "the file that was shown should not be overwritten"
    );
    assert!(ran.last_messages()[1].contains("Tools, with the JSON Schema"), "the run continues with tools");
}

#[tokio::test]
async fn a_file_with_crlf_is_requested_and_compared_with_lf() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    world.files.lock().unwrap().insert("calc.py".into(), "def add(a, b):\r\n    return a - b\r\n".into());
    let unchanged = "```python\ndef add(a, b):\n    return a - b\n```\n";
    let ran = world.run("t", vec![says(unchanged), says("No.")]).await;
    assert!(ran.last_messages().iter().all(|text| !text.contains('\r')));
    assert!(ran.events().any(|e| matches!(e, Event::Cut { why: CutReason::Unchanged, .. })));
}

#[tokio::test]
async fn a_file_without_a_final_newline_does_not_get_one() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    world.files.lock().unwrap().insert("calc.py".into(), "def add(a, b):\n    return a - b".into());
    let ran = world.run("t", vec![says("```python\ndef add(a, b):\n    return a + b\n```\n")]).await;
    assert_eq!(ran.files["calc.py"], FIXED.trim_end());
}

#[tokio::test]
async fn a_shell_script_is_taken_from_a_block_labeled_as_shell() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    world.verified = false;
    world.files.lock().unwrap().clear();
    world.files.lock().unwrap().insert("greet.sh".into(), "echo helo\n".into());
    let ran = world.run("greet.sh misspells hello", vec![says("```sh\necho hello\n```\n")]).await;
    assert_eq!(ran.files["greet.sh"], "echo hello\n");
}

#[tokio::test]
async fn a_line_where_a_small_model_was_unsure_is_requested_again() {
    let ran = world_with_branches()
        .run("Fix the sum.", vec![unchanged_and_unsure(&[(" +", -0.8), (" #", -0.1)]), says(" b")])
        .await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert_eq!(ran.files["calc.py"], FIXED);
    assert_eq!(ran.requests[0].alternatives, 6);
    let line = &ran.requests[1];
    assert_eq!(line.max_tokens, 120);
    assert_eq!(line.messages.last().unwrap().content, "```python\ndef add(a, b):\n    return a +");
    assert_eq!(line.messages[..1], ran.requests[0].messages[..1], "the prefix is in the server's cache");
}

#[tokio::test]
async fn branches_that_do_not_help_leave_the_tree_unchanged() {
    let world = world_with_branches();
    let before = world.files.lock().unwrap().clone();
    let ran = world
        .run(
            "t",
            vec![unchanged_and_unsure(&[(" *", -0.8), (" /", -1.0)]), says(" b"), says(" b"), says("No.")],
        )
        .await;
    assert_eq!((ran.report.ending, ran.files, ran.requests.len()), (Ending::GaveUp, before, 4));
}

#[tokio::test]
async fn the_journal_has_the_alternatives_so_that_a_replay_can_try_them() {
    let ran = world_with_branches().run("t", vec![unchanged_and_unsure(&[(" +", -0.8)]), says(" b")]).await;
    let doubts = ran
        .events()
        .find_map(|e| if let Event::Output { doubts, .. } = e { Some(doubts.clone()) } else { None })
        .unwrap();
    assert_eq!((doubts.len(), doubts[0].chosen.as_str(), doubts[0].other.as_str()), (1, " -", " +"));
}

#[tokio::test]
async fn an_answer_is_cut_after_its_first_call_and_the_conversation_has_the_bytes_up_to_there() {
    let ran = world()
        .run(
            "t",
            vec![says(&format!("{READ} and then I will\n{FIX}")), says(FINISH), says(FIX), says(FINISH)],
        )
        .await;
    assert_eq!(ran.requests[1].messages[2].content, READ);
    assert!(
        ran.events()
            .any(|e| matches!(e, Event::Cut { why: CutReason::Call, at, .. } if *at == READ.len() as u64))
    );
}

#[tokio::test]
async fn all_calls_of_an_answer_run_in_order_if_it_is_not_cut() {
    let mut world = world();
    world.settings.cut = Cut::ReadOn;
    let ran = world.run("t", vec![says(&format!("{READ}\n{FIX}\n{READ}")), says(FINISH)]).await;
    let finished: Vec<_> = ran
        .events()
        .filter_map(|e| if let Event::ToolFinished { text, .. } = e { Some(text.as_str()) } else { None })
        .collect();
    assert_eq!(finished[..3], ["def add(a, b):\n    return a - b\n", "calc.py written", FIXED]);
    assert_eq!(ran.report.ending, Ending::Verified);
}

#[tokio::test]
async fn an_unknown_tool_is_refused_before_its_arguments_are_written() {
    let ran = world()
        .run(
            "t",
            vec![
                says(r#"{"tool": "teleport", "arguments": {"path": "calc.py", "text": "long"}}"#),
                says(FINISH),
                says(FIX),
                says(FINISH),
            ],
        )
        .await;
    assert!(
        ran.last_messages()[1].contains("the tools are read_file, apply_patch, finish"),
        "{}",
        ran.last_messages()[1]
    );
    let sent = &ran.requests[1].messages[2].content;
    assert!(sent.len() < 45, "the answer should be cut at once: {sent}");
    assert!(ran.events().any(|e| matches!(e, Event::Refused { early: true, .. })));
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_refused_while_the_call_is_open() {
    let ran = world()
        .run(
            "t",
            vec![
                says(r#"{"tool": "read_file", "arguments": {"path": "clac.py", "more": 1}}"#),
                says(FIX),
                says(FINISH),
            ],
        )
        .await;
    assert!(ran.last_messages()[1].contains("the nearest is \"calc.py\""), "{}", ran.last_messages()[1]);
    assert!(!ran.requests[1].messages[2].content.contains("more"));
}

#[tokio::test]
async fn the_tokens_that_a_refusal_saved_are_estimated_from_similar_calls() {
    let long = |path: &str| {
        format!(
            r#"{{"tool": "apply_patch", "arguments": {{"path": {path}, "content": "{}"}}}}"#,
            "x = 1\\n".repeat(200)
        )
    };
    let ran =
        world().run("t", vec![says(&long("\"new.py\"")), says(&long("7")), says(FIX), says(FINISH)]).await;
    assert!(ran.report.totals.saved_tokens > 200, "{:?}", ran.report.totals);
}

#[tokio::test]
async fn prose_is_corrected_a_bounded_number_of_times() {
    let ran = world().run("t", (0..9).map(|i| says(&format!("I think {i}."))).collect()).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::GaveUp, 5));
    let ran = world().run("t", vec![says("Let me see."), says(READ), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
}

#[tokio::test]
async fn a_repeated_unusable_answer_is_requested_again_at_a_higher_temperature() {
    let ran =
        world().run("t", vec![says("Sure!"), says("Sure!"), says("Sure!"), says(FIX), says(FINISH)]).await;
    let temperatures: Vec<_> = ran.requests.iter().map(|r| r.temperature.unwrap()).collect();
    assert_eq!(temperatures[..2], [0.0, 0.0]);
    assert!(temperatures[2] > 0.0 && temperatures[3] > temperatures[2], "{temperatures:?}");
    assert_eq!(temperatures[4], 0.0);
}

#[tokio::test]
async fn an_unusable_answer_given_twice_is_removed_from_the_conversation() {
    // Seen with a 1.5B model: it copied its own refused call five times, the last time at
    // temperature 1.
    let bad = r#"{"tool": "apply_patch", "arguments": {"path": "calc.py"}}"#;
    let ran =
        world().run("t", vec![says(READ), says(bad), says(bad), says(bad), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    let last = &ran.requests[4].messages;
    assert!(!last.iter().any(|m| m.content == bad), "{last:?}");
    let told = &last.last().unwrap().content;
    assert!(
        told.starts_with("read_file calc.py: ok") && told.contains("\"content\" is a required property"),
        "{told}"
    );
    assert_eq!(
        ran.requests[3].messages[..3],
        ran.requests[1].messages[..3],
        "the prefix is in the server's cache"
    );
}

#[tokio::test]
async fn a_call_repeated_in_vain_is_sampled_again_and_then_removed_from_the_conversation() {
    let replies = [READ, READ, READ, READ, FIX, FINISH];
    let ran = world().run("t", replies.map(says).into()).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    let sampled: Vec<_> = ran.requests.iter().map(|r| (r.temperature.unwrap(), r.seed)).collect();
    assert_eq!(sampled[1], (0.0, None));
    assert_eq!(sampled[2], (0.35, Some(2)), "after the first repetition");
    // After the second repetition, the conversation starts over, with one line about the repeated
    // call.
    let told = &ran.requests[3].messages;
    assert!(told.len() == 2 && told[1].content.starts_with(&*ran.requests[0].messages[1].content));
    let line = "You have made this read_file call 3 times with the same result. Try something different.";
    assert_eq!(told[1].content.matches(line).count(), 1, "{}", told[1].content);
    assert!(told[1].content.contains("read_file calc.py: ok\n"), "the result is kept: {}", told[1].content);
    assert!(ran.events().any(|e| matches!(e, Event::Rewound { keep: 1, .. })));
    let ran = world().run("t", (0..9).map(|_| says(READ)).collect()).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::GaveUp, 5));
}

#[tokio::test]
async fn repeatedly_refused_calls_end_the_run() {
    let bad = |i: usize| {
        says(&format!(
            r#"{{"tool": "apply_patch", "arguments": {{"path": "calc.py", "content": "{i}", "x{i}": 1}}}}"#
        ))
    };
    let ran = world().run("t", (0..20).map(bad).collect()).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::GaveUp, 5));
}

#[tokio::test]
async fn finish_is_refused_while_the_verification_fails_and_accepted_as_unverified_in_the_end() {
    let ran = world().run("t", vec![says(FINISH), says(FINISH), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Unverified);
    assert!(ran.last_messages()[1].contains("Not finished yet"), "{}", ran.last_messages()[1]);
    assert!(ran.last_messages()[1].contains("test_add: 3 != -1"));
}

#[tokio::test]
async fn without_a_verification_finish_ends_the_run_unverified() {
    let mut world = world();
    world.verified = false;
    let ran = world.run("t", vec![says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Unverified);
}

fn green() -> support::World {
    let world = world();
    world.files.lock().unwrap().insert("calc.py".into(), FIXED.into());
    world
}

#[tokio::test]
async fn a_model_that_changed_nothing_gets_one_reminder_and_the_run_is_not_verified() {
    let refused = r#"{"tool": "read_file", "arguments": {"path": "nowhere.py"}}"#;
    for answers in [vec![says(FINISH), says(FINISH)], vec![says(refused), says(FINISH), says(FINISH)]] {
        let asked = answers.len();
        let ran = green().run("t", answers).await;
        assert_eq!((ran.report.ending.clone(), ran.requests.len()), (Ending::NoChange, asked));
        assert_eq!(ran.report.ending.exit_code(), 1);
        assert_eq!(ran.report.message, "added instead of subtracting", "an answer to a question is kept");
        let told = ran.last_messages();
        assert!(told.last().unwrap().starts_with("Nothing in the repository was changed"), "{told:?}");
    }
    let mut unverified = green();
    unverified.verified = false;
    let ran = unverified.run("t", vec![says(FINISH), says(r#"{"tool": "finish", "arguments": {}}"#)]).await;
    assert_eq!(ran.report.ending, Ending::NoChange);
    assert_eq!(ran.report.message, "added instead of subtracting", "the first summary should be kept");
}

#[tokio::test]
async fn a_model_may_still_make_the_change_after_the_reminder() {
    let more = FIX.replace("a + b\\n", "a + b  # half\\n");
    let ran = green().run("t", vec![says(FINISH), says(&more), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
}

#[tokio::test]
async fn a_reverted_change_is_no_change() {
    let more = FIX.replace("a + b\\n", "a + b  # half\\n");
    let ran = green().run("t", vec![says(&more), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::NoChange);
}

#[tokio::test]
async fn finish_together_with_a_refused_call_is_not_accepted() {
    let mut world = green();
    world.settings.cut = Cut::ReadOn;
    let ran = world.run("t", vec![says(&format!("{FIX}\n{FINISH}")), says(FINISH), says(FINISH)]).await;
    assert_eq!((ran.report.ending, ran.requests.len()), (Ending::NoChange, 3));
}

#[tokio::test]
async fn a_model_that_repeats_itself_after_the_verification_passes_is_done() {
    let ran = world().run("t", vec![says(FIX), says(FIX), says(FIX), says(FIX), says(FIX), says(FIX)]).await;
    assert_eq!(ran.report.ending, Ending::Verified, "{}", ran.report.message);
    assert!(ran.report.message.starts_with("the verification passes now"), "{}", ran.report.message);
}

#[tokio::test]
async fn a_file_returned_unchanged_while_the_verification_passes_is_no_change() {
    let mut world = green();
    world.settings.approach = Approach::WholeFile;
    world.identity.branches = true;
    let mut deltas = text("```python\ndef add(a, b):\n    return a");
    deltas.push(Delta::Doubt { chosen: " +".into(), others: vec![(" *".into(), -0.1)] });
    deltas.extend(text(" + b\n```\n"));
    let unchanged = "```python\ndef add(a, b):\n    return a + b\n```\n";
    let ran = world.run("t", vec![Reply::Says(deltas), says(unchanged)]).await;
    assert_eq!((&ran.report.ending, ran.files["calc.py"].as_str()), (&Ending::NoChange, FIXED));
    assert_eq!(ran.requests.len(), 2, "no branch should be tried while the verification passes");
    assert!(
        ran.last_messages()[1].contains("Nothing in the repository was changed"),
        "{:?}",
        ran.last_messages()
    );
}

#[tokio::test]
async fn the_part_of_a_continued_line_that_a_server_repeats_is_not_recorded() {
    let repeated = "```python\ndef add(a, b):\n    return a + b";
    let ran =
        world_with_branches().run("t", vec![unchanged_and_unsure(&[(" +", -0.8)]), says(repeated)]).await;
    assert_eq!((&ran.report.ending, ran.files["calc.py"].as_str()), (&Ending::Verified, FIXED));
    let content =
        |e: &Event| if let Event::Output { content, .. } = e { Some(content.clone()) } else { None };
    assert_eq!(ran.events().filter_map(content).last().as_deref(), Some(" b"));
    let shown: String = ran
        .events()
        .filter_map(|e| if let Event::Text { turn: 2, text } = e { Some(text.as_str()) } else { None })
        .collect();
    assert_eq!(shown, " b");
}

#[tokio::test]
async fn equal_calls_with_equal_results_get_a_warning_and_then_end_the_run() {
    let ran = world().run("t", (0..9).map(|_| says(READ)).collect()).await;
    assert_eq!(ran.report.ending, Ending::GaveUp);
    assert!(ran.last_messages()[3].contains("3 times with the same result"), "{}", ran.last_messages()[3]);
    assert_eq!(ran.requests.len(), 5);
}

#[tokio::test]
async fn the_verification_of_a_candidate_may_not_take_much_longer_than_before() {
    let mut world = world_with_branches();
    world.graded = true;
    let ran =
        world.run("t", vec![unchanged_and_unsure(&[(" hang", -0.8)]), says("(a, b)"), says("No.")]).await;
    let texts: Vec<_> = ran
        .events()
        .filter_map(|e| if let Event::Checked(check) = e { Some(check.text.as_str()) } else { None })
        .collect();
    assert_eq!(texts, ["3 failed", "stopped after Some(30s)"]);
}

#[tokio::test]
async fn whole_file_attempts_that_do_not_help_leave_the_tree_unchanged() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    let before = world.files.lock().unwrap().clone();
    let wrong = |c: char| says(&format!("```python\ndef add(a, b):\n    return a {c} b\n```\n"));
    let ran = world.run("t", vec![wrong('*'), wrong('/'), wrong('%'), wrong('^')]).await;
    assert_eq!(ran.report.ending, Ending::GaveUp);
    assert_eq!(ran.files, before);
    assert!(ran.report.diff.files.is_empty());
}

#[tokio::test]
async fn a_whole_file_run_switches_to_tools_after_a_tool_call() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    let ran = world.run("t", vec![says(READ), says(FIX), says(FINISH)]).await;
    assert_eq!(ran.report.ending, Ending::Verified);
    assert!(ran.last_messages()[1].contains("Tools, with the JSON Schema"), "{}", ran.last_messages()[1]);
}

#[tokio::test]
async fn a_snippet_before_the_whole_file_is_skipped() {
    let mut world = world();
    world.settings.approach = Approach::WholeFile;
    let answer =
        "The bug:\n```python\na - b\n```\nFixed:\n```python\ndef add(a, b):\n    return a + b\n```\n";
    let ran = world.run("t", vec![says(answer)]).await;
    assert_eq!((ran.report.ending, ran.files["calc.py"].as_str()), (Ending::Verified, FIXED));
}

#[tokio::test]
async fn a_prompt_that_outgrows_the_window_is_compacted_once_and_keeps_the_task() {
    let mut world = world();
    world.identity.window = Some(4_096);
    world.settings.max_answer_tokens = 512;
    let big = "x = 1  # filler\n".repeat(200);
    world.files.lock().unwrap().insert("big.py".into(), big);
    world.files.lock().unwrap().insert("more.py".into(), "y = 2  # filler\n".repeat(180));
    let read = |path: &str| says(&format!(r#"{{"tool": "read_file", "arguments": {{"path": "{path}"}}}}"#));
    let ran = world
        .run(
            "Remember the task.",
            vec![read("big.py"), read("more.py"), read("big.py"), read("more.py"), says(FIX), says(FINISH)],
        )
        .await;
    assert_eq!(ran.report.ending, Ending::Verified, "{}", ran.report.message);
    assert!(ran.events().any(|e| matches!(e, Event::Rewound { .. })));
    assert!(ran.requests.iter().all(|r| r.messages[1].content.contains("Remember the task.")));
}

#[tokio::test]
async fn an_overflow_that_compaction_cannot_fix_ends_the_run_with_advice() {
    let overflow = || {
        Reply::Fails(Error::Overflow {
            message: "too long".into(),
            prompt_tokens: Some(9000),
            window: Some(4096),
        })
    };
    let ran = world().run("t", vec![overflow(), overflow(), overflow(), overflow()]).await;
    assert_eq!(ran.report.ending, Ending::GaveUp);
    assert!(ran.report.message.contains("--num-ctx"), "{}", ran.report.message);
}

#[tokio::test]
async fn a_repetition_loop_in_the_answer_is_cut() {
    let ran =
        world().run("t", vec![says(&"Let me run it again. ".repeat(200)), says(FIX), says(FINISH)]).await;
    assert!(ran.events().any(|e| matches!(e, Event::Cut { why: CutReason::Repetition, .. })));
    assert!(ran.last_messages()[1].contains("repeats itself"));
}

#[tokio::test]
async fn an_effect_is_journaled_before_it_happens() {
    let ran = world().run("t", vec![says(FIX), says(FINISH)]).await;
    let names: Vec<String> = ran
        .records
        .iter()
        .map(|r| serde_json::to_value(&r.event).unwrap()["event"].as_str().unwrap().to_owned())
        .filter(|n| n != "text")
        .collect();
    insta::assert_snapshot!(names.join(" "));
}
