//! The edit format described in the prompt. A setting selects it, but all other formats still work.

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::json;

/// Returns the line of the system prompt that describes the editing tool. Also checks that a patch
/// in the envelope format is applied, regardless of which format the prompt describes.
fn asked_for(world: &World, flags: &[&str]) -> String {
    let server = Server::start();
    let patch = "*** Begin Patch\n*** Update File: add.sh\n@@\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n*** End Patch";
    server.enqueue(Reply::text(call("apply_patch", json!({ "patch": patch }))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let mut arguments = vec!["run", "--dry-run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    arguments.extend(flags);
    arguments.push("Make the tests pass.");
    let output = world.agent(&arguments).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let chats = server.chats();
    let system = chats[0].messages()[0]["content"].as_str().unwrap();
    system.lines().find(|line| line.starts_with("apply_patch: ")).unwrap().to_owned()
}

#[test]
fn the_editing_tool_is_described_in_the_format_that_is_set() {
    let world = World::with_a_bug();
    let edits = asked_for(&world, &[]);
    assert!(edits.contains("\"edits\"") && !edits.contains("\"patch\""), "{edits}");
    let diff = asked_for(&world, &["--edit-format", "unified"]);
    assert!(diff.contains(r#"{"patch":"--- a/"#) && !diff.contains("\"edits\""), "{diff}");
    let file = asked_for(&world, &["--edit-format", "whole-file"]);
    assert!(file.contains(r#"{"path":"#) && !file.contains("\"patch\""), "{file}");
}

#[test]
fn a_repository_may_set_the_format_and_a_flag_overrides_it() {
    let world = World::with_a_bug();
    let settings = world.read(".agent.toml");
    world.write(".agent.toml", &format!("{settings}\nedit_format = 'search-replace'\n"));
    assert!(asked_for(&world, &[]).contains("<<<<<<< SEARCH"));
    assert!(asked_for(&world, &["--edit-format", "envelope"]).contains("*** Update File"));
}
