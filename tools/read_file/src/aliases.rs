//! Names that other agents use for a tool that reads a file, and for its arguments.

use serde_json::{Map, Value};
use tool_api::{Aliases, Take, aliases};

pub(crate) const ALIASES: &Aliases = &Aliases {
    tools: "read cat view view_file open_file show_file get_file read_files read_many_files \
        read_multiple_files read_text_file read_file_content get_file_content get_file_contents \
        fs_read str_replace_editor str_replace_based_edit_tool text_editor file_editor",
    words: "open",
    arguments: &[
        (Aliases::FILE, Take::As("path")),
        (
            "start line_start from_line begin_line first_line start_line_number \
                start_line_one_indexed",
            Take::As("start_line"),
        ),
        (
            "end line_end to_line last_line end_line_number end_line_one_indexed \
                end_line_one_indexed_inclusive",
            Take::As("end_line"),
        ),
        (
            "path paths files file_paths offset limit max_lines head view_range line_range lines \
                range should_read_entire_file command",
            Take::Converted,
        ),
        ("show_line_numbers line_numbers number_lines", Take::LeftOut),
        ("mode type", Take::Only("line lines file text", "files are read as lines; leave it out")),
        ("include exclude recursive use_default_excludes", Take::Only("true", "read one file per call")),
        ("encoding", Take::Only("utf-8 utf8 auto", "files are read in their own encoding; leave it out")),
        // Arguments of the editing commands in other agents' editor tools.
        (
            "file_text old_str new_str insert_line insert_text",
            Take::Only("0", "reading takes path, start_line and end_line only"),
        ),
    ],
    convert: Some(convert),
};

const PATHS: &str = "path paths files file_paths";

fn convert(_: &str, arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String> {
    if let Some(command) = aliases::take(arguments, "command")
        && !["view", "read", "open", "cat"].iter().any(|word| command == *word)
    {
        return Err(format!("{command} does not read a file; leave it out"));
    }
    aliases::one(arguments, PATHS, "path", notes)?;
    if let Some(Value::Object(file)) = arguments.get("path")
        && let (1, Some(path)) = (file.len(), file.get("path").or(file.get("file_path")))
    {
        let path = path.clone();
        arguments.insert("path".into(), path);
    }
    if aliases::truth(arguments, "should_read_entire_file")? == Some(true) {
        notes.push("should_read_entire_file: a range of lines is left out".into());
        for name in ["start_line", "end_line", "offset", "limit"] {
            arguments.shift_remove(name);
        }
    }
    if let Some(range) = aliases::take(arguments, "view_range line_range lines range")
        && let Some((first, last)) = range_of(&range)?
    {
        notes.push("a range of lines taken as start_line and end_line".into());
        aliases::set(arguments, "start_line", first)?;
        if last > 0 {
            aliases::set(arguments, "end_line", last)?;
        }
    }
    if let Some(offset) = aliases::take(arguments, "offset") {
        notes.push("offset taken as start_line".into());
        aliases::set(arguments, "start_line", number("offset", &offset)?.max(1))?;
    }
    if let Some(limit) = aliases::take(arguments, "limit max_lines head") {
        let limit = number("limit", &limit)?;
        if limit > 0 && arguments.get("end_line").is_none_or(Value::is_null) {
            let first = arguments.get("start_line").map_or(Ok(1), |v| number("start_line", v))?.max(1);
            notes.push("limit taken as end_line".into());
            aliases::set(arguments, "end_line", first.saturating_add(limit - 1))?;
        }
    }
    Ok(())
}

fn number(name: &str, value: &Value) -> Result<i64, String> {
    let text = value.as_str().and_then(|text| text.trim().parse().ok());
    let float = || value.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64);
    value.as_i64().or(text).or_else(float).ok_or_else(|| format!("{name} is not a number of lines"))
}

/// Parses a range such as `[10, 20]` or `"10-20"`. An end of -1 means the end of the file. Returns
/// `None` for an empty value.
fn range_of(value: &Value) -> Result<Option<(i64, i64)>, String> {
    let wrong = || Err("a range of lines is [FIRST, LAST]; give start_line and end_line".to_owned());
    let ends: Vec<i64> = match value {
        Value::Array(ends) => ends.iter().map(|end| number("a range", end)).collect::<Result<_, _>>()?,
        Value::String(text) => {
            let text = text.trim().trim_matches(['[', ']', '(', ')']);
            if text.is_empty() {
                return Ok(None);
            }
            let separator = if text.contains(',') { ',' } else { '-' };
            let ends = text.split(separator).map(|end| end.trim().parse().ok());
            let Some(ends) = ends.collect::<Option<Vec<i64>>>() else { return wrong() };
            ends
        }
        _ => return wrong(),
    };
    match ends.as_slice() {
        [] => Ok(None),
        [first, last] if *first >= 0 && (*last == -1 || last >= first) => Ok(Some(((*first).max(1), *last))),
        _ => wrong(),
    }
}
