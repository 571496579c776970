//! Selects the files that the first turn shows. A small model that has to find the file itself
//! often edits content that it has made up. When it is shown the file and the failure, it solves
//! half of the tasks. Files are ranked by the names in the task, the locations of failures, and the
//! imports of tests.

use std::collections::HashSet;

use journal::Check;

/// Maximum number of source files to read for ranking. If there are more, the names that files
/// define are not taken into account.
const MAX_READ: usize = 60;
/// Maximum number of files that the model is asked to return in full. Small models get lost when
/// there are more.
pub(crate) const MAX_FILES: usize = 3;
/// Maximum size of a file that is worth showing in full, in bytes.
pub(crate) const MAX_SHOWN_BYTES: u64 = 16 * 1024;

/// A file, and how strongly the task points to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) score: u32,
}

/// Returns the source files worth showing, best first. The list is empty if nothing points to a
/// file.
pub(crate) fn rank(
    files: &[String],
    task: &str,
    check: Option<&Check>,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<Candidate> {
    let sources = files.iter().filter(|path| is_source(path));
    let (tests, code): (Vec<&String>, Vec<&String>) = sources.partition(|path| is_test(path));
    let failing = check.filter(|c| !c.passed).map(|c| format!("{}\n{}", c.text, c.facts)).unwrap_or_default();
    let task_words = words(task);
    let shown_tests: Vec<String> = tests
        .iter()
        .filter(|t| tests.len() <= 3 || failing.contains(stem(t)))
        .take(MAX_READ)
        .filter_map(|t| read(t))
        .collect();
    let tested: HashSet<String> = shown_tests.iter().flat_map(|text| imported(text)).collect();
    let mut candidates: Vec<Candidate> = code
        .iter()
        .map(|path| {
            let stem = stem(path);
            let (by_path, by_name) = (mentions(task, path), mentions(task, file_name(path)));
            let reasons = [
                (by_path, 200),
                (by_name && !by_path, 120),
                (failing.contains(path.as_str()), 100),
                (tested.contains(&stem.to_lowercase()), 60),
                (tests.iter().any(|t| is_test_of(t, stem)), 30),
                (task_words.contains(&stem.to_lowercase()), 25),
                (code.len() == 1 && (!failing.is_empty() || !tests.is_empty()), 50),
            ];
            let score = reasons.iter().filter(|(holds, _)| *holds).map(|(_, points)| points).sum();
            Candidate { path: (*path).clone(), score }
        })
        .collect();
    if code.len() <= MAX_READ {
        for candidate in &mut candidates {
            let Some(text) = read(&candidate.path) else { continue };
            candidate.score +=
                8 * defined(&text).filter(|name| task_words.contains(&name.to_lowercase())).count().min(5)
                    as u32;
        }
    }
    candidates.retain(|c| c.score >= 25);
    candidates.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.path.cmp(&b.path)));
    candidates
}

/// Returns the path and text of the best candidates that fit: at most `max_files` files, totaling
/// at most `max_bytes` bytes.
pub(crate) fn show(
    candidates: &[Candidate],
    read: impl Fn(&str, u64) -> Option<String>,
    max_files: usize,
    max_bytes: u64,
) -> Vec<(String, String)> {
    let mut left = max_bytes;
    let mut shown = Vec::new();
    for candidate in candidates {
        if shown.len() == max_files {
            break;
        }
        if let Some(text) = read(&candidate.path, left.min(MAX_SHOWN_BYTES)) {
            left -= (text.len() as u64).min(left);
            shown.push((candidate.path.clone(), text));
        }
    }
    shown
}

/// Returns the files that a whole-file request asks for: the best candidate if it stands out, or
/// otherwise up to [`MAX_FILES`] candidates that the task points to about equally.
pub(crate) fn requested(candidates: &[Candidate]) -> &[Candidate] {
    match candidates {
        [first, second, ..] if first.score < second.score + 30 => {
            let equal = candidates.iter().take_while(|c| c.score * 2 >= first.score).count();
            &candidates[..equal.min(MAX_FILES)]
        }
        _ => &candidates[..candidates.len().min(1)],
    }
}

pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stem(path: &str) -> &str {
    let name = file_name(path);
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

fn extension(path: &str) -> &str {
    file_name(path).rsplit_once('.').map_or("", |(_, e)| e)
}

/// Returns the language tag for a Markdown fence around a file. The tag is empty if the file is not
/// source code.
pub(crate) fn language(path: &str) -> &'static str {
    match extension(path) {
        "py" | "pyi" => "python",
        "rs" => "rust",
        "js" | "mjs" | "cjs" | "jsx" => "javascript",
        "ts" | "tsx" | "mts" => "typescript",
        "go" => "go",
        "java" => "java",
        "kt" => "kotlin",
        "c" | "h" => "c",
        "cc" | "cpp" | "cxx" | "hpp" | "hh" => "cpp",
        "cs" => "csharp",
        "rb" => "ruby",
        "php" => "php",
        "swift" => "swift",
        "scala" => "scala",
        "lua" => "lua",
        "sh" | "bash" => "sh",
        "pl" | "pm" => "perl",
        "ex" | "exs" => "elixir",
        "hs" => "haskell",
        "ml" | "mli" => "ocaml",
        "zig" => "zig",
        "dart" => "dart",
        "vue" | "svelte" => "html",
        "sql" => "sql",
        _ => "",
    }
}

fn is_source(path: &str) -> bool {
    !language(path).is_empty()
}

/// Whether a file contains tests, according to the naming conventions of common test runners.
pub(crate) fn is_test(path: &str) -> bool {
    let name = file_name(path);
    let stem = name.rsplit_once('.').map_or(name, |(s, _)| s);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.split('/').any(|f| matches!(f, "test" | "tests" | "__tests__" | "spec" | "testing"))
        || name.starts_with("test_")
        || name == "conftest.py"
        || ["_test", ".test", "-test", ".spec", "_spec", "Test", "Tests", "Spec"]
            .iter()
            .any(|e| stem.ends_with(e))
}

fn is_test_of(test: &str, stem_of_code: &str) -> bool {
    let name = stem(test).to_lowercase();
    let code = stem_of_code.to_lowercase();
    [
        format!("test_{code}"),
        format!("{code}_test"),
        format!("{code}test"),
        format!("{code}tests"),
        format!("{code}-test"),
        code.clone(),
    ]
    .contains(&name)
}

/// Whether the text contains a name as a whole, not just as part of a longer name.
pub(crate) fn mentions(text: &str, what: &str) -> bool {
    text.match_indices(what).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + what.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
        !part(before) && !part(after)
    })
}

fn words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|w| w.len() > 2)
        .map(str::to_lowercase)
        .collect()
}

/// Returns the words in a file's import lines, in lowercase. Recognizes the import lines of Python,
/// JavaScript, Rust, Go, Java and C.
fn imported(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let import =
            ["import ", "from ", "use ", "#include", "mod ", "export "].iter().any(|k| line.starts_with(k))
                || line.contains("require(")
                || line.contains(" from ")
                || line.contains("import(");
        if import {
            let parts = line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
            names.extend(parts.filter(|p| p.len() > 1).map(str::to_lowercase));
        }
    }
    names
}

/// Returns the names that a file defines, which are the words after keywords such as `def` or
/// `struct`.
fn defined(text: &str) -> impl Iterator<Item = &str> {
    const KEYWORDS: [&str; 10] =
        ["def", "class", "fn", "function", "func", "struct", "enum", "trait", "interface", "type"];
    text.lines().filter_map(|line| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
        words.by_ref().take(4).find(|w| KEYWORDS.contains(w))?;
        words.next().filter(|w| w.len() > 2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(files: &[(&str, &str)], task: &str, failure: &str) -> Vec<Candidate> {
        let entries: Vec<_> = files.iter().map(|(path, _)| (*path).to_owned()).collect();
        let check = Check {
            command: "t".into(),
            passed: false,
            text: failure.into(),
            facts: serde_json::Value::Null,
            ms: 0,
        };
        rank(&entries, task, Some(&check), |path| files.iter().find(|f| f.0 == path).map(|f| f.1.to_owned()))
    }

    fn ranked_by_score(scores: &[u32]) -> Vec<Candidate> {
        scores.iter().map(|score| Candidate { path: score.to_string(), score: *score }).collect()
    }

    #[test]
    fn a_file_that_the_task_names_comes_first() {
        let files = [("a/util.py", ""), ("a/parse.py", ""), ("tests/test_util.py", "from a import util")];
        let ranked = ranked(&files, "Fix the date bug in a/parse.py.", "");
        assert_eq!(requested(&ranked)[0].path, "a/parse.py");
    }

    #[test]
    fn a_file_in_the_trace_of_a_failure_is_found() {
        let files = [("x.py", ""), ("y.py", ""), ("tests/test_all.py", "import x\nimport y")];
        let ranked = ranked(&files, "make the tests pass", "test_all: AssertionError at y.py:4");
        assert_eq!(requested(&ranked)[0].path, "y.py");
    }

    #[test]
    fn the_file_that_the_only_test_imports_is_found() {
        let files = [
            ("lib/slug.js", ""),
            ("lib/other.js", ""),
            ("slug.test.mjs", "import { slug } from './lib/slug.js'"),
        ];
        assert_eq!(ranked(&files, "The tests fail.", "not ok 1")[0].path, "lib/slug.js");
    }

    #[test]
    fn the_only_source_file_beside_a_test_is_found() {
        let files = [("src/lib.rs", "pub fn x() {}"), ("tests/it.rs", "use demo::x;")];
        assert_eq!(requested(&ranked(&files, "fix it", "1 failed"))[0].path, "src/lib.rs");
    }

    #[test]
    fn no_file_is_shown_when_nothing_points_at_one() {
        let files = [("a.py", ""), ("b.py", ""), ("c.rs", "")];
        assert_eq!(ranked(&files, "Say done.", ""), []);
    }

    #[test]
    fn files_that_the_task_points_at_equally_are_requested_together() {
        let files = [("a.py", ""), ("b.py", "")];
        let ranked = ranked(&files, "compare a.py and b.py", "");
        assert_eq!(requested(&ranked).len(), 2);
        assert_eq!(requested(&ranked_by_score(&[90, 80, 44, 40])).len(), 2, "the others are far behind");
        assert_eq!(requested(&ranked_by_score(&[90, 80, 70, 60])).len(), MAX_FILES);
        assert_eq!(requested(&ranked_by_score(&[90, 60])).len(), 1);
        assert_eq!(requested(&[]).len(), 0);
    }
}
