//! Runs every scenario in `fixtures/patches` through the tool, in a real folder. Afterward, the
//! tree must be as expected or, if the patch is refused, unchanged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use secrets::Secrets;
use serde_json::{Value, json};
use tool_api::{Registry, Status, ToolError};
use workspace::Workspace;

type Tree = BTreeMap<String, (Vec<u8>, bool)>;

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
                let executable = path.metadata().unwrap().permissions().mode() & 0o100 != 0;
                out.insert(name, (fs::read(path).unwrap(), executable));
            }
        }
    }
    out
}

fn arguments(case: &Path) -> Value {
    match fs::read_to_string(case.join("patch.txt")) {
        Ok(patch) => json!({ "patch": patch }),
        Err(_) => {
            json!({"edits": serde_json::from_slice::<Value>(&fs::read(case.join("edits.json")).unwrap()).unwrap()})
        }
    }
}

async fn judge(case: &Path) -> Result<(), String> {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("root");
    let state = outer.path().join("state");
    fs::create_dir(&root).unwrap();
    Workspace::open(case.join("input")).unwrap().copy_to(&root.join("copy")).unwrap();
    let root = root.join("copy");
    let before = tree(&root);
    let registry = Registry::of([tool_apply_patch::ApplyPatch::new(
        Workspace::open_with(&root, &state).unwrap(),
        Secrets::disabled(),
    )
    .into_tool()])
    .unwrap();
    let result = registry.call("apply_patch", arguments(case)).await;
    let after = tree(&root);
    let outside: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    if outside.len() != 2 {
        return Err(format!("something was written outside: {outside:?}"));
    }
    match (fs::read_to_string(case.join("refused.txt")), result) {
        (Err(_), Ok(outcome)) => {
            assert_eq!(outcome.status, Status::Ok);
            if after == tree(&case.join("expected")) { Ok(()) } else { Err(format!("got {after:#?}")) }
        }
        (Err(_), Err(e)) => Err(format!("refused: {e}")),
        (Ok(_), Ok(outcome)) => Err(format!("applied: {}", outcome.text)),
        (Ok(_), Err(ToolError::Run(why))) => Err(format!("the call stopped the run: {why}")),
        (Ok(_), Err(ToolError::Model(_))) if after != before => {
            Err("refused, but the tree has changed".into())
        }
        (Ok(wanted), Err(ToolError::Model(why))) => {
            let missing = wanted.lines().skip(1).find(|text| !why.contains(text));
            // A missing file is reported by the workspace, whose message differs from the engine's.
            match missing {
                Some(text) if !wanted.starts_with("missing") => Err(format!("{text:?} missing: {why}")),
                _ => Ok(()),
            }
        }
    }
}

#[tokio::test]
async fn every_scenario_produces_the_expected_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/patches");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    cases.sort();
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(why) = judge(case).await {
            wrong.push(format!("{}: {why}", case.file_name().unwrap().to_str().unwrap()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} scenarios:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}
