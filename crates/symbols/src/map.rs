//! The map: the highest-ranked files as text. The first ones are shown with their most important
//! definitions.

use std::collections::HashSet;

use crate::Index;
use crate::tags::Kind;

/// The maximum length of source lines, in characters. Longer lines are truncated.
const WIDTH: usize = 100;
/// The maximum number of definitions shown per file.
const PER_FILE: usize = 2;
/// The share of the map that shows files with their definitions, as a divisor: 3 means a third. The
/// other files are listed by path only, because a long list of paths includes the right file more
/// often than a short list of files with definitions (docs/symbols.md).
const DETAILED_SHARE: usize = 3;
/// The assumed size of the shortest entry in a map, in bytes. It limits how many files are ranked.
const SHORTEST: usize = 16;

/// A map of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// One line per file and, below each of the first files, one line per definition.
    pub text: String,
    /// The paths of the files in the map.
    pub files: Vec<String>,
}

impl Map {
    /// Makes a map for a task from the files that rank highest. The map has at most `max_bytes`
    /// bytes. `content` returns the content of a file, which is only searched for words. `shown`
    /// returns the text that the lines of definitions are taken from. Returns `None` if there is
    /// nothing to show.
    #[must_use]
    pub fn new(
        index: &Index,
        task: &str,
        max_bytes: usize,
        content: impl Fn(&str) -> Option<Vec<u8>>,
        shown: impl Fn(&str) -> Option<String>,
    ) -> Option<Self> {
        let mut map = Self { text: String::new(), files: Vec::new() };
        for ranked in index.rank(task, max_bytes / SHORTEST, PER_FILE, content) {
            // A line break in a name could be used to fake a line of the map.
            if ranked.path.contains(char::is_control) {
                continue;
            }
            let mut entry = format!("{}\n", ranked.path);
            if map.text.len() < max_bytes / DETAILED_SHARE {
                let Some(text) = shown(ranked.path) else { continue };
                entry += &signatures(&text, &ranked.definitions);
            }
            if map.text.len() + entry.len() > max_bytes {
                break;
            }
            map.text += &entry;
            map.files.push(ranked.path.to_owned());
        }
        map.text.truncate(map.text.trim_end().len());
        (!map.files.is_empty()).then_some(map)
    }
}

/// Returns the lines with these definitions, in the order they occur in the file.
fn signatures(text: &str, definitions: &[(u32, Kind, &str)]) -> String {
    let mut lines: Vec<u32> = definitions.iter().map(|(line, ..)| *line).collect();
    lines.sort_unstable();
    lines.dedup();
    let shown = lines.into_iter().filter_map(|line| Some(format!("  {line}: {}\n", signature(text, line)?)));
    shown.collect()
}

/// Returns the line with this 1-based number, without the `{` or `:` that opens a body.
fn signature(text: &str, line: u32) -> Option<String> {
    let line = text.lines().nth(line.checked_sub(1)? as usize)?.trim();
    let line = line.trim_end_matches(['{', ':']).trim_end();
    let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WIDTH).collect();
    let more = if shown.len() < line.len() { "…" } else { "" };
    (!shown.is_empty()).then(|| shown + more)
}

/// Returns whether a task mentions one of these files, by path or by file name.
#[must_use]
pub fn names_a_file<'a>(task: &str, paths: impl IntoIterator<Item = &'a str>) -> bool {
    let apart = |c: char| !(c.is_alphanumeric() || matches!(c, '.' | '/' | '_' | '-'));
    let tokens = task.split(apart).map(|token| token.trim_start_matches("./").trim_end_matches(['.', '/']));
    let named: HashSet<&str> = tokens.filter(|t| t.contains(['.', '/'])).collect();
    !named.is_empty()
        && paths.into_iter().any(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            named.contains(path) || named.contains(name) || named.iter().any(|n| ends(path, n))
        })
}

/// Returns whether a path ends with the components of another path.
fn ends(path: &str, end: &str) -> bool {
    end.contains('/') && path.strip_suffix(end).is_some_and(|start| start.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_names_a_file_by_its_path_its_end_or_its_name() {
        let paths = ["src/a/util.rs", "README.md", "src/a/mod.rs"];
        for task in ["fix src/a/util.rs.", "see `util.rs`", "in a/util.rs: x", "(./README.md)", "README.md"] {
            assert!(names_a_file(task, paths), "{task}");
        }
        for task in ["fix the utilities", "util", "other.rs", "e.g. this", "til.rs", "src/a", ""] {
            assert!(!names_a_file(task, paths), "{task}");
        }
    }
}
