//! MCP servers that the editor offers.

use std::path::Path;

use agent_client_protocol::v1::schema::{
    EnvVariable, LoadSessionRequest, McpServer, McpServerSse, McpServerStdio, NewSessionRequest, SessionId,
};
use fake_model::Server;
use serde_json::json;

use super::{RIGHT, Seen, WRONG, edit, finish, fix, prompt, reply};
use crate::support::World;

/// Prompts in a session for which the editor offers three MCP servers: one that works, one with an
/// outdated transport, and one whose name is too similar to that of the first. Returns the updates
/// that the editor received.
async fn prompt_with_servers(world: &World, server: &Server) -> Seen {
    let script = world.repo().join("server.py");
    std::fs::write(&script, include_str!("../mcp/server.py")).unwrap();
    let mut all = None;
    edit(world, server, &[], async |agent, seen| {
        let args = [&script, Path::new("good"), &world.repo().join("server.log")];
        let args = args.map(|arg| arg.display().to_string()).to_vec();
        let servers = vec![
            McpServer::Stdio(McpServerStdio::new("my server", "python3").args(args)),
            McpServer::Sse(McpServerSse::new("old", "http://127.0.0.1:9/sse")),
            McpServer::Stdio(McpServerStdio::new("my:server", "true")),
        ];
        let request = NewSessionRequest::new(world.repo()).mcp_servers(servers);
        let session = agent.send_request(request).block_task().await?.session_id;
        prompt(&agent, &session, "Make the tests pass.").await?;
        all = Some(seen);
        Ok(())
    })
    .await;
    all.unwrap()
}

#[tokio::test]
async fn mcp_servers_of_the_editor_are_used_if_the_settings_choose_their_tools() {
    let (world, server) = (World::with_a_bug(), Server::start());
    world.write_user_settings("mcp_tools = \"my-server__echo\"\n");
    server.enqueue(reply("my-server__echo", json!({"text": "a voice from afar"})));
    server.enqueue(fix());
    server.enqueue(finish());
    let seen = prompt_with_servers(&world, &server).await;
    let chats = server.chats();
    assert!(chats[0].json["messages"][0].to_string().contains("my-server__echo: "), "{}", chats[0].json);
    let result = chats[1].last_content();
    assert!(result.contains("my-server__echo") && result.contains("a voice from afar"), "{result}");
    let said = seen.text("agent_message_chunk");
    assert!(said.contains("\"old\" is left out: the \"sse\" transport is deprecated"), "{said}");
    assert!(said.contains("\"my-server\" is left out: another server has that name"), "{said}");
    assert!(world.repo().join("server.log").exists());
    assert!(!said.contains("are not used"), "{said}");
}

#[tokio::test]
async fn bug_a_secret_of_an_mcp_server_of_the_editor_was_shown_when_the_session_was_loaded() {
    const TOKEN: &str = "tok-7f3a9b2c4d5e6f70";
    let (world, server) = (World::with_a_bug(), Server::start());
    let edit_with_token =
        json!({"path": "add.sh", "search": WRONG, "replace": format!("{RIGHT}# {TOKEN}\n")});
    server.enqueue(reply("apply_patch", json!({"edits": [edit_with_token]})));
    server.enqueue(finish());
    let offered = || {
        let env = vec![EnvVariable::new("API_TOKEN", TOKEN)];
        vec![McpServer::Stdio(McpServerStdio::new("s", "true").env(env))]
    };
    let mut id = SessionId::new("");
    edit(&world, &server, &[], async |agent, seen| {
        let request = NewSessionRequest::new(world.repo()).mcp_servers(offered());
        id = agent.send_request(request).block_task().await?.session_id;
        prompt(&agent, &id, "Make the tests pass.").await?;
        assert!(!json!(seen.all()).to_string().contains(TOKEN), "{:?}", seen.all());
        Ok(())
    })
    .await;
    assert!(world.read("add.sh").contains(TOKEN));
    edit(&world, &server, &[], async |agent, seen| {
        let load = LoadSessionRequest::new(id.clone(), world.repo()).mcp_servers(offered());
        agent.send_request(load).block_task().await?;
        let all = json!(seen.all()).to_string();
        assert!(all.contains("add.sh") && !all.contains(TOKEN), "{all}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn without_a_choice_of_tools_mcp_servers_of_the_editor_do_not_start() {
    let (world, server) = (World::with_a_bug(), Server::start());
    server.enqueue(fix());
    server.enqueue(finish());
    let said = prompt_with_servers(&world, &server).await.text("agent_message_chunk");
    assert!(said.contains("The editor's MCP servers (my-server) are not used. To use them,"), "{said}");
    assert!(!server.chats()[0].json.to_string().contains("my-server"));
    assert!(!world.repo().join("server.log").exists());
}
