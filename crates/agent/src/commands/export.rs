//! `agent sessions export`: writes a session to one file that can be replayed anywhere, and lists
//! what the file contains.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use replay::{Bundle, CONTENTS_LIMIT};

use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{bytes, plural};
use crate::masking;
use crate::replay::gather;
use crate::sanitize;

/// Maximum number of files to list by name.
const MAX_LISTED: usize = 40;

/// Exports a session. With `contents`, includes the files that a replay needs.
pub(crate) fn run(context: &Context, id: &str, output: Option<&Path>, contents: bool) -> Result<Exit> {
    let store = context.store()?;
    let id = store.find(id)?;
    let records = store.load(&id)?;
    let origin = journal::origin(&records).unwrap_or(&id).to_owned();
    let started = records.iter().any(|r| matches!(r.event, journal::Event::RunStarted { .. }));
    let scratch = tempfile::Builder::new().prefix("agent-export-").tempdir()?;
    let mut bundle = if contents && started {
        gather(&store, &id, records, scratch.path())?.bundle
    } else {
        Bundle::bare(records)
    };
    let limit = CONTENTS_LIMIT;
    if bundle.bytes() > limit {
        let size = bundle.bytes() >> 20;
        return Err(Failure::misuse(format!(
            "cannot export the session: its replay needs {size} MB of files, but the limit is {} MB",
            limit >> 20
        ))
        .hint("export it without files: --no-contents"));
    }
    let masked = bundle.mask(&masking::for_display(context, &origin));
    if masked > 0 {
        let files = plural(masked as u64, "file version");
        bundle.notes.push(format!("secrets in {files} are replaced with placeholders"));
    }
    let text = bundle.write(&id)?;
    match output {
        None => console::print(&text)?,
        Some(path) => write_new(path, &text)?,
    }
    manifest(&bundle, &id, output, text.len() as u64);
    Ok(Exit::Success)
}

/// Writes a new file that only the user can read.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes()).inspect_err(|_| drop(std::fs::remove_file(path)))
    });
    written.map_err(|e| Failure::misuse(format!("cannot write {}: {e}", path.display())))
}

/// Lists what the file contains.
fn manifest(bundle: &Bundle, id: &str, output: Option<&Path>, size: u64) {
    let to = output.map_or("standard output".into(), |path| path.display().to_string());
    let mut lines = vec![format!(
        "exported session {id} to {to}: {} in {}",
        bytes(size),
        plural(bundle.records.len() as u64, "event")
    )];
    lines.push("it contains the task, all prompts and answers, the output of commands, settings (but no API keys), and absolute paths".into());
    if bundle.contents {
        let contained: Vec<_> = bundle.contained().collect();
        let sum: u64 = contained.iter().map(|(_, n)| n).sum();
        lines.push(format!(
            "it contains the names and sizes of {}, and the contents of {} ({}):",
            plural(bundle.files.len() as u64, "file"),
            contained.len(),
            bytes(sum)
        ));
        lines.extend(contained.iter().take(MAX_LISTED).map(|(path, n)| format!("  {path}  {}", bytes(*n))));
        if contained.len() > MAX_LISTED {
            lines.push(format!("  and {} more", contained.len() - MAX_LISTED));
        }
    } else {
        lines.push("it contains no files from the repository, only the parts quoted in the session; a replay uses the recorded tool results".into());
    }
    lines.extend(bundle.notes.iter().map(|note| format!("note: {note}")));
    for line in lines {
        console::say(sanitize::line(&line));
    }
}
