//! Determines which of the requested files, if any, a fenced block in an answer contains.

use serde::{Deserialize, Serialize};
use tool_stream::{End, Event, Options, Parser};

use crate::focus::{file_name, language, mentions};

/// A file that the model is asked to return in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Focus {
    pub(crate) path: String,
    pub(crate) content: String,
}

/// What a fenced block contains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// The new content of a requested file.
    File {
        index: usize,
        content: String,
    },
    /// A requested file, unchanged.
    Unchanged {
        index: usize,
    },
    Other,
}

/// A fenced block that contains a requested file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The index of the file.
    pub(crate) index: usize,
    /// The byte offset of the content in the answer.
    pub(crate) content: usize,
}

/// Finds the requested files in a complete answer.
pub(crate) fn find(answer: &str, files: &[Focus]) -> Vec<Found> {
    let scripts = files.iter().any(|file| language(&file.path) == "sh");
    let mut parser = Parser::new(Options { whole_file: true, scripts, ..Options::default() });
    let mut events = Vec::new();
    parser.feed(answer.as_bytes(), &mut events);
    parser.finish(End::Stop, &mut events);
    let found = |event| {
        let Event::CallComplete(call) = event else { return None };
        let (above, block) = answer.split_at_checked(call.start)?;
        let content = call.start + block.find('\n')? + 1;
        let (path, text) = (call.arguments["path"].as_str(), call.arguments["content"].as_str()?);
        match classify(files, path, above, text) {
            Block::File { index, .. } | Block::Unchanged { index } => Some(Found { index, content }),
            Block::Other => None,
        }
    };
    events.into_iter().filter_map(found).collect()
}

/// Classifies a fenced block. `path` is the path in its info string, and `above` is the answer up
/// to the block.
pub(crate) fn classify(files: &[Focus], path: Option<&str>, above: &str, content: &str) -> Block {
    let Some((index, file)) = requested(files, path, above, content) else { return Block::Other };
    let (old, new) = (file.content.trim_end(), content.trim_end());
    // A short snippet or a shell command is not the file. The file itself may still follow.
    if new.len() * 5 < old.len() * 2 {
        return Block::Other;
    }
    if old.lines().map(str::trim_end).eq(new.lines().map(str::trim_end)) {
        return Block::Unchanged { index };
    }
    // The tool that writes the file keeps the file's line endings and byte order mark. Only the end
    // of the last line must be restored here.
    let end = if file.content.ends_with('\n') { "\n" } else { "" };
    Block::File { index, content: format!("{new}{end}") }
}

/// Returns the requested file that a block contains. If several were requested, it is the file
/// named by the info string, the line above the block or the block's first line. If none of these
/// names a file, it is the file that contains the most lines of the block, provided it contains at
/// least half of them.
fn requested<'a>(
    files: &'a [Focus],
    path: Option<&str>,
    above: &str,
    content: &str,
) -> Option<(usize, &'a Focus)> {
    if let [only] = files {
        return Some((0, only));
    }
    let heading = above.trim_end().lines().next_back().unwrap_or_default();
    let first = content.lines().next().map(comment).unwrap_or_default();
    let index = named(files, path.unwrap_or_default())
        .or_else(|| named(files, heading))
        .or_else(|| files.iter().position(|file| file.path == first || file_name(&file.path) == first))
        .or_else(|| most_similar(files, content))?;
    Some((index, &files[index]))
}

/// Strips the comment markers around a line's text.
fn comment(line: &str) -> &str {
    let marks = |c: char| c.is_whitespace() || "#/*-;<!>:`".contains(c);
    line.trim_matches(marks)
}

/// Returns the only file that the text mentions by path or, failing that, the only one that it
/// mentions by file name.
fn named(files: &[Focus], text: &str) -> Option<usize> {
    let only = |name: fn(&str) -> &str| {
        let mut found = files.iter().enumerate().filter(|(_, file)| mentions(text, name(&file.path)));
        let first = found.next();
        first.filter(|_| found.next().is_none()).map(|(index, _)| index)
    };
    only(|path| path).or_else(|| only(file_name))
}

/// Returns the file that contains the most lines of a block, if it contains at least half of them.
fn most_similar(files: &[Focus], content: &str) -> Option<usize> {
    let lines = || content.lines().map(str::trim).filter(|line| !line.is_empty());
    let common = |file: &Focus| {
        let known: std::collections::HashSet<&str> = file.content.lines().map(str::trim).collect();
        lines().filter(|line| known.contains(line)).count()
    };
    let counts = files.iter().enumerate().map(|(index, file)| (common(file), std::cmp::Reverse(index)));
    let (count, std::cmp::Reverse(index)) = counts.max()?;
    (count > 0 && count * 2 >= lines().count()).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> [Focus; 2] {
        [("app/a.py", "import b\nx = 1\ny = 2\n"), ("app/b.py", "import c\nz = 3\nw = 4\n")]
            .map(|(path, content)| Focus { path: path.into(), content: content.into() })
    }

    fn index(path: Option<&str>, above: &str, content: &str) -> Option<usize> {
        match classify(&files(), path, above, content) {
            Block::File { index, .. } | Block::Unchanged { index } => Some(index),
            Block::Other => None,
        }
    }

    #[test]
    fn a_block_is_the_file_named_by_its_info_string_or_heading_or_first_line() {
        let new = "import b\nx = 5\nz = 6\n";
        assert_eq!(index(Some("app/b.py"), "a.py:", new), Some(1));
        assert_eq!(index(None, "Two bugs in app/a.py.\n\n**app/b.py**:\n\n", new), Some(1));
        assert_eq!(index(None, "The file:\n", &format!("# app/b.py\n{new}")), Some(1));
        assert_eq!(index(None, "", "/* b.py */\nimport b\nx = 5\n"), Some(1));
        let old = "import b\nx = 1\nz = 6\n";
        assert_eq!(index(None, "`b.py` is used by a.py:\n", old), Some(0), "by its lines");
        assert_eq!(
            index(None, "", "import app.b  # app/b.py\nx = 1\ny = 2\n"),
            Some(0),
            "an import names another file"
        );
        assert_eq!(index(None, "data.py:\n", "q = 1\nr = 2\ns = 3\nt = 4"), None, "part of a longer name");
    }

    #[test]
    fn the_requested_files_of_an_answer_are_found() {
        let answer = "app/a.py:\n```python\nimport b\nx = 5\ny = 2\n```\n\nRun:\n```sh\nmake\n```\n**b.py**\n\n~~~\nimport c\nz = 3\n~~~\n";
        let found = find(answer, &files());
        let starts: Vec<_> =
            found.iter().map(|found| (found.index, answer[found.content..].lines().next())).collect();
        assert_eq!(starts, [(0, Some("import b")), (1, Some("import c"))]);
        assert_eq!(find("no file", &files()), []);
    }

    #[test]
    fn files_with_the_same_name_are_told_apart_by_their_paths() {
        let files =
            ["a/util.py", "b/util.py"].map(|path| Focus { path: path.into(), content: "x = 1\n".into() });
        for (wanted, file) in files.iter().enumerate() {
            let block = classify(&files, None, &format!("{}:\n", file.path), "x = 2");
            assert_eq!(block, Block::File { index: wanted, content: "x = 2\n".into() });
        }
    }

    #[test]
    fn a_block_without_a_name_is_the_file_that_has_most_of_its_lines() {
        assert_eq!(index(None, "", "import c\nz = 3\nw = 5\n"), Some(1));
        assert_eq!(index(None, "", "import q\nz = 9\nw = 5\n"), None);
    }

    #[test]
    fn if_one_file_is_requested_every_block_except_a_snippet_is_that_file() {
        let [file, _] = files();
        let only = std::slice::from_ref(&file);
        let new = Block::File { index: 0, content: "y = 2\nx = 3\n".into() };
        assert_eq!(classify(only, Some("other.py"), "b.py", "y = 2\nx = 3"), new);
        assert_eq!(classify(only, None, "", "import b  \nx = 1\ny = 2"), Block::Unchanged { index: 0 });
        assert_eq!(classify(only, None, "", "x"), Block::Other);
    }
}
