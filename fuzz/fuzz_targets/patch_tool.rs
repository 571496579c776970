//! Calls `apply_patch` with arbitrary arguments, in a real directory with symbolic links that point
//! outside it. A call must not write anything outside the directory, and must not write git's files
//! or the agent's own files. A refused call must change nothing. A successful call must report all
//! its changes.
//!
//! The first byte selects the format. The rest is either a patch or several arguments, such as the
//! path, the old text and the new text, separated by bytes with the value 255.
#![no_main]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use libfuzzer_sys::fuzz_target;
use secrets::Secrets;
use serde_json::{Value, json};
use tempfile::TempDir;
use tool_api::{Registry, ToolError};
use workspace::{CleanPath, Workspace};

const FILES: [(&str, &str); 7] = [
    ("root/x", "alpha\nbravo\ncharlie\n"),
    ("root/src/y.py", "def one():\n    return 1\n\ndef two():\n    return 2\n"),
    ("root/.git/config", "alpha\nbravo\ncharlie\n"),
    ("root/.own/kept", "alpha\nbravo\ncharlie\n"),
    ("secret", "alpha\nbravo\ncharlie\n"),
    ("outside/z", "alpha\nbravo\ncharlie\n"),
    ("root/a/b/c", "alpha\r\nbravo\r\n"),
];

const LINKS: [(&str, &str); 5] =
    [("out", "../outside"), ("link", "../secret"), ("git", ".git"), ("own", ".own"), ("src/in", "../x")];

/// The content of each file, the target of each link, and `None` for each directory. Of the agent's
/// own files, only `kept` is included.
type Everything = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn everything(outer: &Path) -> Everything {
    let mut out = Everything::new();
    let mut todo = vec![outer.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            let name = path.strip_prefix(outer).unwrap().to_owned();
            if kind.is_symlink() {
                out.insert(name, Some(fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()));
            } else if kind.is_dir() {
                out.insert(name.clone(), None);
                if !name.starts_with("root/.own") {
                    todo.push(path);
                }
            } else {
                out.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    out.insert("root/.own/kept".into(), fs::read(outer.join("root/.own/kept")).ok());
    out
}

struct Setting {
    outer: TempDir,
    registry: Registry,
    before: Everything,
}

fn set_up() -> Setting {
    let memory = Path::new("/dev/shm");
    let outer = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    for (path, text) in FILES {
        let path = outer.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = outer.path().join("root");
    for (path, target) in LINKS {
        symlink(target, root.join(path)).unwrap();
    }
    let tool = tool_apply_patch::ApplyPatch::new(Workspace::open_with(&root, root.join(".own")).unwrap(), Secrets::disabled());
    let before = everything(outer.path());
    Setting { registry: Registry::of([tool.into_tool()]).unwrap(), outer, before }
}

fn arguments(choice: u8, bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = bytes.split(|b| *b == 255).map(|p| String::from_utf8_lossy(p).into_owned());
    let mut part = || parts.next().unwrap_or_default();
    match choice % 6 {
        0 => json!({ "patch": text }),
        1 => json!({ "patch": text.split('\n').collect::<Vec<_>>() }),
        2 => {
            json!({"edits": [{"path": "x", "search": "bravo", "replace": "delta"}, {"path": part(), "search": part(), "replace": part()}]})
        }
        3 => json!({"path": part(), "content": part()}),
        4 => json!({"path": part(), "delete": true}),
        _ => json!({"path": part(), "patch": part()}),
    }
}

/// Returns whether the model may change a path.
fn allowed(path: &Path) -> bool {
    let inside = path.strip_prefix("root").is_ok_and(|p| !p.as_os_str().is_empty());
    let link = LINKS.iter().any(|(link, _)| path == Path::new("root").join(link));
    // The agent's directory has a fixed path, whereas any directory named `.git` belongs to git.
    inside
        && !link
        && !path.starts_with("root/.own")
        && !path.components().any(|c| c.as_os_str().eq_ignore_ascii_case(".git"))
}

thread_local! {
    static SETTING: RefCell<Option<Setting>> = const { RefCell::new(None) };
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    SETTING.with_borrow_mut(|kept| {
        let setting = kept.get_or_insert_with(set_up);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let call = setting.registry.call("apply_patch", arguments(*choice, bytes));
        let result = runtime.block_on(call);
        let after = everything(setting.outer.path());
        let names = || setting.before.keys().chain(after.keys());
        let changed: Vec<&PathBuf> = names().filter(|p| setting.before.get(*p) != after.get(*p)).collect();
        match result {
            Ok(outcome) => {
                assert!(changed.iter().all(|path| allowed(path)), "{changed:?}");
                // Bytes in a name that are not valid UTF-8 are reported as escapes.
                let reported = outcome.changed.iter().map(|p| CleanPath::try_from(p.clone()).unwrap());
                let reported: Vec<PathBuf> = reported.map(|p| Path::new("root").join(p)).collect();
                let files =
                    changed.iter().filter(|p| setting.before.get(**p).or(after.get(**p)) != Some(&None));
                let silent: Vec<_> = files.filter(|p| !reported.contains(p)).collect();
                assert!(silent.is_empty(), "changed but not reported: {silent:?}");
            }
            Err(ToolError::Model(why)) => assert!(changed.is_empty(), "refused ({why}) but changed {changed:?}"),
            Err(ToolError::Run(why)) => panic!("stopped the run: {why}"),
        }
        if !changed.is_empty() {
            *kept = None;
        }
    });
});
