//! `agent sessions export`: an exported file contains only what it should, and can be replayed
//! anywhere. Invalid files are refused.

use std::path::Path;

use crate::changes::{answers, session, world};
use crate::replay::{JSON, edit, exported, finish, long_session, recorded, texts, with_every_tool};
use crate::replay_differences::{altered, replace, replayed};
use crate::support::{World, call, json_lines, snapshot};
use serde_json::{Value, json};

#[test]
fn an_export_is_reproducible_and_private_and_never_overwrites_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let world = world();
    with_every_tool(&world, &[]);
    let seen = world.observe(&["sessions", "export", "last", "../home/one.jsonl"]);
    snapshot!(seen, @r"
    exit 0
    --- stderr
    exported session [SESSION] to ../home/one.jsonl: 31 kB in 134 events
    it contains the task, all prompts and answers, the output of commands, settings (but no API keys), and absolute paths
    it contains the names and sizes of 4 files, and the contents of 4 (138 B):
      add.sh  32 B
      check.sh  87 B
      old.txt  4 B
      made/notes.txt  15 B
    ");
    let one = world.home().join("one.jsonl");
    let text = std::fs::read_to_string(&one).unwrap();
    assert_eq!(std::fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
    let printed = world.agent(&["sessions", "export"]).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), text);
    let again = world.observe(&["sessions", "export", "last", "-o", "../home/one.jsonl"]);
    assert!(again.starts_with("exit 2\n") && again.contains("cannot write"), "{again}");
    assert_eq!(std::fs::read_to_string(&one).unwrap(), text);
    let records: Vec<Value> = json_lines(&text).into_iter().filter(|l| l["event"].is_string()).collect();
    assert_eq!(records, world.journal(), "the export should contain the session's events");
}

#[test]
fn an_export_has_the_contents_of_only_the_files_that_were_read() {
    let world = world();
    world.write("secret.txt", "nobody looked at this\n");
    world.write("deep/other.sh", "nobody looked at that\n");
    session(&world, &[], answers());
    let file = exported(&world, &[]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("secret.txt") && !text.contains("nobody looked at this"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let seen = world.observe(&["sessions", "export", "last", file.to_str().unwrap(), "--no-contents"]);
    assert!(seen.contains("it contains no files from the repository"), "{seen}");
    let lines = json_lines(&std::fs::read_to_string(&file).unwrap());
    assert!(lines[1..].iter().all(|l| l["event"].is_string()));
    let seen = World::new().observe(&["replay", file.to_str().unwrap()]);
    assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "{seen}");
    assert!(seen.contains("as with --recorded"), "{seen}");
}

#[test]
fn a_session_with_an_allowed_host_can_be_replayed_without_allowing_the_host() {
    let world = world();
    session(&world, &["--allow-host", "docs.test"], answers());
    let file = exported(&world, &[]);
    let seen = World::new().observe(&["replay", file.to_str().unwrap()]);
    assert!(seen.starts_with("exit 0\n--- stdout\nsame: "), "{seen}");
}

#[test]
fn a_file_that_is_not_a_session_is_refused() {
    let world = world();
    with_every_tool(&world, &[]);
    let file = exported(&world, &[]);
    let outside = world.home().join("outside");
    let set = |key: &str, value: Value| {
        let key = key.to_owned();
        move |line: &mut Value| {
            if line["file"]["path"] == "check.sh" {
                line["file"][&key] = value.clone();
            }
        }
    };
    let evil = outside.to_str().unwrap();
    let deep = format!("{}x", "../".repeat(40));
    type Change<'a> = Box<dyn FnMut(&mut Value) + 'a>;
    let changes: Vec<(&str, Change)> = vec![
        ("absolute", Box::new(set("path", json!(evil)))),
        ("above", Box::new(set("path", json!("../outside")))),
        ("far above", Box::new(set("path", json!(deep)))),
        ("hidden above", Box::new(set("path", json!("a/../../outside")))),
        ("git's", Box::new(set("path", json!(".git/hooks/pre-commit")))),
        ("git's, elsewhere", Box::new(set("path", json!("a/.GIT/config")))),
        ("the root", Box::new(set("path", json!(".")))),
        ("nothing", Box::new(set("path", json!("")))),
        ("a zero byte", Box::new(set("path", json!("a\0b")))),
        ("twice", Box::new(set("path", json!("add.sh")))),
        ("below a file", Box::new(set("path", json!("add.sh/x")))),
        ("setuid", Box::new(set("mode", json!("4755")))),
        ("no mode", Box::new(set("mode", json!("rwx")))),
        ("two contents", Box::new(set("size", json!(3)))),
        ("an unknown field", Box::new(set("owner", json!("root")))),
        (
            "no digits",
            Box::new(|l| {
                if l["file"]["path"] == "check.sh" {
                    l["file"] = json!({"path": "check.sh", "hex": "+a"})
                }
            }),
        ),
        (
            "huge",
            Box::new(|l| {
                if l["file"]["path"] == "check.sh" {
                    l["file"] = json!({"path": "check.sh", "size": 1u64 << 60})
                }
            }),
        ),
        (
            "no path",
            Box::new(|l| {
                if l["file"]["path"] == "check.sh" {
                    l["file"] = json!({"text": ""})
                }
            }),
        ),
        (
            "another version",
            Box::new(|l| {
                if !l["export"].is_null() {
                    l["export"]["version"] = json!(2)
                }
            }),
        ),
        (
            "another count",
            Box::new(|l| {
                if !l["export"].is_null() {
                    l["export"]["records"] = json!(3)
                }
            }),
        ),
        (
            "a second head",
            Box::new(|l| {
                if l["event"] == "model" {
                    *l = json!({"export": {}})
                }
            }),
        ),
        (
            "an unknown line",
            Box::new(|l| {
                if l["event"] == "model" {
                    *l = json!({"what": {}})
                }
            }),
        ),
        (
            "an unknown event",
            Box::new(|l| {
                if l["event"] == "model" {
                    l["event"] = json!("mogel")
                }
            }),
        ),
        (
            "an event of another version",
            Box::new(|l| {
                if l["event"] == "model" {
                    l["v"] = json!(9)
                }
            }),
        ),
        (
            "no beginning",
            Box::new(|l| {
                if l["event"] == "session" {
                    l["event"] = json!("guard");
                    l["message"] = json!("x")
                }
            }),
        ),
    ];
    for (what, change) in changes {
        let seen = replayed(&world, &altered(&world, &file, change), &[]);
        assert!(
            seen.starts_with("exit 2\n--- stderr\nerror: ") && seen.lines().count() == 3,
            "{what}: {seen}"
        );
        assert!(!outside.exists(), "{what}");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let broken = world.home().join("broken.jsonl");
    let half = &text[..text.len() / 2];
    let whole_lines = &half[..half.rfind('\n').unwrap() + 1];
    for text in [half, whole_lines, "", "{}\n", "[]\n", "\0\0\n", "{\"export\":3}\n"] {
        std::fs::write(&broken, text).unwrap();
        let seen = replayed(&world, &broken, &[]);
        assert!(
            seen.starts_with("exit 2\n--- stderr\nerror: ") && seen.lines().count() == 3,
            "{text:?}: {seen}"
        );
    }
    let seen = world.observe(&["replay", "nowhere.jsonl"]);
    assert!(seen.starts_with("exit 2\n"), "{seen}");
}

#[test]
fn a_symlink_in_an_exported_file_cannot_escape() {
    let world = world();
    with_every_tool(&world, &[]);
    let file = exported(&world, &[]);
    let target = world.home().join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("key"), "a sum of secrets\n").unwrap();
    // One symlink points to a folder outside the tree, and the other to a file in that folder.
    let lines = std::fs::read_to_string(&file).unwrap();
    let mut lines = json_lines(&lines);
    let link = json!({"file": {"path": "aa", "link": target.to_str().unwrap()}});
    let key = json!({"file": {"path": "zz.sh", "link": target.join("key").to_str().unwrap()}});
    lines.splice(1..1, [link, key]);
    lines[0]["export"]["files"] = json!(lines[0]["export"]["files"].as_u64().unwrap() + 2);
    let made = world.home().join("made.jsonl");
    let write = |lines: &[Value]| {
        std::fs::write(&made, lines.iter().map(|l| l.to_string() + "\n").collect::<String>()).unwrap()
    };
    write(&lines);
    let seen = replayed(&world, &made, &[]);
    assert!(!seen.contains("secrets"), "{seen}");
    for line in &mut lines {
        if line["change"]["file"]["path"] == "made/notes.txt" {
            line["change"]["file"]["path"] = json!("aa/notes.txt");
        }
        if line["file"]["path"] == "check.sh" {
            line["file"]["path"] = json!("aa/check.sh");
        }
    }
    write(&lines);
    let seen = replayed(&world, &made, &[]);
    assert!(seen.starts_with("exit 2\n"), "{seen}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
}

#[test]
fn an_exported_file_cannot_grant_permissions_to_commands() {
    let world = world();
    with_every_tool(&world, &[]);
    let file = exported(&world, &[]);
    let secret = world.home().join("key");
    std::fs::write(&secret, "secret\n").unwrap();
    let command = format!("cat {}", secret.display());
    let altered_file = altered(&world, &file, |line| {
        if line["event"] == "session" {
            line["settings"]
                .as_array_mut()
                .unwrap()
                .extend([json!(["sandbox", "false"]), json!(["allow_read", world.home()])]);
        }
        if line["event"] == "checked" || line["event"] == "check_started" {
            line["command"] = json!(command);
        }
        if line["event"] == "session" {
            replace(&mut line["settings"], "sh check.sh", &command);
        }
    });
    let seen = replayed(&world, &altered_file, &["--run-commands"]);
    assert!(
        seen.starts_with("exit 1\n")
            && seen.contains(&command.replace(world.home().to_str().unwrap(), "[WORLD]/home")),
        "{seen}"
    );
    assert!(!seen.contains("secret"), "{seen}");
}

#[test]
fn an_exported_session_can_be_used_as_the_model() {
    let world = world();
    let live = session(&world, &[], answers());
    let file = exported(&world, &[]);
    world.git(&["checkout", "--quiet", "."]);
    std::fs::remove_dir_all(world.repo().join("docs")).unwrap();
    let model = format!("replay:{}", file.display());
    let again = world.agent(&["run", "--model", &model, "Make the tests pass."]).output().unwrap();
    assert_eq!((again.status.code(), &again.stdout), (Some(0), &live.stdout), "{}", world.tell(&again));
}

/// A function that records one session.
type Making = fn(&World);

/// Returns the name of each session in `fixtures/sessions`, along with the function that records
/// it.
fn fixtures() -> [(&'static str, Making); 3] {
    let by_tools = |world: &World| drop(long_session(world, "./add.sh", &[]));
    let whole_file = |world: &World| {
        let answers = [
            "```sh\nadd() {\n    echo $(($1 * $2))\n}\n```\n",
            "```sh\nadd() {\n    echo $(($1 + $2))\n}\n```\n",
        ];
        let args = ["--approach", "whole-file", "Fix the sum: make the tests pass."];
        drop(recorded(world, &args, &texts(&answers.map(str::to_owned))));
    };
    let in_small_pieces = |world: &World| {
        let many =
            [call("read_file", json!({"path": "check.sh"})), call("search", json!({"pattern": "echo"}))]
                .join("\n");
        let again = call("read_file", json!({"path": "add.sh"}));
        let answers =
            [many, "No.".into(), again.clone(), again.clone(), again, edit("$1 - $2", "$1 + $2"), finish()];
        let args = [&JSON[..], &["--cut", "read-on", "--edit-format", "unified"]].concat();
        drop(recorded(world, &args, &texts(&answers)));
    };
    [("by-tools", by_tools), ("whole-file", whole_file), ("read-on", in_small_pieces)]
}

/// Replaces values that differ between recordings, such as times, the session id and the folder.
fn settled(world: &World, text: &str) -> String {
    let id = world.journal()[0]["id"].as_str().unwrap().to_owned();
    let root = world.home().parent().unwrap().to_str().unwrap().to_owned();
    let text = text.replace(&id, "20260101-000000-0000").replace(&root, "/home/somebody");
    let lines = json_lines(&text).into_iter().map(|mut line| {
        if line["event"].is_string() {
            let seq = line["seq"].clone();
            line["time_ms"] = seq;
        }
        if line["event"] == "model" {
            line["why"] = json!("recorded");
        }
        without_times(&mut line);
        line.to_string() + "\n"
    });
    lines.collect()
}

fn without_times(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| match key.as_str() {
            "ms" | "total_ms" | "first_token_ms" => *value = json!(0),
            "settings" if value.is_array() => value.as_array_mut().unwrap().retain(|s| s[0] != "ollama_host"),
            _ => without_times(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

#[test]
fn committed_sessions_replay_without_a_difference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/sessions");
    if std::env::var_os("WRITE_SESSIONS").is_some() {
        for (name, make) in fixtures() {
            let world = world();
            make(&world);
            let text = std::fs::read_to_string(exported(&world, &[])).unwrap();
            std::fs::write(folder.join(name).with_extension("jsonl"), settled(&world, &text)).unwrap();
        }
    }
    for (name, _) in fixtures() {
        let file = folder.join(name).with_extension("jsonl");
        let seen = World::new().observe(&["replay", file.to_str().unwrap()]);
        assert!(
            seen.starts_with("exit 0\n--- stdout\nsame: "),
            "{name}: {seen}\nIf this is intended, record the sessions again: WRITE_SESSIONS=1 cargo test -p agent --test e2e committed_sessions"
        );
    }
}
