//! Runs every scenario in `fixtures/patches` through the engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use patch::{FilePatch, ParseError, apply};

type Tree = BTreeMap<String, Vec<u8>>;

fn tree(root: &Path) -> Tree {
    let mut out = Tree::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.file_name().unwrap() != ".keep" {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                out.insert(name, fs::read(path).unwrap());
            }
        }
    }
    out
}

fn patches(case: &Path) -> Result<Vec<FilePatch>, ParseError> {
    match fs::read(case.join("patch.txt")) {
        Ok(text) => patch::parse(&String::from_utf8(text).unwrap()),
        Err(_) => {
            let list: serde_json::Value =
                serde_json::from_slice(&fs::read(case.join("edits.json")).unwrap()).unwrap();
            let text = |e: &serde_json::Value, key: &str| e[key].as_str().unwrap().to_owned();
            let list: Vec<_> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|e| (text(e, "path"), text(e, "search"), text(e, "replace")))
                .collect();
            Ok(patch::edits(list.iter().map(|(p, s, r)| (p.as_str(), s.as_str(), r.as_str()))))
        }
    }
}

/// Returns the resulting tree, or the kind of refusal and the feedback.
fn run(case: &Path) -> Result<Tree, (String, String)> {
    let mut out = tree(&case.join("input"));
    let before = out.clone();
    for patch in patches(case).map_err(|e| ("parse".into(), e.to_string()))? {
        let source = patch.from.as_ref().unwrap_or(&patch.path);
        let applied = apply(before.get(source).map(Vec::as_slice), &patch).map_err(|e| {
            (serde_json::to_value(e.kind).unwrap().as_str().unwrap().to_owned(), e.to_string())
        })?;
        if patch.from.is_some() {
            out.remove(source);
        }
        match applied.bytes {
            Some(bytes) => out.insert(patch.path.clone(), bytes),
            None => out.remove(&patch.path),
        };
    }
    Ok(out)
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/patches");
    let mut out: Vec<_> =
        fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    out.sort();
    out
}

fn judge(case: &Path) -> Result<(), String> {
    let result = run(case);
    match (fs::read_to_string(case.join("refused.txt")), result) {
        (Err(_), Ok(after)) => {
            let expected = tree(&case.join("expected"));
            let show = |t: &Tree| {
                t.iter()
                    .map(|(k, v)| format!("{k}: {:?}", String::from_utf8_lossy(v)))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            if after == expected {
                return Ok(());
            }
            Err(format!("got\n{}\nexpected\n{}", show(&after), show(&expected)))
        }
        (Err(_), Err((kind, why))) => Err(format!("refused ({kind}): {why}")),
        // Bad paths are refused by the workspace, not by this crate.
        (Ok(wanted), _) if wanted.starts_with("path") => Ok(()),
        (Ok(_), Ok(_)) => Err("applied".into()),
        (Ok(wanted), Err((kind, why))) => {
            let mut wanted = wanted.lines();
            let right = wanted.next() == Some(&kind) && wanted.all(|text| why.contains(text));
            if right { Ok(()) } else { Err(format!("wrong refusal ({kind}): {why}")) }
        }
    }
}

#[test]
fn every_scenario_gives_the_expected_result() {
    let cases = cases();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.file_name()?.to_str()?, judge(case).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} scenarios:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
    assert!(cases.len() >= 100);
}
