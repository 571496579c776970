//! `agent patch`, which applies a patch outside of a run: its input, the files it changes, its exit
//! code and its output.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::{World, snapshot};
use serde_json::{Value, json};

const ADD: &str = "add() {\n    echo $(($1 - $2))\n}\n";
const FIXED: &str = "add() {\n    echo $(($1 + $2))\n}\n";
const UNIFIED: &str = "--- a/add.sh\n+++ b/add.sh\n@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n }\n";

fn world() -> World {
    World::with(&[("add.sh", ADD), ("docs/notes.txt", "one\ntwo\n")])
}

#[test]
fn a_patch_from_stdin_is_applied() {
    let world = world();
    snapshot!(world.observe_with_input(&["patch"], UNIFIED.as_bytes()), @r"
    exit 0
    --- stdout
    changed add.sh +1 -1
    ");
    assert_eq!(world.read("add.sh"), FIXED);
    assert!(
        !world
            .home()
            .join(".local/state/agent/patches")
            .read_dir()
            .unwrap()
            .any(|e| e.unwrap().path().is_dir())
    );
}

#[test]
fn every_edit_format_gives_the_same_result() {
    let edits = json!([{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]);
    let forms = [
        UNIFIED.to_owned(),
        format!("Here is the fix:\n\n```diff\n{UNIFIED}```\n\nDone."),
        "*** Begin Patch\n*** Update File: add.sh\n@@\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n*** End Patch\n".into(),
        "add.sh\n<<<<<<< SEARCH\n    echo $(($1 - $2))\n=======\n    echo $(($1 + $2))\n>>>>>>> REPLACE\n".into(),
        edits.to_string(),
        json!({"edits": edits}).to_string(),
        json!({"tool": "apply_patch", "arguments": {"edits": edits}}).to_string(),
        format!("I fix it.\n```json\n{}\n```\n", json!({"tool": "apply_patch", "arguments": {"edits": edits}})),
        json!({"path": "add.sh", "content": FIXED}).to_string(),
        json!({"patch": UNIFIED.lines().collect::<Vec<_>>()}).to_string(),
        json!(UNIFIED.lines().collect::<Vec<_>>()).to_string(),
    ];
    for form in forms {
        let world = world();
        let seen = world.observe_with_input(&["patch", "-"], form.as_bytes());
        assert!(seen.starts_with("exit 0\n"), "{form}\n{seen}");
        assert_eq!(world.read("add.sh"), FIXED, "{form}");
    }
}

#[test]
fn a_patch_without_a_path_is_applied_to_the_file_that_a_flag_names() {
    let world = world();
    let patch = "@@ -1,3 +1,3 @@\n add() {\n-    echo $(($1 - $2))\n+    echo $(($1 + $2))\n }\n";
    snapshot!(world.observe_with_input(&["patch"], patch.as_bytes()), @r"
    exit 2
    --- stderr
    nothing was applied: the patch does not say which file it changes; start it with --- and +++ lines
    hint: or name the file with --path PATH
    ");
    let seen = world.observe_with_input(&["patch", "--path", "add.sh"], patch.as_bytes());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(world.read("add.sh"), FIXED);
}

#[test]
fn a_patch_that_does_not_apply_changes_nothing_and_quotes_the_file() {
    let world = world();
    let patch = format!(
        "{UNIFIED}--- a/docs/notes.txt\n+++ b/docs/notes.txt\n@@ -1,2 +1,2 @@\n one\n-three\n+drei\n"
    );
    snapshot!(world.observe_with_input(&["patch"], patch.as_bytes()), @r"
    exit 1
    --- stderr
    nothing was applied: docs/notes.txt: old lines not found; expected at line 2:
    three
    found:
    1|one
    2|two
    ");
    assert_eq!(world.read("add.sh"), ADD, "the matching file should be unchanged too");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_refusal_has_the_same_text_that_a_model_would_get() {
    let world = world();
    let patch = UNIFIED.replace("$1 - $2", "$1 * $2");
    let printed = world.agent(&["patch", "-"]).stdin(stdin(&world, &patch)).output().unwrap();
    let arguments = json!({"patch": patch}).to_string();
    let reported = world.agent(&["tools", "call", "apply_patch", &arguments]).output().unwrap();
    let (printed, reported) =
        (String::from_utf8(printed.stderr).unwrap(), String::from_utf8(reported.stderr).unwrap());
    assert_eq!(format!("error: {printed}"), reported);
}

fn stdin(world: &World, text: &str) -> Stdio {
    let path = world.home().join("input");
    std::fs::write(&path, text).unwrap();
    std::fs::File::open(path).unwrap().into()
}

#[test]
fn input_without_a_patch_is_a_usage_error() {
    let world = world();
    snapshot!(world.observe_with_input(&["patch"], b"Make it add, please.\n"), @r#"
    exit 2
    --- stderr
    nothing was applied: this is not a patch; send a unified diff (---, +++, @@), a "*** Begin Patch" envelope, or <<<<<<< SEARCH / ======= / >>>>>>> REPLACE blocks with the file's path on the line above
    "#);
    snapshot!(world.observe_with_input(&["patch"], b"--- a/add.sh\n\xff\xfe\n"), @r"
    exit 2
    --- stderr
    error: cannot decode the patch: line 2 is not UTF-8
    ");
    snapshot!(world.observe(&["patch"]), @r"
    exit 2
    --- stderr
    error: no patch given: standard input is empty
    ");
    snapshot!(world.observe(&["patch", "missing.patch"]), @r"
    exit 2
    --- stderr
    error: cannot read the patch from missing.patch: No such file or directory (os error 2)
    ");
    snapshot!(world.observe(&["patch", "--preview", "sideways", "missing.patch"]), @r#"
    exit 2
    --- stderr
    error: invalid preview format "sideways" (expected words, side-by-side, unified, none)
    "#);
    snapshot!(world.observe_with_input(&["patch"], br#"{"patch": 3}"#), @r"
    exit 2
    --- stderr
    error: invalid arguments for apply_patch: data did not match any variant of untagged enum Text
    ");
}

#[test]
fn an_answer_with_several_calls_of_apply_patch_is_refused() {
    let world = world();
    let call = json!({"tool": "apply_patch", "arguments": {"path": "add.sh", "content": FIXED}});
    snapshot!(world.observe_with_input(&["patch"], format!("{call}\n{call}\n").as_bytes()), @r"
    exit 2
    --- stderr
    error: found 2 calls to apply_patch; each is atomic, so apply one at a time
    ");
    assert_eq!(world.read("add.sh"), ADD);
}

#[test]
fn check_changes_nothing_and_exits_with_the_code_of_the_real_command() {
    let world = world();
    snapshot!(world.observe_with_input(&["patch", "--check"], UNIFIED.as_bytes()), @r"
    exit 0
    --- stdout
     changed  add.sh      +1    -1  +-
     1 file, +1 -1
    ");
    let seen = world.observe_with_input(&["patch", "--check"], UNIFIED.replace("- $2", "/ $2").as_bytes());
    assert!(seen.starts_with("exit 1\n--- stderr\n"), "{seen}");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_preview_changes_nothing_and_is_a_patch_by_default_without_a_terminal() {
    let world = world();
    let file = world.home().join("fix.patch");
    std::fs::write(&file, UNIFIED).unwrap();
    let file = file.to_str().unwrap();
    snapshot!(world.observe(&["patch", "--preview", file]), @r"
    exit 0
    --- stdout
    diff --git a/add.sh b/add.sh
    --- a/add.sh
    +++ b/add.sh
    @@ -1,3 +1,3 @@
     add() {
    -    echo $(($1 - $2))
    +    echo $(($1 + $2))
     }
    ");
    snapshot!(world.observe(&["patch", file, "--preview", "words"]), @r"
    exit 0
    --- stdout
     changed  add.sh      +1    -1  +-
     1 file, +1 -1

    ─── add.sh ─────────────────────────────────────────────────────────────────────
      1   add() {
      2 -     echo $(($1 - $2))
                         ^
      2 +     echo $(($1 + $2))
                         ^
      3   }
    ");
    snapshot!(world.observe(&["patch", "--preview", "side-by-side", file]), @r"
    exit 0
    --- stdout
     changed  add.sh      +1    -1  +-
     1 file, +1 -1

    ─── add.sh ─────────────────────────────────────────────────────────────────────
      1   add() {                          │   1   add() {
      2 -     echo $(($1 - $2))            │   2 +     echo $(($1 + $2))
      3   }                                │   3   }
    ");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

#[test]
fn color_can_be_turned_on_and_off() {
    let world = world();
    let file = world.home().join("fix.patch");
    std::fs::write(&file, UNIFIED).unwrap();
    let args = ["patch", "--preview", file.to_str().unwrap()];
    let forced = world.agent(&args).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(String::from_utf8(forced.stdout).unwrap().contains("\x1b[32;7m+\x1b[0m"));
    let refused = world.agent(&args).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output().unwrap();
    assert!(!refused.stdout.contains(&0x1b));
}

#[test]
fn patch_can_print_its_result_as_json() {
    let world = world();
    let answer = |args: &[&str], patch: &str| {
        let output = world.agent(args).stdin(stdin(&world, patch)).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), answer, String::from_utf8(output.stderr).unwrap())
    };
    let files = json!([{"path": "add.sh", "change": "changed", "added": 1, "removed": 1}]);
    let (code, printed, _) = answer(&["patch", "--json", "--check"], UNIFIED);
    assert_eq!((code, printed), (Some(0), json!({"applied": false, "files": files})));
    let (code, printed, _) = answer(&["patch", "--json"], UNIFIED);
    assert_eq!((code, printed), (Some(0), json!({"applied": true, "files": files})));
    let (code, printed, stderr) = answer(&["patch", "--json"], UNIFIED);
    assert_eq!((code, stderr.as_str(), &printed["applied"]), (Some(1), "", &json!(false)));
    assert!(printed["refused"].as_str().unwrap().contains("nothing was applied"), "{printed}");
    let (code, printed, _) = answer(&["patch", "--json"], "hello");
    assert_eq!((code, &printed["applied"]), (Some(2), &json!(false)));
}

#[test]
fn a_patch_can_write_neither_outside_the_tree_nor_into_dot_git() {
    let world = world();
    let paths = ["../outside", ".git/hooks/pre-commit", "/etc/motd", "docs/../../x", ".GIT/config"];
    for path in paths {
        let patch = format!("{UNIFIED}--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n");
        let seen = world.observe_with_input(&["patch"], patch.as_bytes());
        assert!(seen.starts_with("exit 1\n--- stderr\nnothing was applied: "), "{path}: {seen}");
        assert_eq!(world.git(&["status", "--porcelain"]), "", "{path}");
    }
    assert!(!world.repo().join("../outside").exists());
}

#[test]
fn the_work_tree_is_the_repository_root_or_the_current_folder() {
    let world = world();
    let mut below = world.agent(&["patch"]);
    let output = below.current_dir(world.repo().join("docs")).stdin(stdin(&world, UNIFIED)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("add.sh"), FIXED, "paths should be relative to the repository");
    let folder = world.home().join("plain");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("add.sh"), ADD).unwrap();
    let seen = world.observe_with_input(&["-C", folder.to_str().unwrap(), "patch"], UNIFIED.as_bytes());
    assert!(seen.starts_with("exit 0\n"), "{seen}");
    assert_eq!(std::fs::read_to_string(folder.join("add.sh")).unwrap(), FIXED);
}

#[test]
fn patch_works_without_a_home_folder_and_keeps_file_modes() {
    let world = world();
    let script = world.repo().join("add.sh");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o750)).unwrap();
    let mut command = world.agent(&["patch"]);
    let output = command.env_remove("HOME").stdin(stdin(&world, UNIFIED)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    assert_eq!(world.read("add.sh"), FIXED);
    assert_eq!(script.metadata().unwrap().permissions().mode() & 0o777, 0o750);
}
