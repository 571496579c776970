//! Tests bare repositories, and repositories with notebooks, unusual file names, or files in
//! encodings other than UTF-8.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::support::{World, snapshot};

fn world(files: &[(&[u8], &[u8])]) -> World {
    let world = World::new();
    for (name, content) in files {
        fs::write(path(&world, name), content).unwrap();
    }
    world
}

fn path(world: &World, name: &[u8]) -> PathBuf {
    world.repo().join(OsStr::from_bytes(name))
}

fn block(file: &str, old: &str, new: &str) -> String {
    format!("{file}\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n")
}

#[test]
fn a_letter_inserted_into_a_latin_1_file_is_one_byte() {
    let world = world(&[(b"s.java", b"// m\xe1s\nint a = 1;\n")]);
    let seen =
        world.observe_with_input(&["patch"], block("s.java", "int a = 1;", "int a = 1; // año").as_bytes());
    assert!(seen.starts_with("exit 0"), "{seen}");
    assert_eq!(fs::read(path(&world, b"s.java")).unwrap(), b"// m\xe1s\nint a = 1; // a\xf1o\n");
    let seen = world.observe_with_input(&["patch"], block("s.java", "// más", "// más →").as_bytes());
    snapshot!(seen, @r#"
    exit 1
    --- stderr
    nothing was applied: s.java: line 1 of the new text contains '→' (U+2192), which the file's encoding ISO-8859-1 cannot represent; write it another way, for example as an escape sequence
    "#);
    assert_eq!(fs::read(path(&world, b"s.java")).unwrap(), b"// m\xe1s\nint a = 1; // a\xf1o\n");
}

#[test]
fn a_git_diff_of_a_latin_1_file_can_be_applied_and_is_shown_decoded() {
    let world = world(&[(b"s.txt", b"caf\xe9\nx\nol\xe9\n")]);
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=latin"]);
    fs::write(path(&world, b"s.txt"), b"caf\xe9\nx\nol\xe9 \xf1\n").unwrap();
    let diff = world.program("git").arg("diff").output().unwrap().stdout;
    assert!(String::from_utf8(diff.clone()).is_err());
    world.git(&["checkout", "--quiet", "--", "s.txt"]);
    let shown = world.observe_with_input(&["patch", "--preview", "words"], &diff);
    assert!(shown.contains("olé ñ"), "{shown}");
    assert!(world.observe_with_input(&["patch"], &diff).starts_with("exit 0"));
    assert_eq!(fs::read(path(&world, b"s.txt")).unwrap(), b"caf\xe9\nx\nol\xe9 \xf1\n");
}

#[test]
fn utf_16_is_read_searched_and_edited() {
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let world = world(&[(b"a.reg", &utf16("\u{feff}one\r\ntwo ä\r\n"))]);
    snapshot!(world.observe(&["tools", "call", "read_file", r#"{"path": "a.reg"}"#]), @r#"
    exit 0
    --- stdout
    a.reg lines 1-2 of 2; encoded in UTF-16LE
    1|one
    2|two ä
    "#);
    snapshot!(world.observe(&["tools", "call", "search", r#"{"pattern": "two ä"}"#]), @r#"
    exit 0
    --- stdout
    1 match in 1 file
    a.reg:2: two ä
    "#);
    let seen = world.observe_with_input(&["patch"], block("a.reg", "two ä", "zwei 日").as_bytes());
    assert!(seen.starts_with("exit 0"), "{seen}");
    assert_eq!(fs::read(path(&world, b"a.reg")).unwrap(), utf16("\u{feff}one\r\nzwei 日\r\n"));
}

const NOTEBOOK: &str = r##"{
 "cells": [
  {
   "cell_type": "code",
   "execution_count": 1,
   "id": "a1",
   "metadata": {},
   "outputs": [{"name": "stdout", "output_type": "stream", "text": ["1\n"]}],
   "source": [
    "x = 1\n",
    "print(x)"
   ]
  }
 ],
 "metadata": {},
 "nbformat": 4,
 "nbformat_minor": 5
}
"##;

#[test]
fn a_notebook_is_read_and_edited_as_cells_and_a_diff_of_its_json_can_be_applied() {
    let world = world(&[(b"n.ipynb", NOTEBOOK.as_bytes())]);
    snapshot!(world.observe(&["tools", "call", "read_file", r#"{"path": "n.ipynb"}"#]), @r###"
    exit 0
    --- stdout
    n.ipynb lines 1-3 of 3; a notebook, shown as cells without outputs; a line "# %% [code]" or "# %% [markdown]" starts a new cell
    1|# %% [code] id=a1
    2|x = 1
    3|print(x)
    "###);
    let new = "print(x)\n\n# %% [markdown]\nDone.";
    let seen = world.observe_with_input(&["patch"], block("n.ipynb", "print(x)", new).as_bytes());
    assert!(seen.starts_with("exit 0"), "{seen}");
    let cell = "  },\n  {\n   \"cell_type\": \"markdown\",\n   \"id\": \"cell-2\",\n   \"metadata\": {},\n   \"source\": [\n    \"Done.\"\n   ]\n  }\n ],";
    assert_eq!(world.read("n.ipynb"), NOTEBOOK.replace("  }\n ],", cell));
    world.write("n.ipynb", NOTEBOOK);
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=notebook"]);
    world.write("n.ipynb", &NOTEBOOK.replace("\"execution_count\": 1", "\"execution_count\": 2"));
    let diff = world.git(&["diff"]);
    world.git(&["checkout", "--quiet", "--", "n.ipynb"]);
    assert!(world.observe_with_input(&["patch"], diff.as_bytes()).starts_with("exit 0"));
    assert!(world.read("n.ipynb").contains("\"execution_count\": 2"));
}

#[test]
fn file_names_that_are_not_utf_8_are_addressed_by_escapes() {
    let world = world(&[(b"caf\xe9.txt", b"one\n"), (b"d.txt", b"one\n")]);
    snapshot!(world.observe(&["tools", "call", "list_files", "{}"]), @r#"
    exit 0
    --- stdout
    2 files; \xHH in a name is a byte that is not UTF-8; use it in paths as shown
    caf\xe9.txt
    d.txt
    "#);
    snapshot!(world.observe(&["tools", "call", "read_file", r#"{"path": "caf\\xe9.txt"}"#]), @r#"
    exit 0
    --- stdout
    caf\xe9.txt lines 1-1 of 1
    1|one
    "#);
    let seen = world.observe_with_input(&["patch"], block("caf\\xe9.txt", "one", "two").as_bytes());
    assert!(seen.starts_with("exit 0"), "{seen}");
    assert_eq!(fs::read(path(&world, b"caf\xe9.txt")).unwrap(), b"two\n");
    world.git(&["add", "--all"]);
    world.git(&["commit", "--quiet", "--message=name"]);
    fs::write(path(&world, b"caf\xe9.txt"), "three\n").unwrap();
    let diff = world.git(&["diff"]);
    assert!(diff.contains("caf\\351.txt"), "{diff}");
    world.git(&["checkout", "--quiet", "."]);
    let seen = world.observe_with_input(&["patch"], diff.as_bytes());
    assert!(seen.starts_with("exit 0"), "{seen}");
    assert_eq!(fs::read(path(&world, b"caf\xe9.txt")).unwrap(), b"three\n");
}

#[test]
fn a_name_in_another_unicode_normal_form_matches_the_file() {
    let (composed, decomposed) = ("é/ö.txt", "e\u{301}/o\u{308}.txt");
    for (there, asked) in [(composed, decomposed), (decomposed, composed)] {
        let world = World::with(&[(there, "one\n")]);
        let seen = world.observe_with_input(&["patch"], block(asked, "one", "two").as_bytes());
        assert!(seen.starts_with("exit 0"), "{seen}");
        assert_eq!(world.read(there), "two\n");
        assert!(!world.repo().join(asked).exists());
        // A new file is created in the existing folder.
        let new = asked.replace("ö", "new").replace("o\u{308}", "new");
        let patch = format!("*** Begin Patch\n*** Add File: {new}\n+x\n*** End Patch\n");
        assert!(world.observe_with_input(&["patch"], patch.as_bytes()).starts_with("exit 0"));
        assert_eq!(fs::read_dir(world.repo()).unwrap().count(), 2, "there should be one folder next to .git");
    }
    let both = World::with(&[(composed, "one\n"), (decomposed, "one\n")]);
    let seen = both.observe_with_input(&["patch"], block(composed, "one", "two").as_bytes());
    assert!(seen.starts_with("exit 0"), "{seen}");
    assert_eq!((both.read(composed), both.read(decomposed)), ("two\n".into(), "one\n".into()));
}

#[test]
fn a_bare_repository_is_refused() {
    let world = World::new();
    world.git(&["init", "--quiet", "--bare", "b.git"]);
    for args in [&["-C", "b.git", "run", "Do it."][..], &["-C", "b.git/hooks", "patch", "-"]] {
        let seen = world.observe_with_input(args, b"a\n<<<<<<< SEARCH\n=======\nx\n>>>>>>> REPLACE\n");
        assert!(seen.starts_with("exit 2") && seen.contains("b.git is a bare repository"), "{seen}");
    }
    assert!(!world.repo().join("b.git/a").exists() && !world.repo().join("b.git/hooks/a").exists());
}

#[test]
fn the_output_of_a_command_that_cannot_write_below_home_says_how_to_allow_it() {
    let world = World::with(&[(".agent.toml", "verify = 'mkdir $HOME/.myapp'\n")]);
    let tests = world.observe(&["tools", "call", "run_tests", "{}"]);
    let command = r#"{"command": "echo x > $HOME/x.txt"}"#;
    for seen in [tests, world.observe(&["tools", "call", "run_command", command])] {
        assert!(seen.contains("below the home directory") && seen.contains("--allow-write"), "{seen}");
    }
}
