//! Runs cases from `patch_corpus` through the tool, in a real folder: every security case, and a
//! fixed sample of the others. The folder must match byte for byte, and nothing outside it may
//! change.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use patch_corpus::{Case, Class, Expected, Fixture, Tree};
use secrets::Secrets;
use tool_api::{Registry, Status, ToolError};
use tool_apply_patch::ApplyPatch;
use workspace::Workspace;

/// The test runs every security case, and one in `EVERY` of the other cases.
const EVERY: usize = 17;

/// A file or link in a folder.
#[derive(Clone, PartialEq, Eq)]
enum Entry {
    File(Vec<u8>, bool),
    Link(PathBuf),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(bytes, true) => write!(f, "executable {:?}", String::from_utf8_lossy(bytes)),
            Self::File(bytes, false) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Link(target) => write!(f, "link to {target:?}"),
        }
    }
}

/// Returns everything below a folder except the workspace's own files.
fn everything(root: &Path, own: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut out = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_owned();
            if meta.is_symlink() {
                out.insert(name, Entry::Link(fs::read_link(&path).unwrap()));
            } else if meta.is_dir() {
                todo.push(path);
            } else if !path.starts_with(own) || path.ends_with("kept.txt") {
                out.insert(name, Entry::File(fs::read(&path).unwrap(), meta.mode() & 0o100 != 0));
            }
        }
    }
    out
}

fn write(path: &Path, bytes: &[u8], executable: bool) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    if executable {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Creates the folder for a case, with its files and fixtures. Returns the folder and the
/// workspace's state folder.
fn set_up(case: &Case, outer: &Path) -> (PathBuf, PathBuf) {
    let root = outer.join("root");
    let mut state = outer.join("state");
    fs::create_dir(&root).unwrap();
    for (path, (bytes, executable)) in &case.before {
        write(&root.join(path), bytes, *executable);
    }
    for fixture in &case.fixtures {
        match fixture {
            Fixture::Outside { path, bytes } => write(&outer.join(path), bytes, false),
            Fixture::Symlink { path, target } => symlink(target, root.join(path)).unwrap(),
            Fixture::HardLink { path, target } => fs::hard_link(root.join(target), root.join(path)).unwrap(),
            Fixture::State { path } => state = root.join(path),
        }
    }
    (root, state)
}

/// Returns whether `all` contains exactly the files of `tree` and the fixtures of the case.
fn is_tree(
    all: &BTreeMap<PathBuf, Entry>,
    before: &BTreeMap<PathBuf, Entry>,
    case: &Case,
    tree: &Tree,
) -> bool {
    let mut wanted = before.clone();
    for path in case.before.keys() {
        wanted.remove(&Path::new("root").join(path));
    }
    for (path, (bytes, executable)) in tree {
        wanted.insert(Path::new("root").join(path), Entry::File(bytes.clone(), *executable));
    }
    *all == wanted
}

async fn judge(case: &Case) -> Result<(), String> {
    // Use a folder in memory if possible, because each commit is synced to disk.
    let memory = Path::new("/dev/shm");
    let outer = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let (root, state) = set_up(case, outer.path());
    let tool = ApplyPatch::new(Workspace::open_with(&root, &state).unwrap(), Secrets::disabled());
    let before = everything(outer.path(), &state);
    let result = Registry::of([tool.into_tool()]).unwrap().call("apply_patch", case.input.arguments()).await;
    let after = everything(outer.path(), &state);
    let differs = || {
        let changed = |(path, entry): &(&PathBuf, &Entry)| before.get(*path) != Some(entry);
        let new: Vec<_> = after.iter().filter(changed).collect();
        let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
        let mut text = format!("now {new:?}, gone {gone:?}");
        text.truncate(text.char_indices().nth(400).map_or(text.len(), |(i, _)| i));
        text
    };
    let refused = match result {
        Ok(outcome) if outcome.status != Status::Ok => {
            return Err(format!("neither applied nor refused: {}", outcome.text));
        }
        Ok(_) => None,
        Err(ToolError::Model(why)) => Some(why),
        Err(ToolError::Run(why)) => return Err(format!("the call stopped the run: {why}")),
    };
    match (&case.expected, refused) {
        (_, Some(why)) if after != before => {
            Err(format!("refused ({why}), but the files changed: {}", differs()))
        }
        (Expected::Refused(_), None) => Err(format!("applied: {}", differs())),
        (Expected::Refused(_), Some(_)) => Ok(()),
        (Expected::Tree(_), Some(_)) if matches!(case.class, Class::Either | Class::Security) => Ok(()),
        (Expected::Tree(_), Some(why)) => Err(format!("refused: {why}")),
        (Expected::Tree(tree), None) if is_tree(&after, &before, case, tree) => Ok(()),
        (Expected::Tree(_), None) => Err(format!("not as expected: {}", differs())),
    }
}

/// Judges some of the cases and returns the failures. Each thread calls this once.
fn judge_all(cases: &[&Case]) -> Vec<(Class, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let judged = cases.iter().filter_map(|case| {
        let why = runtime.block_on(judge(case)).err()?;
        Some((case.class, format!("{}: {why}", case.name).chars().take(700).collect()))
    });
    judged.collect()
}

#[test]
fn a_folder_ends_as_expected_and_nothing_outside_it_changes() {
    let cases = patch_corpus::cases();
    let (security, others): (Vec<_>, Vec<_>) = cases.iter().partition(|c| c.class == Class::Security);
    let sample: Vec<&Case> = others.into_iter().step_by(EVERY).chain(security).collect();
    assert!(sample.len() >= 1000, "{}", sample.len());
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let parts: Vec<&[&Case]> = sample.chunks(sample.len().div_ceil(threads)).collect();
    let failures: Vec<(Class, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| judge_all(part))).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // One in a hundred deformed patches may be refused.
    let (refused, wrong): (Vec<_>, Vec<_>) = failures
        .into_iter()
        .partition(|(class, why)| *class == Class::Deformed && why.contains(": refused: "));
    let wrong: Vec<String> = wrong.into_iter().map(|(_, why)| why).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n\n{}", wrong.len(), sample.len(), wrong.join("\n\n"));
    let deformed = sample.iter().filter(|c| c.class == Class::Deformed).count();
    assert!(
        refused.len() * 100 <= deformed,
        "{} of {deformed} deformed patches refused: {refused:#?}",
        refused.len()
    );
    assert!(
        !Path::new("/tmp/patch-corpus-was-here.txt").exists()
            && !Path::new("/etc/patch-corpus-was-here").exists()
    );
}
