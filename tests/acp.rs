//! `agent acp`: an editor drives the agent over the Agent Client Protocol. The protocol's own
//! client library plays the editor, and the model server is scripted.

mod servers;

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use acp::lines::{self, Backlog};
use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::ConnectionTo;
use agent_client_protocol::v1::schema::{
    CancelNotification, CloseSessionRequest, ContentBlock, InitializeRequest, LoadSessionRequest,
    NewSessionRequest, PromptRequest, RequestPermissionOutcome, RequestPermissionRequest,
    RequestPermissionResponse, SelectedPermissionOutcome, SessionId, SessionNotification,
    SetSessionConfigOptionRequest, SetSessionModeRequest, StopReason, TextContent,
};
use agent_client_protocol::{Agent, Client, Error, Lines, on_receive_notification, on_receive_request};
use fake_model::{Reply, Server};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{World, call};

/// The buggy line of [`World::with_a_bug`], and the fixed one.
const WRONG: &str = "    echo $(($1 - $2))\n";
const RIGHT: &str = "    echo $(($1 + $2))\n";

/// Returns an answer that consists of a single call.
fn reply(tool: &str, arguments: Value) -> Reply {
    Reply::text(call(tool, arguments))
}

/// Returns a call that fixes the bug.
fn fix() -> Reply {
    let edit = json!({"path": "add.sh", "search": WRONG, "replace": RIGHT});
    reply("apply_patch", json!({"edits": [edit]}))
}

fn finish() -> Reply {
    reply("finish", json!({"summary": "add adds"}))
}

/// The updates and permission requests that the editor has received.
#[derive(Clone)]
struct Seen(watch::Receiver<Vec<Value>>);

impl Seen {
    fn all(&self) -> Vec<Value> {
        self.0.borrow().clone()
    }

    /// Waits for a matching update.
    async fn wait_for(&mut self, fits: impl Fn(&Value) -> bool) {
        self.0.wait_for(|seen| seen.iter().any(&fits)).await.unwrap();
    }

    fn of(&self, kind: &str) -> Vec<Value> {
        self.all().into_iter().filter(|update| update["sessionUpdate"] == kind).collect()
    }

    /// Returns the concatenated text of all chunks of this kind.
    fn text(&self, kind: &str) -> String {
        self.of(kind).iter().map(|update| update["content"]["text"].as_str().unwrap()).collect()
    }

    /// Returns the current state of each call with all updates applied, in order of first
    /// appearance.
    fn calls(&self) -> Vec<Value> {
        let mut calls: Vec<Value> = Vec::new();
        for update in self.all() {
            let id = &update["toolCallId"];
            match calls.iter_mut().find(|call| call["toolCallId"] == *id && !id.is_null()) {
                Some(call) => {
                    let fields = update.as_object().unwrap().clone();
                    call.as_object_mut().unwrap().extend(fields);
                }
                None if update["sessionUpdate"] == "tool_call" => calls.push(update),
                None => {}
            }
        }
        calls
    }
}

/// Starts `agent acp` with an editor that answers permission requests with these options, in order.
/// Once `work` is done, closes the connection and returns the agent's exit status.
async fn edit(
    world: &World,
    server: &Server,
    permissions: &[&'static str],
    work: impl AsyncFnOnce(ConnectionTo<Agent>, Seen) -> Result<(), Error>,
) -> ExitStatus {
    let mut agent = world.agent(&["acp", "--model", "deepseek-coder:6.7b", "--approach", "tools"]);
    agent.env("OLLAMA_HOST", server.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = tokio::process::Command::from(agent).kill_on_drop(true).spawn().unwrap();
    let transport = Lines::new(
        lines::outgoing(agent.stdin.take().unwrap(), Backlog::default()),
        lines::incoming(agent.stdout.take().unwrap()),
    );
    let (updates, seen) = watch::channel(Vec::new());
    let (updates, mut permissions) = (Arc::new(updates), VecDeque::from_iter(permissions.iter().copied()));
    let asked = Arc::clone(&updates);
    let done = Client
        .v1()
        .on_receive_notification(
            async move |update: SessionNotification, _| {
                updates.send_modify(|seen| seen.push(serde_json::to_value(&update.update).unwrap()));
                Ok(())
            },
            on_receive_notification!(),
        )
        .on_receive_request(
            async move |request: RequestPermissionRequest, responder, _| {
                asked.send_modify(|seen| seen.push(json!({"asked": request})));
                let Some(option) = permissions.pop_front() else {
                    drop(responder); // simulates an editor that cannot ask
                    return Ok(());
                };
                let outcome = RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option));
                responder.respond(RequestPermissionResponse::new(outcome))
            },
            on_receive_request!(),
        )
        .connect_with(transport, async |connection: ConnectionTo<Agent>| {
            let initialized =
                connection.send_request(InitializeRequest::new(ProtocolVersion::V1)).block_task();
            assert!(initialized.await?.agent_capabilities.load_session);
            work(connection, Seen(seen)).await
        })
        .await;
    done.unwrap();
    agent.wait().await.unwrap()
}

async fn new_session(agent: &ConnectionTo<Agent>, world: &World) -> Result<SessionId, Error> {
    Ok(agent.send_request(NewSessionRequest::new(world.repo())).block_task().await?.session_id)
}

async fn prompt(agent: &ConnectionTo<Agent>, session: &SessionId, text: &str) -> Result<StopReason, Error> {
    let text = ContentBlock::Text(TextContent::new(text));
    let request = PromptRequest::new(session.clone(), vec![text]);
    Ok(agent.send_request(request).block_task().await?.stop_reason)
}

async fn set_mode(agent: &ConnectionTo<Agent>, session: &SessionId, mode: &'static str) -> Result<(), Error> {
    agent.send_request(SetSessionModeRequest::new(session.clone(), mode)).block_task().await?;
    Ok(())
}

#[tokio::test]
async fn a_prompt_streams_text_calls_with_diffs_and_a_summary() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(Reply::text(format!("I will read it.\n{}", call("read_file", json!({"path": "add.sh"})))));
    server.enqueue(fix());
    server.enqueue(finish());
    let status = edit(&world, &server, &[], async |agent, seen| {
        let session = new_session(&agent, &world).await?;
        assert_eq!(prompt(&agent, &session, "Make the tests pass.").await?, StopReason::EndTurn);
        let text = seen.text("agent_message_chunk");
        assert!(text.starts_with("I will read it."), "{text}");
        assert!(!text.contains("\"tool\""), "calls are not text: {text}");
        assert!(text.ends_with("**verified:** add adds\n- `add.sh` (+1 -1)\n"), "{text}");
        let calls = seen.calls();
        let shown: Vec<_> = calls.iter().map(|call| (&call["kind"], &call["status"])).collect();
        let (read, edit, check) = (&calls[1], &calls[2], calls.last().unwrap());
        assert!(shown.iter().skip(1).all(|(_, status)| **status == "completed"), "{shown:?}");
        let path = world.repo().join("add.sh");
        assert_eq!(read["title"], "read_file add.sh");
        assert_eq!(read["locations"][0]["path"], path.to_str().unwrap());
        assert_eq!(edit["kind"], "edit");
        assert_eq!(edit["locations"][0], json!({"path": path, "line": 2}));
        let diff = &edit["content"][0];
        assert_eq!((&diff["type"], &diff["path"]), (&json!("diff"), &json!(path)));
        assert!(diff["oldText"].as_str().unwrap().contains(WRONG));
        assert!(diff["newText"].as_str().unwrap().contains(RIGHT));
        assert_eq!(check["title"], "verify: sh check.sh");
        assert_eq!(seen.of("session_info_update")[0]["title"], "Make the tests pass.");
        Ok(())
    })
    .await;
    assert!(status.success(), "{status}");
    assert!(world.read("add.sh").contains(RIGHT));
}

#[tokio::test]
async fn a_cancelled_prompt_ends_as_cancelled_and_the_session_goes_on() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(Reply::text("Let me think about it. ").gate("never").more("and so on"));
    server.enqueue(fix());
    server.enqueue(finish());
    edit(&world, &server, &[], async |agent, mut seen| {
        let session = new_session(&agent, &world).await?;
        let cancel = async {
            seen.wait_for(|update| update["content"]["text"].as_str().is_some_and(|t| t.contains("think")))
                .await;
            agent.send_notification(CancelNotification::new(session.clone())).unwrap();
        };
        let (reason, ()) = tokio::join!(prompt(&agent, &session, "Make the tests pass."), cancel);
        assert_eq!(reason?, StopReason::Cancelled);
        assert_eq!(prompt(&agent, &session, "Go on.").await?, StopReason::EndTurn);
        Ok(())
    })
    .await;
    assert!(world.read("add.sh").contains(RIGHT));
    let last = server.chats().pop().unwrap();
    assert!(last.json.to_string().contains("Go on."), "the second prompt continues the session");
}

#[tokio::test]
async fn the_second_prompt_continues_the_session_and_another_process_can_load_it() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(fix());
    server.enqueue(finish());
    server.enqueue(reply("finish", json!({"summary": "nothing else"})));
    server.enqueue(reply("finish", json!({"summary": "nothing else"})));
    let mut first = SessionId::new("");
    edit(&world, &server, &[], async |agent, _| {
        first = new_session(&agent, &world).await?;
        prompt(&agent, &first, "Make the tests pass.").await?;
        prompt(&agent, &first, "Is that all?").await?;
        Ok(())
    })
    .await;
    let last = server.chats().pop().unwrap().json.to_string();
    assert!(last.contains("Make the tests pass.") && last.contains("Is that all?"), "{last}");
    server.enqueue(reply("finish", json!({"summary": "still nothing"})));
    server.enqueue(reply("finish", json!({"summary": "still nothing"})));
    edit(&world, &server, &[], async |agent, seen| {
        let load = LoadSessionRequest::new(first.clone(), world.repo());
        let loaded = agent.send_request(load).block_task().await?;
        assert_eq!(&*loaded.modes.unwrap().current_mode_id.0, "run");
        assert_eq!(seen.text("user_message_chunk"), "Make the tests pass.Is that all?");
        let edits = seen.calls().into_iter().filter(|call| call["kind"] == "edit");
        let edits: Vec<_> = edits.map(|call| call["content"][0]["newText"].clone()).collect();
        assert_eq!(edits.len(), 1);
        assert!(edits[0].as_str().unwrap().contains(RIGHT));
        prompt(&agent, &first, "And now?").await?;
        Ok(())
    })
    .await;
    let last = server.chats().pop().unwrap().json.to_string();
    assert!(last.contains("Make the tests pass.") && last.contains("And now?"), "{last}");
}

#[tokio::test]
async fn in_the_ask_mode_the_editor_decides_about_each_call() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(reply("read_file", json!({"path": "add.sh"})));
    server.enqueue(fix());
    server.enqueue(fix());
    server.enqueue(finish());
    edit(&world, &server, &["reject_once", "allow_once"], async |agent, seen| {
        let session = new_session(&agent, &world).await?;
        set_mode(&agent, &session, "ask").await?;
        assert_eq!(prompt(&agent, &session, "Make the tests pass.").await?, StopReason::EndTurn);
        let asked: Vec<_> = seen.all().into_iter().filter(|seen| !seen["asked"].is_null()).collect();
        assert_eq!(asked.len(), 2, "reading needs no permission");
        let call = &asked[0]["asked"]["toolCall"];
        assert!(call["content"][0]["newText"].as_str().unwrap().contains(RIGHT), "{call}");
        let ids: Vec<_> = seen.calls().iter().map(|call| call["toolCallId"].clone()).collect();
        assert!(ids.contains(&call["toolCallId"]), "the editor knows the call: {call}");
        let kinds: Vec<_> =
            asked[0]["asked"]["options"].as_array().unwrap().iter().map(|o| &o["kind"]).collect();
        assert_eq!(kinds, ["allow_once", "allow_always", "reject_once", "reject_always"]);
        Ok(())
    })
    .await;
    assert!(world.read("add.sh").contains(RIGHT));
    let told = server.chats()[2].json.to_string();
    assert!(told.contains("the user rejected this call to apply_patch"), "{told}");
}

#[tokio::test]
async fn an_answer_that_holds_always_is_not_asked_for_again() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let edit_of = |n: u32| reply("apply_patch", json!({"path": format!("{n}.txt"), "content": "x\n"}));
    let command = || reply("run_command", json!({"command": "echo ran > ran.txt"}));
    for answer in [edit_of(1), edit_of(2), command(), command(), fix(), finish()] {
        server.enqueue(answer);
    }
    edit(&world, &server, &["allow_always", "reject_always"], async |agent, seen| {
        let session = new_session(&agent, &world).await?;
        set_mode(&agent, &session, "ask").await?;
        prompt(&agent, &session, "Make the tests pass.").await?;
        assert_eq!(seen.all().iter().filter(|seen| !seen["asked"].is_null()).count(), 2);
        Ok(())
    })
    .await;
    assert_eq!(world.read("2.txt"), "x\n");
    assert!(!world.repo().join("ran.txt").exists());
}

#[tokio::test]
async fn a_call_does_not_run_if_the_editor_cannot_ask_the_user() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(fix());
    server.fallback(reply("finish", json!({"summary": "cannot edit"})));
    edit(&world, &server, &[], async |agent, _| {
        let session = new_session(&agent, &world).await?;
        set_mode(&agent, &session, "ask").await?;
        prompt(&agent, &session, "Make the tests pass.").await?;
        Ok(())
    })
    .await;
    assert!(world.read("add.sh").contains(WRONG));
}

#[tokio::test]
async fn the_dry_modes_show_the_changes_and_leave_the_repository_unchanged() {
    for mode in ["dry-run", "plan"] {
        let (world, server) = (World::with_a_bug(), Server::start());
        server.enqueue(fix());
        server.enqueue(finish());
        server.enqueue(fix());
        server.enqueue(finish());
        edit(&world, &server, &[], async |agent, seen| {
            let session = new_session(&agent, &world).await?;
            set_mode(&agent, &session, mode).await?;
            let options = seen.of("config_option_update");
            assert!(options.iter().any(|update| update["configOptions"][0]["currentValue"] == mode));
            prompt(&agent, &session, "Make the tests pass.").await?;
            let text = seen.text("agent_message_chunk");
            assert!(text.contains("```diff\n") && text.contains("agent apply "), "{text}");
            assert!(world.read("add.sh").contains(WRONG), "{mode}");
            let checks = seen.calls().iter().filter(|call| call["title"] == "verify: sh check.sh").count();
            assert_eq!(checks == 0, mode == "plan", "a plan runs no command");
            // After the mode changes, the request to the model still contains the first prompt.
            set_mode(&agent, &session, "run").await?;
            prompt(&agent, &session, "Do it.").await?;
            Ok(())
        })
        .await;
        assert!(world.read("add.sh").contains(RIGHT));
        let last = server.chats().pop().unwrap().json.to_string();
        assert!(last.contains("Do it.") && last.contains("Make the tests pass."), "{last}");
    }
}

#[tokio::test]
async fn the_user_can_choose_among_the_models_of_the_server() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let name = server
        .models()
        .iter()
        .map(|model| model.name.clone())
        .find(|name| !name.starts_with("deepseek-coder"));
    let name = name.unwrap();
    server.fallback(reply("finish", json!({"summary": "nothing"})));
    edit(&world, &server, &[], async |agent, mut seen| {
        let session = new_session(&agent, &world).await?;
        seen.wait_for(|update| update["sessionUpdate"] == "config_option_update").await;
        let options = seen.of("config_option_update")[0]["configOptions"].to_string();
        assert!(options.contains(&format!("\"ollama:{name}\"")), "{options}");
        let set = SetSessionConfigOptionRequest::new(session.clone(), "model", "nope");
        assert!(agent.send_request(set).block_task().await.is_err());
        let value =
            agent_client_protocol::v1::schema::SessionConfigOptionValue::value_id(format!("ollama:{name}"));
        let set = SetSessionConfigOptionRequest::new(session.clone(), "model", value);
        agent.send_request(set).block_task().await?;
        prompt(&agent, &session, "Look around.").await?;
        Ok(())
    })
    .await;
    assert_eq!(server.chats().pop().unwrap().json["model"], name);
}

#[tokio::test]
async fn two_sessions_cannot_change_one_repository_at_the_same_time() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(Reply::text("Thinking. ").gate("never").more("x"));
    edit(&world, &server, &[], async |agent, mut seen| {
        let (first, second) = (new_session(&agent, &world).await?, new_session(&agent, &world).await?);
        let others = async {
            seen.wait_for(|update| update["content"]["text"].as_str().is_some_and(|t| t.contains("Think")))
                .await;
            let error = prompt(&agent, &second, "Me too.").await.unwrap_err();
            assert!(error.message.contains(&*first.0), "the message names the session: {error:?}");
            let error = prompt(&agent, &first, "Again.").await.unwrap_err();
            assert!(error.message.contains("already running"), "{error:?}");
            // Closing a session stops its prompt.
            agent.send_request(CloseSessionRequest::new(first.clone())).block_task().await.unwrap();
        };
        let (reason, ()) = tokio::join!(prompt(&agent, &first, "Make the tests pass."), others);
        assert_eq!(reason?, StopReason::Cancelled);
        let error = prompt(&agent, &first, "Again.").await.unwrap_err();
        assert!(error.message.contains("there is no session"), "{error:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_never_had_a_prompt_leaves_nothing_behind() {
    let (world, server) = (World::with_a_bug(), Server::start());
    let status = edit(&world, &server, &[], async |agent, _| {
        new_session(&agent, &world).await?;
        let closed = new_session(&agent, &world).await?;
        agent.send_request(CloseSessionRequest::new(closed)).block_task().await?;
        let wrong = NewSessionRequest::new(world.repo().join("nowhere"));
        let error = agent.send_request(wrong).block_task().await.unwrap_err();
        assert!(error.message.contains("there is no folder"), "{error:?}");
        let error = agent.send_request(NewSessionRequest::new("relative")).block_task().await.unwrap_err();
        assert!(error.message.contains("not an absolute path"), "{error:?}");
        Ok(())
    })
    .await;
    assert!(status.success());
    let sessions = world.home().join(".local/state/agent/sessions");
    assert_eq!(std::fs::read_dir(sessions).unwrap().count(), 0);
}

#[tokio::test]
async fn bug_an_open_session_could_not_be_loaded_again_once_64_were_open() {
    let (world, server) = (World::with_a_bug(), Server::start());
    edit(&world, &server, &[], async |agent, _| {
        let first = new_session(&agent, &world).await?;
        for _ in 1..64 {
            new_session(&agent, &world).await?;
        }
        let error = new_session(&agent, &world).await.unwrap_err();
        assert!(error.message.contains("64 sessions are open"), "{error:?}");
        let load = LoadSessionRequest::new(first.clone(), world.repo());
        agent.send_request(load).block_task().await?;
        agent.send_request(CloseSessionRequest::new(first)).block_task().await?;
        new_session(&agent, &world).await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn without_a_model_the_editor_is_told_what_to_set_up() {
    let (world, server) = (World::with_a_bug(), Server::start());
    drop(server);
    let mut agent = world.agent(&["acp"]);
    agent.env("OLLAMA_HOST", "127.0.0.1:9");
    let input = json_rpc(&[
        ("initialize", json!({"protocolVersion": 1, "clientCapabilities": {}})),
        ("authenticate", json!({"methodId": "own-model"})),
        ("authenticate", json!({"methodId": "google"})),
    ]);
    let answers = talk(agent, &input);
    let methods = answers[0]["result"]["authMethods"].as_array().unwrap();
    // The ACP registry accepts only agents with an authentication method that has no type or the
    // type "agent" or "terminal".
    assert!(methods.iter().any(|method| method["type"].is_null() && method["id"].is_string()), "{methods:?}");
    let error = |id: u64| answers.iter().find(|answer| answer["id"] == id).unwrap()["error"].clone();
    assert_eq!(error(1)["code"], -32000);
    assert!(error(1)["message"].as_str().unwrap().contains("DEEPSEEK_API_KEY"), "{}", error(1));
    assert_eq!(error(2)["code"], -32602);
}

/// Returns JSON-RPC requests with ids 0, 1, …, one per line.
fn json_rpc(requests: &[(&str, Value)]) -> String {
    let line = |(id, (method, params)): (usize, &(&str, Value))| {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string() + "\n"
    };
    requests.iter().enumerate().map(line).collect()
}

/// Sends the input line by line, waits for one answer per line, then closes the connection. Returns
/// the messages that have an id.
fn talk(mut agent: std::process::Command, input: &str) -> Vec<Value> {
    use std::io::{BufRead, BufReader, Write};
    let mut agent = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = agent.stdin.take().unwrap();
    let output = BufReader::new(agent.stdout.take().unwrap());
    let messages = output.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let mut answers = messages.filter(|message| message.get("id").is_some());
    // Other requests are refused until the connection is initialized.
    let (first, rest) = input.split_once('\n').unwrap();
    stdin.write_all(format!("{first}\n").as_bytes()).unwrap();
    let first = answers.next().unwrap();
    stdin.write_all(rest.as_bytes()).unwrap();
    let answers = [first].into_iter().chain(answers.take(rest.lines().count())).collect();
    drop(stdin);
    assert!(agent.wait().unwrap().success());
    answers
}

#[test]
fn hostile_messages_are_answered_with_errors_and_the_connection_goes_on() {
    let world = World::with_a_bug();
    let deep = "[".repeat(100_000);
    let huge = "x".repeat(acp::lines::MAX_MESSAGE + 1);
    let text = |id: u64, session: &str| {
        json!({"jsonrpc": "2.0", "id": id, "method": "session/prompt", "params": {
            "sessionId": session, "prompt": [{"type": "text", "text": "x"}],
        }})
        .to_string()
    };
    let lines = [
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":1}}"#.to_owned(),
        "not JSON".into(),
        deep,
        huge,
        "[]".into(),
        r#"{"jsonrpc":"2.0","id":2,"method":"nope","params":{}}"#.into(),
        r#"{"jsonrpc":"2.0","id":3,"method":"session/new","params":{"cwd":17}}"#.into(),
        text(4, "20200101-000000-0000"),
        text(5, "../../../etc"),
        text(6, "last"),
        r#"{"jsonrpc":"2.0","id":7,"method":"session/load","params":{"sessionId":"../x","cwd":"/","mcpServers":[]}}"#.into(),
        r#"{"jsonrpc":"2.0","id":8,"method":"authenticate","params":{"methodId":"\u001b[31m"}}"#.into(),
    ];
    let answers = talk(world.agent(&["acp"]), &(lines.join("\n") + "\n"));
    let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_i64()).collect();
    assert_eq!(codes.len(), lines.len());
    assert_eq!(
        codes.iter().filter(|code| code.is_none()).count(),
        1,
        "only `initialize` succeeds: {codes:?}"
    );
    let of = |id: u64| answers.iter().find(|answer| answer["id"] == id).unwrap()["error"]["code"].as_i64();
    assert_eq!((of(2), of(3), of(4)), (Some(-32601), Some(-32602), Some(-32002)));
}

#[test]
fn a_closed_connection_stops_the_run_and_the_agent_exits_normally() {
    use std::io::{BufRead, BufReader, Write};
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(Reply::text("Thinking. ").gate("never").more("x"));
    let mut agent = world.agent(&["acp", "--model", "deepseek-coder:6.7b", "--approach", "tools"]);
    agent.env("OLLAMA_HOST", server.url());
    let mut agent = agent.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = agent.stdin.take().unwrap();
    let mut output = BufReader::new(agent.stdout.take().unwrap()).lines();
    let mut next = |wanted: &str| loop {
        let line = output.next().unwrap().unwrap();
        if line.contains(wanted) {
            return serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    let start = json_rpc(&[
        ("initialize", json!({"protocolVersion": 1})),
        ("session/new", json!({"cwd": world.repo(), "mcpServers": []})),
    ]);
    let (initialize, new_session) = start.split_once('\n').unwrap();
    stdin.write_all(format!("{initialize}\n").as_bytes()).unwrap();
    next("\"protocolVersion\"");
    stdin.write_all(new_session.as_bytes()).unwrap();
    let session = next("\"sessionId\"")["result"]["sessionId"].clone();
    let text = json!([{"type": "text", "text": "Make the tests pass."}]);
    let params = json!({"sessionId": session, "prompt": text});
    let prompt = json!({"jsonrpc": "2.0", "id": 9, "method": "session/prompt", "params": params});
    stdin.write_all(format!("{prompt}\n").as_bytes()).unwrap();
    next("\"Think");
    drop(stdin);
    assert!(agent.wait().unwrap().success());
    let last = world.journal().pop().unwrap();
    assert_eq!(last["ending"]["kind"], "interrupted", "{last}");
}
