//! The code map in the first turn, and the `symbols` tool.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::{World, call};
use fake_model::{Reply, Server};
use serde_json::{Value, json};

/// Creates a repository for [`TASK`], which is about `durations.py`.
fn world() -> World {
    World::with(&[
        ("lib/durations.py", "import re\n\n\ndef parse_duration(text):\n    return int(text)\n"),
        ("lib/colors.py", "def blend(a, b):\n    return a\n"),
        (
            "app/main.py",
            "from lib.durations import parse_duration\n\n\ndef start():\n    wait = parse_duration('5')\n    return wait\n",
        ),
        ("web/menu.ts", "export interface Menu { open: boolean }\nexport const toggle = (m: Menu) => m;\n"),
    ])
}

const TASK: &str = "Parsing of durations such as 5m is broken.";

fn run(world: &World, server: &Server, flags: &[&str], task: &str) {
    let mut args = vec!["run", "--model", "deepseek-coder:6.7b", "--approach", "tools"];
    args.extend(flags);
    args.push(task);
    let output = world.agent(&args).env("OLLAMA_HOST", server.url()).output().unwrap();
    assert!(output.status.code().is_some(), "{}", world.tell(&output));
}

/// Returns the messages of each request, joined into a single string.
fn requests(server: &Server) -> Vec<String> {
    let bodies = server.chats().into_iter().map(|r| serde_json::from_slice::<Value>(&r.body).unwrap());
    bodies
        .map(|body| {
            let messages = body["messages"].as_array().unwrap();
            messages.iter().map(|m| m["content"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
        })
        .collect()
}

/// Returns the first request of a run in which the model finishes immediately.
fn first_request(world: &World, flags: &[&str], task: &str) -> String {
    let server = Server::start();
    server.fallback(Reply::text(call("finish", json!({}))));
    run(world, &server, flags, task);
    requests(&server).swap_remove(0)
}

/// Runs `agent tools call symbols` and returns its output.
fn symbols(world: &World, arguments: &Value) -> String {
    let text = arguments.to_string();
    world.observe(&["tools", "call", "symbols", &text, "--symbols", "tool"])
}

/// Returns the paths of the files that make up the only index in the cache folder.
fn cached(world: &World) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(world.home().join(".cache/agent/symbols")).unwrap();
    let mut folders: Vec<_> = folders.map(|e| e.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    let parts = std::fs::read_dir(folders.remove(0)).unwrap();
    parts.map(|e| e.unwrap().path()).collect()
}

const HEADING: &str = "Files that the task may be about, likely ones first:";

#[test]
fn the_first_request_has_a_map_if_the_task_names_no_file() {
    let request = first_request(&world(), &["--symbols", "map"], TASK);
    let (_, map) = request.split_once(HEADING).unwrap_or_else(|| panic!("{request}"));
    let map = map.split("```").nth(1).unwrap().trim();
    assert!(map.starts_with("lib/durations.py\n  4: def parse_duration(text)\n"), "{map}");
    assert!(map.contains("web/menu.ts\n"), "{map}");
    assert!(!request.contains("symbols: Find where"), "the setting asks for no tool: {request}");
}

#[test]
fn the_first_request_has_no_map_if_the_task_names_a_file() {
    for task in ["Fix lib/colors.py", "the bug is in colors.py: fix it"] {
        let world = world();
        assert!(!first_request(&world, &["--symbols", "map"], task).contains(HEADING), "{task}");
        assert!(!world.home().join(".cache/agent/symbols").exists(), "{task}: nothing needs an index");
    }
}

#[test]
fn without_the_setting_there_is_no_map_no_tool_and_no_index() {
    let world = world();
    let request = first_request(&world, &[], TASK);
    assert!(!request.contains(HEADING) && !request.contains("symbols"), "{request}");
    assert!(!world.home().join(".cache/agent/symbols").exists());
    assert_eq!(request, first_request(&world, &["--symbols", "off"], TASK));
}

#[test]
fn the_tool_is_offered_and_answers_with_definitions_and_uses() {
    let (world, server) = (world(), Server::start());
    server.enqueue(Reply::text(call("symbols", json!({"name": "parse_duration"}))));
    server.fallback(Reply::text(call("finish", json!({}))));
    run(&world, &server, &["--symbols", "tool"], TASK);
    let requests = requests(&server);
    assert!(requests[0].contains("symbols: Find where a name is defined and used."), "{}", requests[0]);
    assert!(!requests[0].contains(HEADING), "{}", requests[0]);
    let wanted = "parse_duration: 1 definition\nlib/durations.py:4: def parse_duration(text):\nused in 1 file\napp/main.py:1: from lib.durations import parse_duration\napp/main.py:5:     wait = parse_duration('5')";
    assert!(requests[1].contains(wanted), "{}", requests[1]);
}

#[test]
fn a_lookup_may_be_qualified_narrowed_to_a_folder_or_misspelled() {
    let world = world();
    let seen = symbols(&world, &json!({"name": "lib.durations.parse_duration()", "path": "lib"}));
    assert!(seen.contains("1 definition\nlib/durations.py:4"), "{seen}");
    assert!(seen.contains("used in 0 files"), "{seen}");
    let seen = symbols(&world, &json!({"name": "parseDuration"}));
    assert!(seen.contains("no definitions or uses; similar names: parse_duration"), "{seen}");
    let seen = symbols(&world, &json!({"name": "nothing_like_it"}));
    assert!(seen.contains("nothing_like_it: no definitions or uses\n"), "{seen}");
    let seen = symbols(&world, &json!({"name": "Menu"}));
    assert!(seen.contains("web/menu.ts:1: export interface Menu"), "{seen}");
    assert!(seen.contains("web/menu.ts:2: export const toggle = (m: Menu)"), "{seen}");
}

#[test]
fn an_edit_is_found_by_the_next_lookup_in_the_same_run() {
    let (world, server) = (world(), Server::start());
    let edit = json!({"path": "lib/colors.py", "search": "def blend", "replace": "def mix"});
    server.enqueue(Reply::text(call("symbols", json!({"name": "blend"}))));
    server.enqueue(Reply::text(call("apply_patch", json!({ "edits": [edit] }))));
    server.enqueue(Reply::text(call("symbols", json!({"name": "mix"}))));
    server.fallback(Reply::text(call("finish", json!({}))));
    run(&world, &server, &["--symbols", "tool"], TASK);
    let requests = requests(&server);
    assert!(requests[1].contains("lib/colors.py:1: def blend(a, b):"), "{}", requests[1]);
    assert!(requests[3].contains("lib/colors.py:1: def mix(a, b):"), "{}", requests[3]);
}

#[test]
fn an_edit_of_equal_size_between_two_runs_is_noticed() {
    let world = world();
    symbols(&world, &json!({"name": "blend"}));
    world.write("lib/colors.py", "def merge(a, b):\n    return a\n");
    assert!(symbols(&world, &json!({"name": "merge"})).contains("lib/colors.py:1: def merge"));
    assert!(symbols(&world, &json!({"name": "blend"})).contains("no definitions or uses"));
    std::fs::remove_file(world.repo().join("lib/colors.py")).unwrap();
    assert!(symbols(&world, &json!({"name": "merge"})).contains("no definitions or uses"));
}

#[test]
fn a_damaged_or_unwritable_cache_is_ignored() {
    let world = world();
    let wanted = symbols(&world, &json!({"name": "parse_duration"}));
    for (n, part) in cached(&world).iter().enumerate() {
        let mut bytes = std::fs::read(part).unwrap();
        match n % 3 {
            0 => bytes.truncate(bytes.len() / 2),
            1 => *bytes.last_mut().unwrap() ^= 1,
            _ => bytes = vec![0xff; 100],
        }
        std::fs::write(part, bytes).unwrap();
    }
    assert_eq!(symbols(&world, &json!({"name": "parse_duration"})), wanted);
    std::fs::remove_dir_all(world.home().join(".cache/agent/symbols")).unwrap();
    std::fs::write(world.home().join(".cache/agent/symbols"), "a file in place of the folder").unwrap();
    assert_eq!(symbols(&world, &json!({"name": "parse_duration"})), wanted);
}

#[test]
fn hostile_files_are_left_out_and_do_no_harm() {
    let world = world();
    let deep = 100_000;
    world.write("deep.py", &format!("x = {}{}\n", "(".repeat(deep), ")".repeat(deep)));
    world.write("open.rs", &"fn f() { {[(".repeat(deep / 2));
    world.write("deep.ts", &"type A = { a: Array<".repeat(20_000));
    world.write("deep.go", &format!("package p\nvar x = {}", "func() { go ".repeat(deep / 3)));
    world.write("names.js", &(0..50_000).map(|n| format!("f{n}()\n")).collect::<String>());
    world.write("huge.py", &"def f(): pass\n".repeat(100_000));
    world.write("line\nbreak.py", "def parse_duration_x(): pass\n");
    world.write("control.py", "def parse_\u{1b}[31mduration(): pass\n");
    std::fs::write(world.repo().join("binary.py"), b"def binary_duration(): pass\n\0\0\0").unwrap();
    std::fs::write(world.repo().join("latin.py"), b"# \xe9\xff\ndef latin_duration(): pass\n").unwrap();
    std::os::unix::fs::symlink("/dev/zero", world.repo().join("endless.py")).unwrap();
    let request = first_request(&world, &["--symbols", "all"], TASK);
    let map = request.split_once(HEADING).unwrap().1;
    assert!(map.contains("lib/durations.py\n  4: def parse_duration(text)\n"), "{map}");
    assert!(!map.contains("line\nbreak.py") && !map.contains('\u{1b}'), "{map}");
    assert!(symbols(&world, &json!({"name": "binary_duration"})).contains("no definitions"), "binary");
}

#[test]
fn a_map_masks_secrets_and_fits_its_budget() {
    let world = world();
    let key = "sk-proj-Zq3vT9xLm4Rk7Wp2Ys8Hd6Nf1Bc5Jg0Ae";
    world.write("lib/duration_key.py", &format!("DURATION_API_KEY = \"{key}\"\n"));
    for n in 0..200 {
        world.write(&format!("more/duration_{n}.py"), &format!("def duration_{n}(text):\n    pass\n"));
    }
    let request = first_request(&world, &["--symbols", "map"], TASK);
    assert!(!request.contains(key), "{request}");
    let map = request.split_once(HEADING).unwrap().1.split("```").nth(1).unwrap();
    assert!((1_000..3_100).contains(&map.len()), "{} bytes", map.len());
}

#[test]
fn a_resumed_run_keeps_the_recorded_map() {
    let world = world();
    let server = Server::start();
    server.fallback(Reply::text(call("read_file", json!({"path": "lib/colors.py"}))));
    let args =
        ["run", "--json", "--symbols", "map", "--model", "deepseek-coder:6.7b", "--approach", "tools", TASK];
    let mut child = world
        .agent(&args)
        .env("OLLAMA_HOST", server.url())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let started = lines.into_iter().find(|line| line.contains("\"tool_finished\"")).is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(started);
    let before = requests(&server).swap_remove(0);
    assert!(before.contains("4: def parse_duration(text)"), "{before}");

    // A map created now would be different.
    world.write("lib/durations.py", "def renamed():\n    pass\n");
    let server = Server::start();
    server.fallback(Reply::text(call("finish", json!({}))));
    let output = world.agent(&["resume"]).env("OLLAMA_HOST", server.url()).output().unwrap();
    let after = requests(&server);
    assert!(!after.is_empty(), "{}", world.tell(&output));
    assert!(after[0].starts_with(&before), "{}", after[0]);
}
