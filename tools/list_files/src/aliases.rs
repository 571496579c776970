//! Names that other agents use for a tool that lists files, and for its arguments.

use serde_json::{Map, Value};
use tool_api::{Aliases, Take, aliases};

pub(crate) const ALIASES: &Aliases = &Aliases {
    tools: "ls list_dir list_directory list_folder list_directory_contents directory_tree \
        view_directory glob glob_search glob_files glob_file_search find_file find_files \
        find_by_name find_path file_search search_files",
    words: "dir tree list find",
    arguments: &[
        (Aliases::FOLDER, Take::As("path")),
        ("pattern glob_pattern file_pattern file_glob name filename file_name include", Take::As("glob")),
        ("glob patterns query", Take::Converted),
        (
            "recursive case_sensitive depth max_depth levels limit max_results show_hidden hidden \
                all sort type",
            Take::LeftOut,
        ),
        ("respect_git_ignore respect_gitignore", Take::Only("true", "ignored files are not listed")),
        (
            "ignore exclude exclude_pattern exclude_patterns excludes",
            Take::Only("", "cannot exclude files; narrow the list with path and glob"),
        ),
    ],
    convert: Some(convert),
};

/// Unwraps a list that contains a single pattern. Treats a `query` without wildcards, slashes or
/// dots as part of a name.
fn convert(tool: &str, arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String> {
    aliases::one(arguments, "glob patterns", "glob", notes)?;
    if let Some(Value::String(text)) = aliases::take(arguments, "query") {
        if aliases::plain(tool) == "searchfiles" {
            return Err("to look for text in files, use search".into());
        }
        let glob = if text.contains(['*', '?', '[', '{', '/', '.']) { text } else { format!("*{text}*") };
        notes.push(format!("query taken as glob {glob}"));
        aliases::set(arguments, "glob", glob)?;
    }
    Ok(())
}
