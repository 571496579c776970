//! Checks that a run of two thousand turns in a single process does not leak memory or file
//! descriptors, and leaves no processes behind.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::json;

const TURNS: usize = 2_000;

/// Returns the answer for turn `n`. The turns cycle through reads, searches, edits, mistakes,
/// commands and test runs.
fn answer(n: usize) -> String {
    let round = n / 8;
    match n % 8 {
        0 => call("read_file", json!({"path": "count.txt", "start_line": 1 + round % 50})),
        1 => call(
            "apply_patch",
            json!({"edits": [{"path": "count.txt", "search": format!("round {round}\n"), "replace": format!("round {}\n", round + 1)}]}),
        ),
        2 => call("run_command", json!({"command": format!("(sleep 1000 &) ; seq {round} {}", round + 400)})),
        3 => call("search", json!({"pattern": format!("line {}", round % 90)})),
        4 => call(
            "apply_patch",
            json!({"patch": format!("--- a/count.txt\n+++ b/count.txt\n@@ -1 +1 @@\n-nowhere {round}\n+x\n")}),
        ),
        5 => call(
            "apply_patch",
            json!({"path": format!("made/{round}.txt"), "content": format!("{round}\n").repeat(200)}),
        ),
        6 => call(
            "apply_patch",
            json!({"patch": format!("*** Begin Patch\n*** Delete File: made/{round}.txt\n*** End Patch\n")}),
        ),
        _ => call("run_tests", json!({})),
    }
}

/// A sample of a process: resident memory in KiB, open descriptors and children.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: usize,
    descriptors: usize,
    children: usize,
}

fn sample(pid: u32) -> Sample {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let children = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| {
        let children = fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default();
        children.split_whitespace().count()
    });
    Sample {
        memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        children: children.sum(),
    }
}

#[test]
#[ignore = "takes a minute; scripts/test runs it as a step of its own"]
fn two_thousand_turns_leak_no_memory_descriptors_or_processes() {
    let lines: String = (1..=100).map(|n| format!("line {n}\n")).collect();
    let world = World::with(&[
        (".agent.toml", "verify = 'sh check.sh'\n"),
        ("count.txt", &format!("round 0\n{lines}")),
        ("check.sh", "cat count.txt; exit 1\n"),
    ]);
    let server = Server::start();
    let (pid, turn) = (Arc::new(AtomicU32::new(0)), AtomicUsize::new(0));
    let samples = Arc::new(Mutex::new(Vec::new()));
    {
        let (pid, samples) = (Arc::clone(&pid), Arc::clone(&samples));
        server.fallback(Reply::from_fn(move |_| {
            let turn = turn.fetch_add(1, Ordering::SeqCst);
            if turn % 100 == 0 && turn > 0 {
                samples.lock().unwrap().push(sample(pid.load(Ordering::SeqCst)));
            }
            Reply::text(answer(turn))
        }));
    }
    let max_turns = format!("--max-turns={TURNS}");
    let args = [
        "run",
        "--quiet",
        "--model",
        "deepseek-coder:6.7b",
        "--approach",
        "tools",
        "--num-ctx=8192",
        &max_turns,
        "Count.",
    ];
    let child = world
        .agent(&args)
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    pid.store(child.id(), Ordering::SeqCst);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("turn budget reached"), "{text}");
    assert_eq!(world.journal().last().unwrap()["totals"]["turns"], json!(TURNS));
    assert_eq!(world.read("count.txt").lines().next(), Some(format!("round {}", TURNS / 8).as_str()));
    let samples = samples.lock().unwrap();
    let (early, late) = (&samples[1..6], &samples[samples.len() - 5..]);
    let most = |samples: &[Sample], of: fn(&Sample) -> usize| samples.iter().map(of).max().unwrap();
    // The conversation varies in length, so growth of up to 20 % is normal. A leak of 1 KiB per
    // turn would exceed that.
    let (before, after) = (most(early, |s| s.memory), most(late, |s| s.memory));
    assert!(after <= before + before / 5, "resident memory grew from {before} to {after} KiB: {samples:#?}");
    assert!(most(late, |s| s.descriptors) <= most(early, |s| s.descriptors), "{samples:#?}");
    assert_eq!(most(&samples, |s| s.children), 0, "{samples:#?}");
    assert_eq!(left_over(&world), Vec::<String>::new());
}

/// Returns the processes that the run's commands left behind. These are processes whose environment
/// mentions this world's home folder, or whose working directory is this world's repository.
fn left_over(world: &World) -> Vec<String> {
    let home = world.home().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path());
    let ours = processes.filter(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let directory = fs::read_link(process.join("cwd")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&home) || directory == world.repo()
    });
    ours.map(|process| format!("{}: {:?}", process.display(), fs::read_to_string(process.join("comm"))))
        .collect()
}
