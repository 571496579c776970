//! Tests that no path leads to reads or writes outside the root, and that no access blocks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;
use workspace::{Change, CommitError, Expect, PathError, ReadError, WalkFilter, Workspace};

/// Creates `outer/root` with a few files, and `outer/secret` beside it.
fn fixture() -> (TempDir, Workspace) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("src/deep")).unwrap();
    fs::create_dir_all(root.join(".git/hooks")).unwrap();
    fs::write(root.join("src/main.rs"), "fn main() {}\n").unwrap();
    fs::write(root.join("src/deep/parser.rs"), "// parser\n").unwrap();
    fs::write(root.join("README.md"), "# Read me\n").unwrap();
    fs::write(outer.path().join("secret"), "secret\n").unwrap();
    let ws = Workspace::open(&root).unwrap();
    (outer, ws)
}

fn write(ws: &Workspace, path: &str) -> Result<(), String> {
    let path = ws.target(path).map_err(|e| e.to_string())?;
    let change = Change::Write { path, bytes: b"x\n".to_vec(), executable: None, expect: Expect::Any };
    ws.commit(vec![change]).map(|_| ()).map_err(|e| e.to_string())
}

#[test]
fn paths_resolve_as_models_write_them() {
    let (outer, ws) = fixture();
    let absolute = outer.path().canonicalize().unwrap().join("root/src/main.rs");
    let absolute = absolute.to_str().unwrap();
    let spellings = [
        "src/main.rs",
        "./src/main.rs",
        "src//main.rs",
        " src/main.rs ",
        "\"src/main.rs\"",
        "`src/main.rs`",
        "src\\main.rs",
        "a/src/main.rs",
        "b/src/main.rs",
        "src/deep/../main.rs",
        absolute,
    ];
    for given in spellings {
        assert_eq!(ws.resolve(given).unwrap().as_str(), "src/main.rs", "{given}");
    }
    assert_eq!(ws.resolve(".").unwrap().as_str(), ".");
    assert_eq!(ws.resolve("src/").unwrap().as_str(), "src");
}

#[test]
fn a_folder_named_a_is_not_mistaken_for_a_diff_prefix() {
    let (_outer, ws) = fixture();
    fs::create_dir_all(ws.root().join("a/src")).unwrap();
    fs::write(ws.root().join("a/src/main.rs"), "other\n").unwrap();
    assert_eq!(ws.resolve("a/src/main.rs").unwrap().as_str(), "a/src/main.rs");
    assert_eq!(ws.target("a/new.rs").unwrap().as_str(), "a/new.rs");
}

#[test]
fn the_error_for_a_wrong_path_suggests_the_nearest_ones() {
    let (_outer, ws) = fixture();
    let nearest = |given: &str| match ws.resolve(given) {
        Err(PathError::NotFound { nearest, .. }) => nearest,
        other => panic!("{given}: {other:?}"),
    };
    assert_eq!(nearest("parser.rs"), ["src/deep/parser.rs"]);
    assert_eq!(nearest("src/mian.rs"), ["src/main.rs"]);
    assert_eq!(nearest("readme.md"), ["README.md"]);
    assert_eq!(nearest("src/main.py"), ["src/main.rs"]);
    assert_eq!(nearest("nothing/like/it.c"), [""; 0]);
    let message = ws.resolve("src/mian.rs").unwrap_err().to_string();
    assert_eq!(message, "src/mian.rs does not exist; did you mean src/main.rs?");
}

#[test]
fn no_spelling_of_a_path_leads_outside() {
    let (outer, ws) = fixture();
    symlink("../secret", ws.root().join("link")).unwrap();
    symlink(outer.path(), ws.root().join("up")).unwrap();
    symlink("..", ws.root().join("dots")).unwrap();
    symlink("/proc/self/root", ws.root().join("proc")).unwrap();
    for given in [
        "..",
        "../secret",
        "src/../../secret",
        "/etc/passwd",
        "/",
        "link",
        "up/secret",
        "dots/secret",
        "proc/etc/passwd",
        "..\\secret",
        "'../secret'",
        "a/../../secret",
        "./.././secret",
    ] {
        assert!(
            matches!(ws.resolve(given), Err(PathError::Outside { .. })),
            "{given}: {:?}",
            ws.resolve(given)
        );
        assert!(write(&ws, given).is_err(), "{given}");
    }
    for given in ["up/new", "dots/new", "../new", "/new-file-of-a-test"] {
        assert!(write(&ws, given).is_err(), "{given}");
    }
    assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"secret\n");
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
}

#[test]
fn invalid_paths_are_refused() {
    let (_outer, ws) = fixture();
    let long = "x".repeat(5000);
    for given in ["", "  ", "a\nb", "a\0b", "\"\"", &long] {
        assert!(matches!(ws.resolve(given), Err(PathError::NotAPath(_))), "{given:?}");
    }
    assert!(ws.target(".").is_err());
}

#[test]
fn git_folders_are_never_written_under_any_name() {
    let (_outer, ws) = fixture();
    fs::write(ws.root().join(".git/config"), "[core]\n").unwrap();
    symlink(".git", ws.root().join("innocent")).unwrap();
    symlink(".git/config", ws.root().join("settings")).unwrap();
    for given in [
        ".git/config",
        ".git/hooks/pre-commit",
        ".GIT/config",
        ".Git",
        "sub/.git/config",
        "./.git/x",
        "innocent/config",
        "innocent/new",
        "settings",
        ".g\u{200c}it/config",
        "\u{feff}.git/config",
        ".git\u{202e}/config",
        "git~1/config",
        "GIT~1",
        ".git./config",
        ".git /config",
        ".git . ./config",
        ".git::$INDEX_ALLOCATION/config",
        "sub/.git. /hooks/x",
        "src/../.git/config",
    ] {
        assert!(matches!(ws.target(given), Err(PathError::Protected { owner: "git", .. })), "{given}");
    }
    assert!(ws.target(".gitignore").is_ok());
    assert!(ws.target(".github/workflows/ci.yml").is_ok());
}

#[test]
fn names_that_only_resemble_git_are_ordinary_files() {
    let (_outer, ws) = fixture();
    for given in
        [".gitignore", ".gitattributes", ".git-blame-ignore-revs", "git", "x.git", ".gitx", "git~2", "..git"]
    {
        assert!(write(&ws, given).is_ok(), "{given}");
    }
}

#[test]
fn a_git_folder_with_another_name_is_never_written() {
    let (_outer, ws) = fixture();
    let root = ws.root().to_owned();
    fs::rename(root.join(".git"), root.join("data")).unwrap();
    fs::create_dir_all(root.join("common/hooks")).unwrap();
    fs::write(root.join("data/commondir"), "../common\n").unwrap();
    for by_link in [true, false] {
        if by_link {
            symlink("data", root.join(".git")).unwrap();
        } else {
            fs::remove_file(root.join(".git")).unwrap();
            fs::write(root.join(".git"), "gitdir: data\n").unwrap();
        }
        let ws = Workspace::open(&root).unwrap();
        assert!(write(&ws, ".git").is_err());
        for given in ["data/config", "data/hooks/pre-commit"] {
            assert!(write(&ws, given).unwrap_err().contains("belongs to git"), "{by_link} {given}");
        }
        assert_eq!(write(&ws, "common/hooks/pre-commit").is_err(), !by_link);
        assert!(write(&ws, "src/main.rs").is_ok());
    }
}

#[test]
fn a_dot_git_that_is_a_pipe_or_device_never_blocks() {
    let (_outer, ws) = fixture();
    let git = ws.root().join(".git");
    fs::remove_dir_all(&git).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &git, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(write(&Workspace::open(ws.root()).unwrap(), ".git").is_err());
    fs::remove_file(&git).unwrap();
    symlink("/dev/zero", &git).unwrap();
    assert!(write(&Workspace::open(ws.root()).unwrap(), "README.md").is_ok());
}

#[test]
fn a_write_through_a_link_to_a_folder_goes_to_the_linked_folder() {
    let (outer, ws) = fixture();
    symlink("src/deep", ws.root().join("short")).unwrap();
    symlink("short", ws.root().join("shorter")).unwrap();
    write(&ws, "shorter/new.rs").unwrap();
    assert_eq!(fs::read(ws.root().join("src/deep/new.rs")).unwrap(), b"x\n");
    assert!(ws.root().join("short").symlink_metadata().unwrap().is_symlink());
    // Change the link between the check and the write: the write still goes to the checked path.
    let path = ws.target("short/again.rs").unwrap();
    fs::remove_file(ws.root().join("short")).unwrap();
    symlink(outer.path(), ws.root().join("short")).unwrap();
    let change = Change::Write { path, bytes: b"x".to_vec(), executable: None, expect: Expect::Any };
    ws.commit(vec![change]).unwrap();
    assert!(ws.root().join("src/deep/again.rs").exists() && !outer.path().join("again.rs").exists());
}

#[test]
fn only_regular_files_are_ever_replaced() {
    let (outer, ws) = fixture();
    let root = ws.root();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    symlink(outer.path().join("secret"), root.join("link")).unwrap();
    let path = |text: &str| serde_json::from_value::<workspace::CleanPath>(serde_json::json!(text)).unwrap();
    for name in ["pipe", "socket", "link", "src"] {
        let changes = [
            Change::Write { path: path(name), bytes: b"x".to_vec(), executable: None, expect: Expect::Any },
            Change::Delete { path: path(name), expect: Expect::Any },
            Change::Rename {
                from: path(name),
                to: path("moved"),
                bytes: None,
                executable: None,
                expect: Expect::Any,
            },
            Change::Rename {
                from: path("README.md"),
                to: path(name),
                bytes: None,
                executable: None,
                expect: Expect::Any,
            },
        ];
        for change in changes {
            assert!(matches!(ws.commit(vec![change]), Err(CommitError::NotAFile(p)) if p == path(name)));
        }
    }
    assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"secret\n");
    assert!(root.join("README.md").exists());
}

#[test]
fn the_state_folder_is_never_written_even_inside_the_root() {
    let (_outer, ws) = fixture();
    let state = ws.root().join(".agent/session");
    let ws = Workspace::open_with(ws.root(), &state).unwrap();
    symlink(".agent/session", ws.root().join("alias")).unwrap();
    for given in [".agent/session/x", ".agent/session/commits/000001/0", "alias/x"] {
        assert!(write(&ws, given).unwrap_err().contains("the agent itself"), "{given}");
    }
    assert!(!state.join("x").exists());
}

#[test]
fn a_folder_replaced_with_a_link_after_the_check_is_not_followed() {
    let (outer, ws) = fixture();
    let path = ws.target("src/deep/new.rs").unwrap();
    fs::remove_dir_all(ws.root().join("src/deep")).unwrap();
    symlink(outer.path(), ws.root().join("src/deep")).unwrap();
    let change = Change::Write { path, bytes: b"x".to_vec(), executable: None, expect: Expect::Any };
    assert!(ws.commit(vec![change]).is_err());
    assert!(!outer.path().join("new.rs").exists());
}

#[test]
fn a_file_replaced_with_a_link_after_the_check_is_not_followed() {
    let (outer, ws) = fixture();
    let path = ws.target("README.md").unwrap();
    fs::remove_file(ws.root().join("README.md")).unwrap();
    symlink(outer.path().join("secret"), ws.root().join("README.md")).unwrap();
    let change =
        Change::Write { path: path.clone(), bytes: b"x".to_vec(), executable: None, expect: Expect::Any };
    assert!(matches!(ws.commit(vec![change]), Err(CommitError::NotAFile(p)) if p == path));
    assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"secret\n");
}

#[test]
fn a_hard_link_to_a_file_outside_is_not_written_through() {
    let (outer, ws) = fixture();
    fs::hard_link(outer.path().join("secret"), ws.root().join("shared")).unwrap();
    write(&ws, "shared").unwrap();
    assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"secret\n");
    assert_eq!(fs::read(ws.root().join("shared")).unwrap(), b"x\n");
}

#[test]
fn writing_through_a_link_changes_its_target_and_keeps_the_link() {
    let (_outer, ws) = fixture();
    symlink("src/main.rs", ws.root().join("entry")).unwrap();
    write(&ws, "entry").unwrap();
    assert!(ws.root().join("entry").symlink_metadata().unwrap().is_symlink());
    assert_eq!(fs::read(ws.root().join("src/main.rs")).unwrap(), b"x\n");
    symlink("nowhere", ws.root().join("dangling")).unwrap();
    assert!(write(&ws, "dangling").is_err());
}

#[test]
fn pipes_and_devices_never_block() {
    let (_outer, ws) = fixture();
    let pipe = ws.root().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let path = ws.resolve("pipe").unwrap();
    assert_eq!(ws.read(&path).map(drop), Err(ReadError::Special { path: path.clone(), kind: "named pipe" }));
    assert!(write(&ws, "pipe").is_err());
    let dev = Workspace::open("/dev").unwrap();
    assert!(matches!(
        dev.read(&dev.resolve("zero").unwrap()).map(drop),
        Err(ReadError::Special { kind: "device", .. })
    ));
}

#[test]
fn read_errors_say_what_is_wrong() {
    let (_outer, ws) = fixture();
    fs::write(ws.root().join("image.png"), b"\x89PNG\0\0").unwrap();
    fs::File::create(ws.root().join("huge")).unwrap().set_len(1 << 40).unwrap();
    let error = |p: &str| ws.read(&ws.resolve(p).unwrap()).unwrap_err().to_string();
    assert_eq!(error("src"), "src is a directory; list it with list_files");
    assert_eq!(error("image.png"), "image.png is a binary file of 6 bytes");
    assert_eq!(error("huge"), "huge is too large: 1099511627776 bytes, and the limit is 16777216");
    assert!(write(&ws, "src").unwrap_err().contains("not a regular file"));
    assert!(write(&ws, "README.md/x").unwrap_err().contains("README.md"));
}

#[test]
fn a_walk_lists_what_git_would_track() {
    let (_outer, ws) = fixture();
    let put = |path: &str| {
        let path = ws.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    };
    fs::write(ws.root().join(".gitignore"), "target\n*.log\n").unwrap();
    for path in [
        "target/debug/x",
        "a.log",
        ".github/workflows/ci.yml",
        ".venv/lib/x.py",
        ".git/config",
        "z/new\nline",
    ] {
        put(path);
    }
    symlink("/etc", ws.root().join("etc")).unwrap();
    let listing = ws.walk(&WalkFilter::default());
    let paths: Vec<_> = listing.entries.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            ".github/workflows/ci.yml",
            ".gitignore",
            "README.md",
            "etc",
            "src/deep/parser.rs",
            "src/main.rs",
            "z/new\nline"
        ]
    );
    let cut = ws.walk(&WalkFilter { limit: 2, ..WalkFilter::default() });
    assert!(cut.cut && cut.entries.len() == 2);
    let under = WalkFilter {
        under: Some(ws.resolve("src").unwrap()),
        folders: true,
        depth: Some(1),
        ..WalkFilter::default()
    };
    let paths: Vec<_> = ws.walk(&under).entries.into_iter().map(|e| e.path.to_string()).collect();
    assert_eq!(paths, ["src/deep", "src/main.rs"]);
}

#[test]
fn ignore_rules_above_the_root_apply_only_inside_a_repository() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("target/copy");
    fs::create_dir_all(root.join("build")).unwrap();
    fs::write(outer.path().join(".gitignore"), "target\nbuild\n").unwrap();
    fs::write(root.join("a.txt"), "a\n").unwrap();
    fs::write(root.join("build/b.txt"), "b\n").unwrap();
    let paths = || {
        let listing = Workspace::open(&root).unwrap().walk(&WalkFilter::default());
        listing.entries.into_iter().map(|e| e.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(paths(), ["a.txt", "build/b.txt"]);
    fs::create_dir(outer.path().join(".git")).unwrap();
    fs::write(outer.path().join(".gitignore"), "build\n").unwrap();
    assert_eq!(paths(), ["a.txt"]);
    fs::create_dir(root.join(".git")).unwrap();
    assert_eq!(paths(), ["a.txt", "build/b.txt"]);
}

#[test]
fn a_walk_of_a_subfolder_applies_the_rules_of_the_root() {
    let (_outer, ws) = fixture();
    fs::write(ws.root().join(".gitignore"), "deep\n").unwrap();
    let under = WalkFilter { under: Some(ws.resolve("src").unwrap()), ..WalkFilter::default() };
    let paths: Vec<_> = ws.walk(&under).entries.into_iter().map(|e| e.path.to_string()).collect();
    assert_eq!(paths, ["src/main.rs"]);
    let asked = WalkFilter { under: Some(ws.resolve("src/deep").unwrap()), ..WalkFilter::default() };
    let paths: Vec<_> = ws.walk(&asked).entries.into_iter().map(|e| e.path.to_string()).collect();
    assert_eq!(paths, ["src/deep/parser.rs"]);
    let file = WalkFilter { under: Some(ws.resolve("src/main.rs").unwrap()), ..WalkFilter::default() };
    assert_eq!(ws.walk(&file).entries.len(), 1);
}

#[test]
fn a_missing_root_is_an_error() {
    assert!(Workspace::open(Path::new("/nonexistent/folder")).is_err());
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Workspace::open(file.path()).is_err());
}
