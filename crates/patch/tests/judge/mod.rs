//! Runs one case from `patch_corpus` through the engine and judges the result.

#![allow(dead_code, reason = "each test program uses only part of this module")]
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use patch::{Action, Dialect, FilePatch, apply};
use patch_corpus::{Case, Class, Expected, Input, Tree};

/// The outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// As expected.
    Right,
    /// Refused, but it should have applied.
    Refused,
    /// Applied with the wrong bytes, or applied although it should have been refused.
    Wrong,
    /// Refused as expected, but for the wrong reason.
    OtherKind,
}

pub(crate) fn patches(input: &Input) -> Result<Vec<FilePatch>, String> {
    let file = |path: &str, action| FilePatch {
        dialect: Dialect::WholeFile,
        path: path.into(),
        from: None,
        action,
        hunks: Vec::new(),
        executable: None,
        own_endings: false,
    };
    match input {
        Input::Edits(edits) => {
            let edits = edits.iter().map(|e| (e.path.as_str(), e.search.as_str(), e.replace.as_str()));
            Ok(patch::edits(edits))
        }
        Input::Whole { path, content } => Ok(vec![patch::whole_file(path, content.as_bytes())]),
        Input::WholeLines { path, lines } => {
            Ok(vec![patch::whole_file(path, patch_corpus::joined(lines).as_bytes())])
        }
        Input::Delete { path } => Ok(vec![file(path, Action::Delete)]),
        Input::Text(_) | Input::Lines(_) => {
            patch::parse(&input.text().unwrap()).map_err(|e| format!("parse: {e}"))
        }
    }
}

/// Returns the resulting tree, or the kind of refusal and the feedback. Like a workspace, this
/// refuses to change a file twice or to rename one file onto another.
pub(crate) fn run(case: &Case) -> Result<Tree, String> {
    let mut out = case.before.clone();
    let mut touched = Vec::new();
    for patch in patches(&case.input)? {
        let source = patch.from.as_ref().unwrap_or(&patch.path);
        let before = case.before.get(source);
        let applied = apply(before.map(|(bytes, _)| bytes.as_slice()), &patch)
            .map_err(|e| format!("{}: {e}", serde_json::to_value(e.kind).unwrap().as_str().unwrap()))?;
        if touched.contains(&patch.path) || patch.from.is_some() && case.before.contains_key(&patch.path) {
            return Err(format!("twice: {}", patch.path));
        }
        touched.push(patch.path.clone());
        if patch.from.is_some() {
            out.remove(source);
        }
        let executable = patch.executable.unwrap_or(before.is_some_and(|(_, x)| *x));
        match applied.bytes {
            Some(bytes) => out.insert(patch.path.clone(), (bytes, executable)),
            None => out.remove(&patch.path),
        };
    }
    Ok(out)
}

pub(crate) fn judge(case: &Case) -> (Verdict, String) {
    match (&case.expected, run(case)) {
        (Expected::Tree(tree), Ok(after)) if after == *tree => (Verdict::Right, String::new()),
        (Expected::Tree(tree), Ok(after)) => (Verdict::Wrong, difference(&after, tree)),
        (Expected::Tree(_), Err(_)) if case.class == Class::Either => (Verdict::Right, String::new()),
        (Expected::Tree(_), Err(why)) => (Verdict::Refused, why),
        (Expected::Refused(_), Ok(after)) => (Verdict::Wrong, difference(&after, &case.before)),
        (Expected::Refused(Some(kind)), Err(why)) if !why.starts_with(&format!("{kind}:")) => {
            (Verdict::OtherKind, format!("expected {kind}, got {why}"))
        }
        (Expected::Refused(_), Err(_)) => (Verdict::Right, String::new()),
    }
}

/// Returns whether a wrong result differs from the right one only in line endings and in the
/// whitespace before them. Such a result may be legitimate: if identical lines of a file have
/// different endings, the patch does not say which ending a new line gets.
pub(crate) fn is_right_but_for_line_ends(case: &Case) -> bool {
    let (Expected::Tree(wanted), Ok(after)) = (&case.expected, run(case)) else { return false };
    let plain = |tree: &Tree| -> Vec<(String, Vec<Vec<u8>>, bool)> {
        let lines =
            |bytes: &[u8]| bytes.split(|b| *b == b'\n').map(|line| line.trim_ascii_end().to_vec()).collect();
        tree.iter().map(|(path, (bytes, x))| (path.clone(), lines(bytes), *x)).collect()
    };
    plain(&after) == plain(wanted)
}

fn difference(got: &Tree, wanted: &Tree) -> String {
    for path in got.keys().chain(wanted.keys()) {
        let (got, wanted) = (got.get(path), wanted.get(path));
        if got == wanted {
            continue;
        }
        let (Some((got, x)), Some((wanted, y))) = (got, wanted) else {
            return format!("{path}: exists: {}, expected: {}", got.is_some(), wanted.is_some());
        };
        let (got, wanted): (Vec<_>, Vec<_>) = (
            got.split_inclusive(|b| *b == b'\n').collect(),
            wanted.split_inclusive(|b| *b == b'\n').collect(),
        );
        let at = got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        let show = |lines: &[&[u8]]| {
            let lines = &lines[at.min(lines.len())..(at + 3).min(lines.len())];
            String::from_utf8_lossy(&lines.concat()).chars().take(200).collect::<String>()
        };
        let mode = if x == y { "" } else { "; the mode differs" };
        return format!("{path}: line {} is {:?}, expected {:?}{mode}", at + 1, show(&got), show(&wanted));
    }
    "nothing differs".into()
}
