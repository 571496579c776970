//! The form of edits that a model is asked for: what decides it, and that every other form is still taken.

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::json;

/// The line of the system prompt that describes the editing tool, in a run that ends at once. Checks that an edit in yet another form
/// than the one asked for is taken.
fn asked_for(world: &World, flags: &[&str]) -> String {
    let server = Server::start();
    let patch = "*** Begin Patch\n*** Update File: add.sh\n@@\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n*** End Patch";
    server.enqueue(Reply::text(call("apply_patch", json!({ "patch": patch }))));
    server.enqueue(Reply::text(call("finish", json!({}))));
    let mut arguments = vec!["run", "--dry-run", "--model", "deepseek-coder:6.7b", "--dialect", "json"];
    arguments.extend(flags);
    arguments.push("Make the tests pass.");
    let output = world.agent(&arguments).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let chats = server.chats();
    let system = chats[0].messages()[0]["content"].as_str().unwrap();
    system.lines().find(|line| line.starts_with("apply_patch: ")).unwrap().to_owned()
}

#[test]
fn the_editing_tool_is_described_in_the_form_that_was_set() {
    let world = World::with_a_bug();
    let all = asked_for(&world, &["--edit-form", "all"]);
    assert!(
        all.contains("*** Begin Patch") && all.contains("\"edits\"") && all.contains("\"content\""),
        "{all}"
    );
    let diff = asked_for(&world, &["--edit-form", "unified-lines"]);
    assert!(diff.contains(r#"{"patch":["--- a/"#) && !diff.contains("\"edits\""), "{diff}");
    let file = asked_for(&world, &["--edit-form", "whole-file"]);
    assert!(
        file.contains(r#"{"path":"#) && !file.contains("\"patch\"") && file.len() * 2 < all.len(),
        "{file}"
    );
}

#[test]
fn a_repository_may_set_the_form_and_a_flag_overrules_it() {
    let world = World::with_a_bug();
    let settings = world.read(".agent.toml");
    world.write(".agent.toml", &format!("{settings}\nedit_form = 'search-replace'\n"));
    assert!(asked_for(&world, &[]).contains("<<<<<<< SEARCH"));
    assert!(asked_for(&world, &["--edit-form", "envelope"]).contains("*** Update File"));
}
