//! What the first turn shows: the tree in few words, instructions, and the files that the task is about.

use std::collections::BTreeMap;
use std::sync::Arc;

use journal::Check;
use tool_api::{Registry, Spec, control_tokens::broken};

use crate::answer::Focus;
use crate::prompts::Opening;
use crate::settings::Approach;
use crate::{FileEntry, Instructions, Repository, focus};

/// Bytes of the view of the tree.
const MAX_TREE: usize = 1_600;
/// Bytes of all instruction files together; the ones nearest to the work are kept.
const MAX_INSTRUCTIONS: usize = 8 * 1024;
/// The largest share of the window that shown files may take.
const SHOWN_SHARE: u64 = 4;

/// The parts of the first turn, and the file to ask for whole when the approach is [`Approach::WholeFile`] and one file stands out.
pub(crate) fn compose(
    repository: &dyn Repository,
    tools: &Registry,
    task: String,
    check: Option<&Check>,
    approach: Approach,
    window: Option<u64>,
) -> (Opening, Option<Focus>) {
    let (files, more) = repository.files();
    let candidates = focus::rank(&files, &task, check, |path| repository.read(path, focus::MAX_SHOWN_BYTES));
    // Three bytes a token is on the safe side.
    let most = window.map_or(u64::MAX, |w| w * 3 / SHOWN_SHARE);
    let shown = focus::show(&candidates, repository, 2, most.min(2 * focus::MAX_SHOWN_BYTES));
    let whole = (approach == Approach::WholeFile)
        .then(|| focus::standing_out(&candidates))
        .flatten()
        .and_then(|best| shown.iter().find(|(path, _)| *path == best.path))
        // A file that holds control tokens cannot be shown as it is, so it cannot be asked for whole either.
        .filter(|(_, text)| !text.trim().is_empty() && broken(text) == *text)
        // It is in the prompt and again in the answer.
        .filter(|(_, text)| window.is_none_or(|w| (text.len() as u64) * 2 / 3 + 1_024 < w))
        .map(|(path, content)| Focus { path: path.clone(), content: content.clone() });
    let opening = Opening {
        task,
        tree: tree(&files, more),
        instructions: budgeted(repository.instructions()),
        files: shown,
        tools: described(tools),
    };
    (opening, whole)
}

/// An opening with what a recorded one shows of the repository, and the tools of now.
pub(crate) fn again(recorded: Opening, tools: &Registry, task: String) -> Opening {
    Opening { task, tools: described(tools), ..recorded }
}

/// Reads the files on whose texts the first turn depends, for a `repository` that records what is
/// read.
pub fn read_opening_files(repository: &dyn Repository, task: &str, check: Option<&Check>) {
    let (files, _) = repository.files();
    let candidates = focus::rank(&files, task, check, |path| repository.read(path, focus::MAX_SHOWN_BYTES));
    focus::show(&candidates, repository, 2, 2 * focus::MAX_SHOWN_BYTES);
    repository.instructions();
}

fn described(tools: &Registry) -> Vec<(String, String, String)> {
    let shown =
        |s: &Arc<Spec>| (s.name.clone(), s.description.trim_end_matches('.').to_owned(), s.shown_schema());
    tools.specs().map(shown).collect()
}

/// The files by folder, a line each, within [`MAX_TREE`] bytes: when there are more, folders with counts.
fn tree(files: &[FileEntry], more: bool) -> String {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut unspeakable = 0;
    for file in files {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        // A line of its own would say something.
        let lines = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if file.path.contains(lines) {
            unspeakable += 1;
            continue;
        }
        folders.entry(folder).or_default().push(name);
    }
    let full: Vec<String> = folders
        .iter()
        .map(
            |(folder, names)| {
                if folder.is_empty() { names.join(" ") } else { format!("{folder}/: {}", names.join(" ")) }
            },
        )
        .collect();
    let mut text = full.join("\n");
    if text.len() > MAX_TREE {
        let counted = folders.iter().map(|(folder, names)| {
            format!("{}/ ({} files)", if folder.is_empty() { "." } else { folder }, names.len())
        });
        text.clear();
        for (i, line) in counted.enumerate() {
            if text.len() + line.len() > MAX_TREE {
                text.push_str(&format!("\n({} more folders)", folders.len() - i));
                break;
            }
            if i > 0 {
                text.push('\n');
            }
            text.push_str(&line);
        }
    }
    if unspeakable > 0 {
        text.push_str(&format!("\n({unspeakable} with control characters in their names)"));
    }
    if more {
        text.push_str("\n(and more)");
    }
    text
}

/// The instructions that fit, those nearest to the work first in line for room, in their own order.
fn budgeted(instructions: Vec<Instructions>) -> Vec<Instructions> {
    let mut left = MAX_INSTRUCTIONS;
    let mut kept: Vec<Instructions> = Vec::new();
    for mut i in instructions.into_iter().rev() {
        if left == 0 {
            break;
        }
        if i.text.len() > left {
            let end = (0..=left).rev().find(|e| i.text.is_char_boundary(*e)).unwrap_or(0);
            i.text.truncate(end);
            i.text.push_str("\n(cut here: the instructions are too long)");
            left = 0;
        } else {
            left -= i.text.len();
        }
        kept.push(i);
    }
    kept.reverse();
    kept
}
