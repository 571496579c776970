//! Tests the `fake-model` program: it prints its URL, records requests and reports errors.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fake-model"))
}

#[test]
fn it_prints_its_url_plays_its_script_and_records_requests() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let script = directory.join("script.json");
    std::fs::write(&script, r#"["said by the script"]"#).unwrap();
    let mut child = program()
        .args(["--port", "0", "--personality", "llama-server", "--record", "/dev/stdout", "--script"])
        .arg(&script)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let body = r#"{"messages": [{"role": "user", "content": "hello"}]}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("said by the script"), "{answer}");
    let record: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(record["path"], "/v1/chat/completions");
    assert_eq!(record["body"]["messages"][0]["content"], "hello");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn invalid_arguments_are_reported_with_exit_code_2() {
    for (arguments, part) in [
        (&["--port", "many"][..], "not a port number"),
        (&["--port"], "needs a value"),
        (&["--script", "/nonexistent"], "/nonexistent"),
        (&["--personality", "friendly"], "lm-studio"),
        (&["--speed", "9"], "unknown flag"),
    ] {
        let output = program().args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(part), "{arguments:?} → {text}");
    }
}
