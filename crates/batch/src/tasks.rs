//! Reads task files: JSON Lines, a YAML or JSON list, TOML with `[[tasks]]`, Markdown with front
//! matter, and instances of SWE-bench and SWE-agent.
//!
//! TOML and Markdown files are recognized by their extension, and the other formats by their
//! contents. In every format, a task with an `instance_id` is an instance of SWE-bench or
//! SWE-agent. [`read`] finds all problems in a file in one pass and returns either all tasks or all
//! [`Problem`]s.
//!
//! | key | meaning |
//! |---|---|
//! | `id` | unique; letters, digits, `.`, `_`, `-`. In Markdown, the default is the file name |
//! | `repo` | the repository: a folder or bundle file, relative to the task file, or a URL to clone |
//! | `base_commit` | the commit to start from; defaults to `HEAD` |
//! | `task` | what to do; in Markdown, the text below the front matter |
//! | `setup` | the command that prepares a worktree before the agent starts |
//! | `verify` | the command that decides whether the task is done |
//! | `protected` | patterns of files that the agent must not change |
//! | `limits` | `max_turns`, `max_tokens`, `max_seconds`, `max_cost` |
//! | `attempts` | the maximum number of tries in one session |
//! | `model` | overrides the model of the batch |
//! | `tags` | words to select tasks by |
//!
//! `for` turns one task into several: see [`template`]. [`schema`] returns the JSON Schema of a
//! task, for editors.
//!
//! A SWE-bench instance has `instance_id`, `repo`, `base_commit` and `problem_statement`. It may
//! also have our own keys, which are those from `setup` to the end of the table. Keys that reveal
//! the solution (`patch`, `test_patch`, `hints_text`, the lists of tests) are never read. A
//! SWE-agent instance has `instance_id`, `problem_statement` and `repo_name`. It may also have
//! `base_commit` and our own keys.

mod entry;
mod fields;
mod schema;
mod swe_agent;
mod swe_bench;
mod template;

pub use template::fill_template;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::task::{Task, unsafe_id};
use entry::Entry;

pub use schema::schema;

/// The maximum size of a task file, in bytes. The largest SWE-bench collections are a few hundred
/// megabytes.
const MAX_BYTES: u64 = 1 << 30;

/// A problem in a task file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The 1-based line number; 0 if the problem concerns the whole file.
    pub line: usize,
    /// What is wrong, and how to fix it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

/// All problems in a task file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// Reads a task file, or all Markdown files in a folder except `README.md` and hidden files.
/// Subfolders are skipped. `repos` is the folder that contains the clones for SWE-bench instances:
/// the clone of `owner/name` is in its subfolder `owner__name`, `owner/name` or `name`.
///
/// # Errors
/// Returns all problems at once, each with its file and line.
pub fn read(path: &Path, repos: Option<&Path>) -> Result<Vec<Task>, Problems> {
    let mut reader = Reader { repos, missing: Vec::new(), problems: Vec::new() };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let entries = reader.entries(&path);
    let mut tasks = Vec::new();
    let mut seen: HashMap<String, String> = HashMap::new();
    for entry in entries {
        let place = format!("{}:{}", entry.file.display(), entry.line);
        let problem = |message| Problem { file: entry.file.clone(), line: entry.line, message };
        let Some(task) = reader.task(&entry) else { continue };
        if let Some(why) = unsafe_id(&task.id) {
            reader.problems.push(problem(why));
        } else if let Some(first) = seen.get(&task.id) {
            reader.problems.push(problem(format!("duplicate id {:?}; first used at {first}", task.id)));
        } else {
            seen.insert(task.id.clone(), place);
            tasks.push(task);
        }
    }
    reader.report_missing();
    if tasks.is_empty() && reader.problems.is_empty() {
        reader.problem(&path, 0, "no tasks in this file");
    }
    if reader.problems.is_empty() {
        return Ok(tasks);
    }
    reader.problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    Err(Problems(reader.problems))
}

struct Reader<'a> {
    repos: Option<&'a Path>,
    missing: Vec<swe_bench::Missing>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, file: &Path, line: usize, message: impl Into<String>) {
        self.problems.push(Problem { file: file.into(), line, message: message.into() });
    }

    fn entries(&mut self, path: &Path) -> Vec<Entry> {
        if !path.is_dir() {
            return self.file(path);
        }
        let files = markdown_files(path);
        match &files {
            Err(e) => self.problem(path, 0, e.to_string()),
            Ok(files) if files.is_empty() => {
                self.problem(path, 0, "no Markdown files (*.md) in this folder");
            }
            Ok(_) => {}
        }
        files.into_iter().flatten().flat_map(|file| self.file(&file)).collect()
    }

    fn file(&mut self, path: &Path) -> Vec<Entry> {
        let text = match text(path) {
            Ok(text) => text,
            Err((line, message)) => {
                self.problem(path, line, message);
                return Vec::new();
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let has_extension = |wanted: &str| path.extension().is_some_and(|extension| extension == wanted);
        let read = if has_extension("md") {
            entry::markdown(path, text)
        } else if has_extension("toml") {
            entry::toml(path, text)
        } else if text.trim_start().starts_with('{') {
            entry::json_lines(path, text)
        } else {
            entry::list(path, text)
        };
        let mut entries = Vec::new();
        for expanded in read.into_iter().map(|entry| entry.and_then(template::expand)) {
            match expanded {
                Ok(expanded) => entries.extend(expanded),
                Err(problem) => self.problems.push(problem),
            }
        }
        entries
    }

    fn task(&mut self, entry: &Entry) -> Option<Task> {
        match (entry.field("instance_id"), entry.field("repo")) {
            (None, _) => self.native(entry),
            (Some(_), None) if entry.field("image_name").or(entry.field("repo_name")).is_some() => {
                self.swe_agent(entry)
            }
            (Some(_), _) => self.swe_bench(entry),
        }
    }
}

fn markdown_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let skipped = name.starts_with('.') || name.eq_ignore_ascii_case("readme.md");
        if path.extension().is_some_and(|e| e == "md") && path.is_file() && !skipped {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> Result<String, (usize, String)> {
    let whole = |e: io::Error| (0, e.to_string());
    let found = fs::metadata(path).map_err(whole)?;
    if found.len() > MAX_BYTES {
        return Err((0, format!("is larger than {MAX_BYTES} bytes")));
    }
    String::from_utf8(fs::read(path).map_err(whole)?).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..valid].iter().filter(|b| **b == b'\n').count() + 1;
        (line, "is not UTF-8 from here on".to_owned())
    })
}
