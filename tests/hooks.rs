//! The user's hooks: commands that run at the start and end of a run, and before and after each
//! call.

use fake_model::Server;
use serde_json::Value;

use crate::replay::{JSON, edit, finish, recorded, replays_without_a_difference, texts};
use crate::support::{World, json_lines};

/// Creates a world with one failing test and these hooks.
fn world(hooks: &str) -> World {
    let world = World::with_a_bug();
    world.write_user_settings(hooks);
    world
}

fn fix() -> String {
    edit("$1 - $2", "$1 + $2")
}

/// Runs the task with these answers. Returns the exit code, stdout and stderr.
fn run(world: &World, answers: &[String]) -> String {
    world.tell(&recorded(world, &JSON, &texts(answers)))
}

/// Returns the events that unconfined hooks wrote to `events.jsonl` in the user's home folder.
fn events(world: &World) -> Vec<Value> {
    json_lines(&std::fs::read_to_string(world.home().join("events.jsonl")).unwrap())
}

/// Returns the user messages that were sent to the model.
fn messages(world: &World) -> String {
    let journal = world.journal();
    let messages = journal.iter().filter(|r| r["event"] == "message" && r["role"] == "user");
    messages.filter_map(|r| r["content"].as_str()).collect::<Vec<_>>().join("\n----\n")
}

#[test]
fn hooks_get_the_start_each_call_and_the_end_as_json() {
    let hook = |on: &str| {
        format!("[[hooks]]\non = \"{on}\"\nconfined = false\ncommand = 'cat >> \"$HOME/events.jsonl\"'\n")
    };
    let world = world(&["start", "before_call", "after_call", "end"].map(hook).concat());
    let seen = run(&world, &[fix(), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    let events = events(&world);
    let told: Vec<_> = events
        .iter()
        .map(|e| format!("{} {}", e["hook"].as_str().unwrap(), e["tool"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(
        told,
        [
            "start -",
            "before_call apply_patch",
            "after_call apply_patch",
            "before_call finish",
            "after_call finish",
            "end -"
        ]
    );
    for event in &events {
        assert_eq!(event["session"], world.journal()[0]["id"]);
        assert_eq!(event["task"], "Make the tests pass.");
        assert_eq!(event["repository"], world.repo().display().to_string());
    }
    assert_eq!(events[1]["effect"], "write");
    assert_eq!(events[1]["arguments"]["edits"][0]["path"], "add.sh");
    assert_eq!(events[2]["outcome"]["status"], "ok");
    assert_eq!(events[2]["outcome"]["changed"][0], "add.sh");
    assert_eq!(events[5]["result"]["ending"]["kind"], "verified", "{}", events[5]);
}

#[test]
fn a_vetoed_call_does_not_run_and_the_model_reads_why() {
    let world = world(
        "[[hooks]]\non = \"before_call\"\ntools = \"apply_*\"\n\
         command = 'grep -q 2.+..1 && exit 0; echo use the second first; exit 2'\n",
    );
    let seen = run(&world, &[fix(), edit("$1 - $2", "$2 + $1"), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(messages(&world).contains("use the second first"), "{}", messages(&world));
    assert!(world.read("add.sh").contains("$2 + $1"));
    replays_without_a_difference(&world);
}

#[test]
fn a_vetoed_finish_does_not_end_the_run() {
    let world = world(
        "[[hooks]]\non = \"before_call\"\ntools = \"finish\"\n\
         command = 'test -e CHANGES || { echo write CHANGES first; exit 2; }'\n",
    );
    let changes = crate::support::call(
        "apply_patch",
        serde_json::json!({"patch": "*** Begin Patch\n*** Add File: CHANGES\n+fixed add\n*** End Patch"}),
    );
    let seen = run(&world, &[fix(), finish(), changes, finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(messages(&world).contains("write CHANGES first"), "{}", messages(&world));
    replays_without_a_difference(&world);
}

#[test]
fn a_hook_that_fails_before_a_call_stops_the_run() {
    for (command, why) in [
        ("echo no such policy; exit 1", "exit code 1\n  no such policy"),
        ("kill -9 $$", "killed by signal 9"),
        ("sleep 1000", "it took longer than 1 s"),
    ] {
        let world = world(&format!("[[hooks]]\non = \"before_call\"\nseconds = 1\ncommand = '{command}'\n"));
        let seen = run(&world, &[fix(), finish()]);
        assert!(seen.starts_with("exit 2\n") && seen.contains(why), "{seen}");
        assert!(world.read("add.sh").contains("$1 - $2"));
    }
}

#[test]
fn a_hook_that_fails_after_a_call_is_a_warning() {
    let world = world(
        "[[hooks]]\non = \"after_call\"\ntools = \"apply_patch\"\ncommand = 'exit 3'\n\
         [[hooks]]\non = \"end\"\ncommand = 'exit 4'\n\
         [[hooks]]\non = \"end\"\ncommand = 'echo too bad; exit 2'\n",
    );
    let seen = run(&world, &[fix(), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(seen.contains("the hook `exit 3` failed: exit code 3\n"), "{seen}");
    assert!(seen.contains("the hook `exit 4` failed: exit code 4\n"), "{seen}");
    let late = "the veto of the hook `echo too bad; exit 2` came too late: too bad\n";
    assert!(seen.contains(late), "{seen}");
}

#[test]
fn a_hook_can_veto_the_run_before_the_first_request() {
    let world = world("[[hooks]]\non = \"start\"\ncommand = 'echo not on Fridays; exit 2'\n");
    let server = Server::start();
    let output = world
        .agent(&["run", "--model", "deepseek-coder:6.7b", "fix it"])
        .env("OLLAMA_HOST", server.url())
        .output()
        .unwrap();
    let seen = world.tell(&output);
    assert!(seen.starts_with("exit 2\n") && seen.contains("vetoed the run: not on Fridays"), "{seen}");
    assert!(server.chats().is_empty());
}

#[test]
fn a_confined_hook_cannot_write_to_the_repository_or_the_home() {
    let world = world(
        "[[hooks]]\non = \"before_call\"\n\
         command = 'echo x > made.txt; echo x > \"$HOME/made.txt\"; test -r add.sh'\n",
    );
    let seen = run(&world, &[fix(), finish()]);
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert!(!world.repo().join("made.txt").exists());
    assert!(!world.home().join("made.txt").exists());
}

#[test]
fn a_repository_may_not_set_hooks() {
    let world = World::with(&[(".agent.toml", "[[hooks]]\non = \"start\"\ncommand = \"true\"\n")]);
    let seen = world.observe(&["run", "fix it"]);
    assert!(seen.starts_with("exit 2\n") && seen.contains("a repository may not set hooks"), "{seen}");
}

#[test]
fn mistakes_in_hooks_are_found_before_the_run() {
    for (text, why) in [
        ("[[hooks]]\non = \"start\"\n", "missing field `command`"),
        ("[[hooks]]\non = \"begin\"\ncommand = \"true\"\n", "unknown variant `begin`"),
        ("[[hooks]]\non = \"end\"\ncommand = \" \"\n", "must not contain an empty `command`"),
        ("[[hooks]]\non = \"end\"\ncommand = \"true\"\nseconds = 0\n", "from 1 to 3600"),
        ("[[hooks]]\non = \"end\"\ncommand = \"true\"\ntools = \"[\"\n", "has an invalid pattern"),
        ("[[hooks]]\non = \"end\"\ncommand = \"true\"\ntool = \"x\"\n", "unknown field `tool`"),
        ("hooks = \"true\"\n", "must be a list of tables"),
    ] {
        let world = world(text);
        let seen = world.observe(&["run", "fix it"]);
        assert!(seen.starts_with("exit 2\n") && seen.contains(why), "{text}: {seen}");
    }
}
