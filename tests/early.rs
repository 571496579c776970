//! If the edit in an answer cannot be applied, the agent cuts the answer off while the model is
//! still writing it.

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

/// Returns the recorded content of each answer. A refused answer ends where it was cut off.
fn answers(world: &World) -> Vec<String> {
    let outputs = world.journal().into_iter().filter(|r| r["event"] == "output");
    outputs.map(|r| r["content"].as_str().unwrap().to_owned()).collect()
}

fn run(world: &World, server: &Server) -> Value {
    let args =
        ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "--json", "Make the tests pass."];
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    let last = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
    serde_json::from_str(&last).unwrap()
}

#[test]
fn a_patch_that_matches_nowhere_is_cut_while_it_streams() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let wrong = "--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 * $2))\n+    echo $(($1 + $2))\n";
    let padded = format!("{wrong}{}", "+    # and a good deal more\n".repeat(200));
    let right = wrong.replace('*', "-") + " }\n";
    // Neither of the first two patches matches anywhere.
    for patch in [right.replace("$1 - $2", "$1 / $2") + "junk", padded, right] {
        server.enqueue(Reply::text(call("apply_patch", json!({ "patch": patch }))).split_bytes(9));
    }
    server.enqueue(Reply::text(call("finish", json!({}))));
    let finished = run(&world, &server);
    assert_eq!(finished["ending"]["kind"], "verified", "{finished}");
    let answers = answers(&world);
    assert!(answers[1].ends_with("$2))\\n") || answers[1].contains("* $2))"), "{}", answers[1]);
    assert!(answers[1].len() < 160, "{}", answers[1]);
    let refused: Vec<Value> = world.journal().into_iter().filter(|r| r["event"] == "refused").collect();
    assert!(refused.iter().all(|r| r["early"] == true), "{refused:?}");
    let message = refused[1]["message"].as_str().unwrap();
    assert!(
        message.contains(
            "expected at line 2:\n    echo $(($1 * $2))\nfound:\n1|add() {\n2|    echo $(($1 - $2))"
        ),
        "{message}"
    );
}

#[test]
fn output_saved_by_an_early_cut_is_reported_in_bytes_and_tokens() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let comment = "# a comment\n".repeat(100);
    let edit = |search: &str, replace: String| {
        call("apply_patch", json!({"edits": [{"path": "add.sh", "search": search, "replace": replace}]}))
    };
    for answer in [
        edit("add() {", format!("{comment}add() {{")),
        edit("nowhere(a)\nnowhere(b)\nnowhere(c)\nnowhere(d)\n", comment.clone()),
        edit("$1 - $2", "$1 + $2".into()),
        call("finish", json!({})),
    ] {
        server.enqueue(Reply::text(answer).split_bytes(9));
    }
    let finished = run(&world, &server);
    let (bytes, tokens) = (
        finished["totals"]["saved_bytes"].as_u64().unwrap(),
        finished["totals"]["saved_tokens"].as_u64().unwrap(),
    );
    assert!(bytes > 1_000 && tokens == bytes / 4, "{finished}");
}
