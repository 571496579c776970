//! `agent report`: writes the results and trajectories of a batch to one HTML file. Also creates
//! the single-session page for `agent sessions show --html`.

use std::path::Path;

use batch::{Folder, Summary};

use crate::cli::Report;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures;
use crate::masking;

/// Writes the report for a batch.
pub(crate) fn run(command: &Report, context: &Context) -> Result<Exit> {
    let folder = Folder::read(&command.folder).map_err(Failure::refused)?;
    let store = context.store()?;
    let secrets_of = masking::of_sessions(context, Vec::new());
    // The journals were masked with the secrets that were known at the time. Masking them again
    // also catches secrets that the model itself wrote and that can only be recognized by their
    // form. The patches in the results are not masked, so the report leaves them out.
    let mut steps = |id: &str| {
        let why = |e: journal::Error| format!("session {id} cannot be shown: {e}");
        let records = store.load(id).map_err(why)?;
        let secrets = secrets_of(journal::origin(&records).unwrap_or(id));
        Ok(report::steps(&records, &|text| secrets.mask(text)))
    };
    let secrets = secrets_of("");
    let title = name(&command.folder);
    let page = report::batch_page(&title, &folder, &|text| secrets.mask(text), &mut steps);
    let out = command.out.clone().unwrap_or_else(|| command.folder.join("report.html"));
    batch::replace(&out, &page)?;
    let tasks = figures::plural(folder.tasks.len() as u64, "task");
    console::say(format_args!("wrote {}: {tasks}, {}", out.display(), figures::bytes(page.len() as u64)));
    Ok(Exit::Success)
}

/// Returns the page for one session.
pub(super) fn session(context: &Context, id: &str) -> Result<String> {
    let store = context.store()?;
    let id = store.find(id)?;
    let records = store.load(&id)?;
    let secrets = masking::for_display(context, journal::origin(&records).unwrap_or(&id));
    Ok(report::session_page(&id, &records, &|text| secrets.mask(text)))
}

/// Returns the display name of a task file or results folder.
pub(super) fn name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let name = absolute.file_name().map_or_else(|| "batch".into(), |name| name.to_string_lossy());
    let endings = [".results", ".jsonl", ".json", ".yaml", ".yml"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name).to_owned()
}

/// Writes the files for CI systems to a batch's folder.
pub(super) fn for_ci(out: &Path, name: &str, summary: &Summary) -> Result<()> {
    let junit = report::junit(name, summary).map_err(Failure::refused)?;
    let markdown = report::markdown(name, summary);
    let written = batch::replace(&out.join("junit.xml"), &junit)
        .and_then(|()| batch::replace(&out.join("summary.md"), &markdown));
    Ok(written.map_err(batch::Error::from)?)
}
