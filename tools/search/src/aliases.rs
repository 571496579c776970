//! Names that other agents use for a tool that searches files, and for its arguments.

use grep_regex::RegexMatcher;
use serde_json::{Map, Value};
use tool_api::{Aliases, Take, aliases};

pub(crate) const ALIASES: &Aliases = &Aliases {
    tools: "grep rg ripgrep grep_search grep_files search_code code_search search_files search_dir \
        search_directory search_file search_file_content search_in_files search_content search_text \
        search_for_pattern find_in_files text_search regex_search",
    words: "",
    arguments: &[
        (
            "query regex regexp search search_term search_query search_pattern search_text text term \
                keyword expression q",
            Take::As("pattern"),
        ),
        (Aliases::FOLDER, Take::As("path")),
        ("file_path file filename file_name", Take::As("path")),
        (GLOBS, Take::Converted),
        ("path paths target_directories", Take::Converted),
        (
            "case_sensitive case_insensitive ignore_case match_case i is_regex is_regexp use_regex \
                regex_mode fixed_strings literal",
            Take::Converted,
        ),
        (
            "n a b c output_mode head_limit max_results max_matches limit context context_lines \
                line_number line_numbers show_line_numbers recursive",
            Take::LeftOut,
        ),
        ("multiline", Take::Only("", "a pattern matches within a line; search for text on one line")),
        (
            "exclude exclude_pattern exclude_patterns excludes ignore type file_type offset",
            Take::Only("0", "not supported; narrow the search with path and glob"),
        ),
    ],
    convert: Some(convert),
};

const GLOBS: &str = "include include_pattern includes file_pattern file_glob glob_pattern glob_filter";

fn convert(_: &str, arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String> {
    aliases::one(arguments, "path paths target_directories", "path", notes)?;
    aliases::one(arguments, GLOBS, "glob", notes)?;
    let sensitive = aliases::truth(arguments, "case_sensitive match_case")?;
    let insensitive = aliases::truth(arguments, "case_insensitive ignore_case i")?;
    let regex = aliases::truth(arguments, "is_regex is_regexp use_regex regex_mode")?;
    let literal = aliases::truth(arguments, "fixed_strings literal")?;
    let Some(Value::String(pattern)) = arguments.get_mut("pattern") else { return Ok(()) };
    let mind_case = sensitive.or(insensitive.map(|yes| !yes));
    let plain = regex == Some(false) || literal == Some(true);
    // An invalid regex is searched for literally. It is escaped here, because a flag in front of it
    // would otherwise become part of the text.
    if plain || (mind_case.is_some() && RegexMatcher::new(pattern).is_err()) {
        notes.push("pattern taken as plain text".into());
        *pattern = escaped(pattern);
    }
    // By default, case matters only if the pattern contains uppercase letters. A flag overrides
    // this.
    if let Some(mind) = mind_case {
        pattern.insert_str(0, if mind { "(?-i)" } else { "(?i)" });
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
