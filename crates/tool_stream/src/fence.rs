//! Markdown fences: reads their labels, and decides from the label and the text before a fence
//! whether it may hold a file.

/// An open fence.
#[derive(Debug, Clone)]
pub(crate) struct Fence {
    /// The character of the fence: a backtick or a tilde.
    pub(crate) byte: u8,
    /// Length of the opening run.
    pub(crate) len: usize,
    /// Offset of the opening run.
    pub(crate) start: usize,
    /// Offset of the first byte after the opening line.
    pub(crate) content: usize,
    /// Whether calls may begin on any line, not only at the first byte.
    pub(crate) data: bool,
    /// Whether the label says that the fence holds tool output or thinking.
    pub(crate) output: bool,
    /// Whether the fence has held only whitespace so far.
    pub(crate) fresh: bool,
    /// Whether a call in the fence has ended, even a malformed one. If so, the closing line is not
    /// shown.
    pub(crate) hidden: bool,
    /// In whole-file mode, the file that the fence holds, unless it turns out to hold a call.
    pub(crate) file: Option<FileInfo>,
}

/// Information about the file in a fence, from the fence's info string and the text before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileInfo {
    pub(crate) path: Option<String>,
    /// Whether an opening brace at the start of the file may begin a call.
    pub(crate) may_be_call: bool,
}

/// Returns true if a fence with this label may hold calls on any line.
pub(crate) fn is_data_label(label: &str) -> bool {
    let named = label.contains("tool") || label.contains("call") || label.starts_with("json");
    (label.is_empty() || label == "xml" || named) && !is_output_label(label)
}

/// Returns true if a fence with this label holds tool output or thinking.
pub(crate) fn is_output_label(label: &str) -> bool {
    ["output", "result", "response", "think", "thought", "reasoning"].iter().any(|word| label.contains(word))
}

/// Returns the label of an info string, which is its first word in lowercase.
pub(crate) fn label(info: &str) -> String {
    let word = info.split(|c: char| c.is_whitespace() || c == ':').find(|w| !w.is_empty());
    word.unwrap_or_default().to_ascii_lowercase()
}

/// Returns true if the label marks commands, output or a patch. A block with such a label is a file
/// only if it has a path. If `scripts` is set, shell labels are excluded.
fn is_transcript(label: &str, scripts: bool) -> bool {
    let shell = ["bash", "sh", "shell", "zsh"].contains(&label);
    shell && !scripts || ["console", "terminal", "output", "shell-session", "diff", "patch"].contains(&label)
}

/// Decides from the info string and the text before a fence whether the fence may hold a file.
pub(crate) fn file_info(info: &str, before: &[u8], scripts: bool) -> Option<FileInfo> {
    let label = label(info);
    let path = path_in_info(info).or_else(|| path_on_line_before(before));
    if path.is_none() && is_transcript(&label, scripts) {
        return None;
    }
    let may_be_call = path.is_none() && is_data_label(&label);
    Some(FileInfo { path, may_be_call })
}

/// Finds the path in ```` ```python src/a.py ````, ```` ```src/a.py ````, ```` ```python:src/a.py
/// ````, `title="src/a.py"` and similar.
fn path_in_info(info: &str) -> Option<String> {
    let info = info.trim();
    for key in ["title", "filename", "file", "path", "name"] {
        for (at, _) in info.match_indices(key) {
            let before = info[..at].chars().next_back();
            let Some(value) = info[at + key.len()..].trim_start().strip_prefix(['=', ':']) else { continue };
            if before.is_some_and(char::is_alphanumeric) {
                continue;
            }
            let value = value.trim_start();
            let value = match value.chars().next() {
                Some(q @ ('"' | '\'')) => value[1..].split(q).next().unwrap_or_default(),
                _ => value.split_whitespace().next().unwrap_or_default(),
            };
            if !value.is_empty() {
                return Some(value.to_owned());
            }
        }
    }
    info.split_whitespace()
        .map(|word| word.trim_matches(['{', '}', '(', ')', '`', '"', '\'', ',']))
        .map(|word| {
            word.split_once(':')
                .filter(|(label, _)| !label.contains(['/', '.']))
                .map_or(word, |(_, path)| path)
        })
        .find(|word| is_path(word))
        .map(str::to_owned)
}

/// Finds the path on the last line of text before the fence, if that line contains only a path,
/// apart from markup and words such as `File:`.
fn path_on_line_before(before: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(before);
    let line = text.trim_end().rsplit('\n').next()?.trim();
    let mut rest = line.trim_start_matches('#').trim().trim_end_matches(':');
    loop {
        let lower = rest.to_ascii_lowercase();
        let shorter = rest.trim().trim_matches(['*', '`', '_', '"', '\'']).trim_end_matches(':').trim();
        let word = ["file:", "filename:", "path:", "file name:", "file path:", "file"].iter().find(|w| {
            lower.starts_with(*w) && (w.ends_with(':') || lower[w.len()..].starts_with([' ', '`']))
        });
        let shorter = match word {
            Some(word) => rest[word.len()..].trim(),
            None => shorter,
        };
        if shorter == rest {
            break;
        }
        rest = shorter;
    }
    if is_path(rest) { Some(rest.to_owned()) } else { None }
}

/// Returns true for a word that can only be a path, that is, one that has no whitespace and that
/// contains a slash, has an extension or is a known name such as `Makefile`.
fn is_path(word: &str) -> bool {
    let shape = !word.is_empty()
        && word.len() <= 256
        && word.chars().all(|c| c.is_alphanumeric() || "_-./+@~[]()$".contains(c))
        && word.chars().any(char::is_alphanumeric)
        && !word.ends_with(['.', '/'])
        && !word.starts_with("//");
    let name = word.rsplit('/').next().unwrap_or(word);
    let extension = name.rsplit_once('.').is_some_and(|(_, ext)| {
        (1..=10).contains(&ext.len())
            && ext.chars().all(char::is_alphanumeric)
            && ext.chars().any(char::is_alphabetic)
    });
    let known = ["Makefile", "Dockerfile", "Justfile", "Rakefile", "Gemfile"].contains(&name);
    shape && (extension || known || word.contains('/') && word.chars().any(char::is_alphabetic))
}
