//! Composes the first turn: a summary of the tree, the instructions, and the files that the task is
//! about.

use std::collections::BTreeMap;
use std::sync::Arc;

use journal::Check;
use tool_api::{Registry, Spec};
use tool_stream::control_tokens::broken;

use crate::blocks::Focus;
use crate::prompts::Opening;
use crate::settings::Approach;
use crate::{Instructions, Repository, focus};

/// Maximum size of the tree summary, in bytes.
const MAX_TREE: usize = 1_600;
/// Maximum total size of the instruction files, in bytes. Files closest to the working directory
/// have priority.
const MAX_INSTRUCTIONS: usize = 8 * 1024;
/// The share of the window that the files may fill, as a divisor: 4 means a quarter.
const WINDOW_SHARE: u64 = 4;
/// Maximum size of the code map, in bytes: about 1,000 tokens.
const MAX_MAP: u64 = 3_000;
/// The share of the window that the map may fill, as a divisor.
const MAP_SHARE: u64 = 16;

/// Composes the first turn. For [`Approach::WholeFile`], also returns the files that the model is
/// asked to return in full. There are none if there are no candidates or if the best one cannot be
/// requested in full.
pub(crate) fn compose(
    repository: &dyn Repository,
    tools: &Registry,
    task: String,
    check: Option<&Check>,
    approach: Approach,
    window: Option<u64>,
    map: String,
) -> (Opening, Vec<Focus>) {
    let (files, more) = repository.files();
    let mut candidates =
        focus::rank(&files, &task, check, |path| repository.read(path, focus::MAX_SHOWN_BYTES));
    candidates.retain(|candidate| repository.may_change(&candidate.path));
    // Three bytes per token is a low estimate, so the files will not take up more than their share.
    let max_bytes = window.map_or(u64::MAX, |w| w * 3 / WINDOW_SHARE);
    let read = |path: &str, limit| repository.read(path, limit);
    let shown = focus::show(&candidates, read, 2, max_bytes.min(2 * focus::MAX_SHOWN_BYTES));
    let whole = match approach {
        Approach::WholeFile => whole_files(&candidates, read, window),
        _ => Vec::new(),
    };
    let opening = Opening {
        task,
        tree: tree(&files, more),
        map,
        instructions: fit_instructions(repository.instructions()),
        files: shown,
        tools: tool_descriptions(tools),
    };
    (opening, whole)
}

/// Returns the maximum size of the code map for a model with this window, in bytes.
pub(crate) fn max_map_bytes(window: Option<u64>) -> usize {
    window.map_or(MAX_MAP, |w| (w * 3 / MAP_SHARE).min(MAX_MAP)) as usize
}

/// Returns the files that the model is asked to return in full. Takes the candidates in order, best
/// first, and stops at the first one that cannot be requested in full.
fn whole_files(
    candidates: &[focus::Candidate],
    read: impl Fn(&str, u64) -> Option<String>,
    window: Option<u64>,
) -> Vec<Focus> {
    let mut files: Vec<Focus> = Vec::new();
    for candidate in focus::requested(candidates) {
        let Some(content) = read(&candidate.path, focus::MAX_SHOWN_BYTES) else { break };
        let others: u64 = files.iter().map(|file| file.content.len() as u64).sum();
        if !may_be_whole(&content, others, window) {
            break;
        }
        // Show the model LF line endings, because it also writes LF. The tool that writes the file
        // restores CRLF.
        let all_crlf = content.matches('\n').count() == content.matches("\r\n").count();
        let content = if all_crlf { content.replace("\r\n", "\n") } else { content };
        files.push(Focus { path: candidate.path.clone(), content });
    }
    files
}

/// Whether the model can be asked to return this text in full, along with other files that total
/// `others` bytes.
pub(crate) fn may_be_whole(text: &str, others: u64, window: Option<u64>) -> bool {
    // Control tokens are broken up in prompts, so a file that contains them would come back
    // changed.
    let plain = !text.trim().is_empty() && broken(text) == text;
    // The window must hold the files twice: in the prompt and in the answer.
    let bytes = text.len() as u64 + others;
    plain && window.is_none_or(|w| bytes * 2 / 3 + 1_024 < w)
}

/// Creates a first turn that shows the repository as it was recorded, but with the current task and
/// tools.
pub(crate) fn from_recorded(recorded: Opening, tools: &Registry, task: String) -> Opening {
    Opening { task, tools: tool_descriptions(tools), ..recorded }
}

/// Calls `read` for each file that the first turn depends on, except instruction files, so that
/// `read` can record them.
pub fn read_opening_files(
    files: &[String],
    task: &str,
    check: Option<&Check>,
    read: impl Fn(&str, u64) -> Option<String>,
) {
    let candidates = focus::rank(files, task, check, |path| read(path, focus::MAX_SHOWN_BYTES));
    focus::show(&candidates, &read, 2, 2 * focus::MAX_SHOWN_BYTES);
    for candidate in focus::requested(&candidates) {
        read(&candidate.path, focus::MAX_SHOWN_BYTES);
    }
}

fn tool_descriptions(tools: &Registry) -> Vec<(String, String, String)> {
    let shown =
        |s: &Arc<Spec>| (s.name.clone(), s.description.trim_end_matches('.').to_owned(), s.shown_schema());
    tools.specs().map(shown).collect()
}

/// Lists the files, one line per folder. If that exceeds [`MAX_TREE`] bytes, lists folders with
/// file counts.
fn tree(files: &[String], more: bool) -> String {
    let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut unprintable = 0;
    for path in files {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        // A line break in a file name could pass for a new line of the prompt.
        let breaks_line = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if path.contains(breaks_line) {
            unprintable += 1;
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
    if unprintable > 0 {
        text.push_str(&format!("\n({unprintable} with control characters in their names)"));
    }
    if more {
        text.push_str("\n(and more)");
    }
    text
}

/// Truncates the instructions to [`MAX_INSTRUCTIONS`]. Files closest to the working directory have
/// priority.
fn fit_instructions(instructions: Vec<Instructions>) -> Vec<Instructions> {
    let mut left = MAX_INSTRUCTIONS;
    let mut kept: Vec<Instructions> = Vec::new();
    for mut i in instructions.into_iter().rev() {
        if left == 0 {
            break;
        }
        if i.text.len() > left {
            let end = (0..=left).rev().find(|e| i.text.is_char_boundary(*e)).unwrap_or(0);
            i.text.truncate(end);
            i.text.push_str("\n(truncated: the instructions are too long)");
            left = 0;
        } else {
            left -= i.text.len();
        }
        kept.push(i);
    }
    kept.reverse();
    kept
}
