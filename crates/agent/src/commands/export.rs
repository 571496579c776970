//! `agent sessions export`: a session as one file that replays anywhere, and what is in it, said to the person.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use replay::{Bundle, CONTENTS_LIMIT};

use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{bytes, plural};
use crate::masking;
use crate::repository::INSTRUCTIONS;
use crate::sanitize;
use crate::session::STATE;

/// Names that are told one by one.
const NAMED: usize = 40;

/// Exports a session, with what its replay needs of the repository where `contents`.
pub(crate) fn run(context: &Context, id: &str, output: Option<&Path>, contents: bool) -> Result<Exit> {
    let store = context.store()?;
    let id = store.find(id)?;
    let records = store.load(&id)?;
    let begun = records.iter().any(|r| matches!(r.event, journal::Event::Begun { .. }));
    let scratch = tempfile::Builder::new().prefix("agent-export-").tempdir()?;
    let mut bundle = if contents && begun {
        replay::gather(
            records,
            &store.folder(&id).join(STATE),
            scratch.path(),
            INSTRUCTIONS,
            masking::is_telling,
        )?
        .bundle
    } else {
        Bundle::bare(records)
    };
    let limit = CONTENTS_LIMIT;
    if bundle.bytes() > limit {
        let size = bundle.bytes() >> 20;
        return Err(Failure::misuse(format!(
            "the replay needs {size} MB of the repository, and an export holds {} MB at most",
            limit >> 20
        ))
        .hint("--no-contents exports the session without the repository"));
    }
    let masked = bundle.mask(&masking::for_display(context, &id));
    if masked > 0 {
        let files = plural(masked as u64, "content");
        bundle.notes.push(format!("{files} had secrets in them; placeholders stand there instead"));
    }
    let text = bundle.write(&id)?;
    match output {
        None => console::print(&text)?,
        Some(path) => write_new(path, &text)?,
    }
    manifest(&bundle, &id, output, text.len() as u64);
    Ok(Exit::Success)
}

/// Writes a file that is not there yet, for nobody else to read.
fn write_new(path: &Path, text: &str) -> Result<()> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes()).inspect_err(|_| drop(std::fs::remove_file(path)))
    });
    written.map_err(|e| Failure::misuse(format!("cannot write {}: {e}", path.display())))
}

/// Says to the person what the file holds.
fn manifest(bundle: &Bundle, id: &str, output: Option<&Path>, size: u64) {
    let to = output.map_or("standard output".into(), |path| path.display().to_string());
    let mut lines = vec![format!(
        "session {id}, {} in {}, to {to}",
        bytes(size),
        plural(bundle.records.len() as u64, "event")
    )];
    lines.push("it holds the task, all that the model said and was told, all output of commands, settings without keys, and absolute paths".into());
    if bundle.contents {
        let contained: Vec<_> = bundle.contained().collect();
        let sum: u64 = contained.iter().map(|(_, n)| n).sum();
        lines.push(format!(
            "it holds the names and sizes of {}, and the contents of {}, {}:",
            plural(bundle.files.len() as u64, "file"),
            contained.len(),
            bytes(sum)
        ));
        lines.extend(contained.iter().take(NAMED).map(|(path, n)| format!("  {path}  {}", bytes(*n))));
        if contained.len() > NAMED {
            lines.push(format!("  and {} more", contained.len() - NAMED));
        }
    } else {
        lines.push("it holds no file of the repository, only what the session quotes; it replays with what tools answered then".into());
    }
    lines.extend(bundle.notes.iter().map(|note| format!("note: {note}")));
    for line in lines {
        console::say(sanitize::line(&line));
    }
}
