//! Writes the corpus as directories, like `fixtures/patches`:
//! `cargo run -p patch_corpus --example write_corpus DIR`.
//!
//! Each case is a directory `NNNNN/` that contains `name.txt`, `input/`, the patch (`patch.txt`,
//! `edits.json` or `arguments.json`) and the result (`expected/` or `refused.txt`). Links and files
//! outside the root are listed in `fixtures.txt`.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use patch_corpus::{Case, Expected, Input, Tree};

fn main() -> io::Result<()> {
    let dir = std::env::args().nth(1).ok_or_else(|| io::Error::other("usage: write_corpus DIR"))?;
    for (i, case) in patch_corpus::cases().iter().enumerate() {
        write(case, &Path::new(&dir).join(format!("{i:05}")))?;
    }
    Ok(())
}

fn write(case: &Case, dir: &Path) -> io::Result<()> {
    tree(&case.before, &dir.join("input"))?;
    let about =
        format!("{}\n{:?} {:?}\n{}\n", case.name, case.class, case.form, case.deformations.join("\n"));
    fs::write(dir.join("name.txt"), about)?;
    match (&case.input, case.input.text()) {
        (_, Some(text)) => fs::write(dir.join("patch.txt"), text)?,
        (Input::Edits(_), None) => {
            fs::write(dir.join("edits.json"), case.input.arguments()["edits"].to_string())?
        }
        _ => fs::write(dir.join("arguments.json"), case.input.arguments().to_string())?,
    }
    if !case.fixtures.is_empty() {
        fs::write(dir.join("fixtures.txt"), format!("{:#?}\n", case.fixtures))?;
    }
    match &case.expected {
        Expected::Tree(after) => tree(after, &dir.join("expected")),
        Expected::Refused(kind) => fs::write(dir.join("refused.txt"), kind.unwrap_or_default()),
    }
}

fn tree(tree: &Tree, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (path, (bytes, executable)) in tree {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        if *executable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(())
}
