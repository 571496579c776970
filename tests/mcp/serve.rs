//! `agent mcp serve`: the agent as an MCP server for other agents.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout};

use super::*;

/// A client of `agent mcp serve`.
struct Client {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    number: u64,
}

impl Client {
    fn start(world: &World, server: Option<&Server>) -> Self {
        let mut command = world.agent(&["mcp", "serve"]);
        if let Some(server) = server {
            command.env("OLLAMA_HOST", server.url()).env("AGENT_MODEL", "deepseek-coder:6.7b");
            command.env("AGENT_APPROACH", "tools");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut client = Self { child, lines, number: 0 };
        let about = json!({"name": "test", "version": "1"});
        let hello = client.ask(
            "initialize",
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about}),
        );
        assert_eq!(client.answer(hello)["serverInfo"]["name"], "agent");
        client.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    fn send(&mut self, message: Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.number += 1;
        self.send(json!({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params}));
        self.number
    }

    /// Returns the next message. Each line is one message.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    /// Waits for the response to a request, and returns its result or error.
    fn answer(&mut self, number: u64) -> Value {
        loop {
            let message = self.next();
            if message["id"] == number {
                return if message["error"].is_null() {
                    message["result"].clone()
                } else {
                    message["error"].clone()
                };
            }
        }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let number = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        self.answer(number)
    }
}

const PATCH: &str = "--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n }\n";

#[test]
fn other_agents_apply_and_preview_patches() {
    let world = World::with_a_bug();
    let mut client = Client::start(&world, None);
    let list = client.ask("tools/list", json!({}));
    let tools = client.answer(list);
    let names: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["run", "batch", "apply_patch", "preview"]);
    let seen = client.call("preview", json!({"patch": PATCH}));
    assert!(seen["content"][0]["text"].as_str().unwrap().contains("+    echo $(($1 + $2))"), "{seen}");
    assert!(world.read("add.sh").contains("$1 - $2"));
    let seen = client.call("apply_patch", json!({"patch": PATCH}));
    assert_eq!(seen["structuredContent"]["applied"], true, "{seen}");
    assert!(world.read("add.sh").contains("$1 + $2"));
    let seen = client.call("apply_patch", json!({"patch": PATCH}));
    assert_eq!(
        (&seen["isError"], &seen["structuredContent"]["applied"]),
        (&json!(true), &json!(false)),
        "{seen}"
    );
    for (arguments, why) in [
        (json!({"patch": PATCH, "directory": ".."}), "outside the folder of this server"),
        (json!({"patch": PATCH, "directory": "nowhere"}), "cannot open"),
        (json!({"patch": 3}), "must be a non-empty string"),
        (json!({"patch": PATCH, "force": true}), "has no argument"),
        (json!({}), "needs the argument"),
    ] {
        let seen = client.call("apply_patch", arguments);
        assert!(seen["message"].as_str().unwrap().contains(why), "{seen}");
    }
    assert!(client.call("rm", json!({}))["message"].as_str().unwrap().contains("unknown tool"));
    drop(client.child.stdin.take());
    assert!(client.child.wait().unwrap().success(), "the server ends with its input");
}

#[test]
fn other_agents_run_a_task_and_see_its_progress() {
    let (world, server) = (World::with_a_bug(), Server::start());
    [fix(), finish()].into_iter().for_each(|answer| server.enqueue(Reply::text(answer)));
    let mut client = Client::start(&world, Some(&server));
    let arguments = json!({"task": "Make the tests pass.", "dry_run": true});
    let number = client
        .ask("tools/call", json!({"name": "run", "arguments": arguments, "_meta": {"progressToken": "p"}}));
    let (mut told, mut last) = (Vec::new(), 0.0);
    let result = loop {
        let message = client.next();
        if message["id"] == number {
            break message["result"].clone();
        }
        assert_eq!(
            (&message["method"], &message["params"]["progressToken"]),
            (&json!("notifications/progress"), &json!("p"))
        );
        let now = message["params"]["progress"].as_f64().unwrap();
        assert!(now > last);
        last = now;
        told.push(message["params"]["message"].as_str().unwrap().to_owned());
    };
    assert!(told[0].starts_with("session "), "{told:?}");
    for part in ["turn 1", "calls apply_patch", "verification failed", "verification passed"] {
        assert!(told.iter().any(|line| line == part), "{part}: {told:?}");
    }
    let facts = &result["structuredContent"];
    assert_eq!((&result["isError"], &facts["exit_code"]), (&json!(false), &json!(0)), "{result}");
    assert_eq!(facts["diff"]["files"], json!(["add.sh"]), "{result}");
    assert!(result["content"][0]["text"].as_str().unwrap().contains("+    echo $(($1 + $2))"), "{result}");
    assert!(world.read("add.sh").contains("$1 - $2"), "a dry run changes nothing");
}

#[test]
fn other_agents_run_a_batch() {
    let (world, server) = (World::with_a_bug(), Server::start());
    [fix(), finish()].into_iter().for_each(|answer| server.enqueue(Reply::text(answer)));
    let task =
        json!({"id": "one", "repo": world.repo(), "task": "Make the tests pass.", "verify": "sh check.sh"});
    world.write("tasks.jsonl", &format!("{task}\n"));
    let mut client = Client::start(&world, Some(&server));
    let seen = client.call("batch", json!({"tasks": "tasks.jsonl"}));
    assert_eq!(seen["structuredContent"]["exit_code"], 0, "{seen}");
    let seen = client.call("batch", json!({"tasks": "../tasks.jsonl"}));
    assert!(seen["message"].is_string(), "{seen}");
}

/// Starts a run, waits until it reports its first turn, and returns the id of the client's request.
fn waiting(client: &mut Client, server: &Server) -> u64 {
    server.enqueue(Reply::empty().hold());
    let arguments = json!({"task": "Make the tests pass."});
    let number = client
        .ask("tools/call", json!({"name": "run", "arguments": arguments, "_meta": {"progressToken": 1}}));
    while client.next()["params"]["message"] != "turn 1" {}
    number
}

fn ending(world: &World) -> Value {
    world.journal().last().unwrap().clone()
}

#[test]
fn a_canceled_call_ends_the_run_as_interrupted() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let mut client = Client::start(&world, Some(&server));
    let number = waiting(&mut client, &server);
    client.send(
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}),
    );
    // Once the server has exited, the journal of the canceled run is complete.
    drop(client.child.stdin.take());
    assert!(client.child.wait().unwrap().success());
    assert_eq!(ending(&world)["ending"]["kind"], "interrupted", "{}", ending(&world));
}

#[test]
fn a_run_ends_with_its_client_even_if_the_server_is_killed() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let mut client = Client::start(&world, Some(&server));
    waiting(&mut client, &server);
    drop(client.child.stdin.take());
    assert!(client.child.wait().unwrap().success());
    assert_eq!(ending(&world)["event"], "finished");

    let (world, server) = (World::with_a_bug(), Server::start());
    let mut client = Client::start(&world, Some(&server));
    waiting(&mut client, &server);
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    while ending(&world)["event"] != "finished" {
        std::thread::yield_now(); // the kernel has sent SIGTERM to the run
    }
}
