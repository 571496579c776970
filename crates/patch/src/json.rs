//! Reads edits from JSON: either our own list format or the arguments of other agents' edit tools.

use serde_json::{Map, Value};

use crate::{FilePatch, ParseError, edits_with_options, parse_for, whole_file};

/// Names of the field that holds the file's path. All names here are in snake case; `filePath` and
/// `file-path` match `file_path`.
const PATH: &str = "path file_path filename file_name file target_file relative_path relative_workspace_path \
    absolute_path";
const SEARCH: &str = "search old_string old_str old_text old_content old_code old find original original_text \
    search_text target_content";
const REPLACE: &str = "replace new_string new_str new_text new_content new_code new replacement replace_with \
    replacement_content updated updated_text insert_text";
const CONTENT: &str = "content contents file_text file_content file_contents text";
const EDITS: &str = "edits changes replacements replacement_chunks";
const FILES: &str = "files file_edits";
const PATCH: &str = "patch diff input patch_text cmd command script";
const REPLACE_ALL: &str = "replace_all allow_multiple all_occurrences";
const EXPECTED: &str = "expected_replacements expected_occurrences";
const LINE: &str = "insert_line";
const WRAPPERS: &str = "arguments args parameters params input tool_input";
/// Names of fields that do not affect the edit.
const IGNORED: &str = "tool name type id description explanation instruction instructions reason reasoning title \
    command timeout workdir cwd display_description mode is_new_file security_risk";
const MAX_DEPTH: usize = 4;

/// Reads edits from a JSON value. Returns `None` if the value is anything else.
pub(crate) fn read(value: &Value, path: Option<&str>) -> Option<Result<Vec<FilePatch>, ParseError>> {
    read_nested(value, path, MAX_DEPTH)
}

fn read_nested(
    value: &Value,
    path: Option<&str>,
    depth: usize,
) -> Option<Result<Vec<FilePatch>, ParseError>> {
    let depth = depth.checked_sub(1)?;
    match value {
        Value::Object(map) => object(map, path, depth),
        Value::Array(list) if list.iter().all(Value::is_string) => {
            // The lines of a patch, or a command and its arguments.
            let lines: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            let script = lines.iter().rev().find(|text| text.contains('\n') && crate::detect(text).is_some());
            let text = script.map(|text| (*text).to_owned()).or_else(|| text(value))?;
            patch(&text, path)
        }
        Value::Array(list) if !list.is_empty() => edits(list, path),
        Value::String(text) if text.contains('\n') => patch(text, path),
        _ => None,
    }
}

fn patch(text: &str, path: Option<&str>) -> Option<Result<Vec<FilePatch>, ParseError>> {
    crate::detect(text).map(|_| parse_for(text, path))
}

fn normalized(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

fn is_one_of(key: &str, names: &str) -> bool {
    names.split_whitespace().any(|name| normalized(name) == normalized(key))
}

/// Returns the value of the field that has one of these names. A null value is treated as absent.
fn get<'v>(map: &'v Map<String, Value>, names: &str) -> Option<&'v Value> {
    let mut found =
        map.iter().filter(|(key, value)| is_one_of(key, names) && !value.is_null()).map(|(_, value)| value);
    let first = found.next()?;
    // Two names with different values are ambiguous.
    found.all(|other| other == first).then_some(first)
}

/// Reads a boolean, which may be written as a string.
fn boolean(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_str()?.trim().to_ascii_lowercase().parse().ok())
}

/// Reads a count, which may be written as a string.
fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| n.try_into().ok()).or_else(|| value.as_str()?.trim().parse().ok())
}

/// Reads a string, which may be given as a list of lines.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => lines
            .iter()
            .map(|line| line.as_str().map(|line| format!("{}\n", line.strip_suffix('\n').unwrap_or(line))))
            .collect(),
        _ => None,
    }
}

fn object(
    map: &Map<String, Value>,
    path: Option<&str>,
    depth: usize,
) -> Option<Result<Vec<FilePatch>, ParseError>> {
    let known = [
        PATH,
        SEARCH,
        REPLACE,
        CONTENT,
        EDITS,
        FILES,
        PATCH,
        REPLACE_ALL,
        EXPECTED,
        LINE,
        WRAPPERS,
        IGNORED,
        "delete",
    ];
    if map.keys().any(|key| !known.iter().any(|names| is_one_of(key, names))) {
        return None;
    }
    let named = get(map, PATH).and_then(Value::as_str).filter(|path| !path.is_empty());
    let path = named.or(path);
    let command = map.get("command").and_then(Value::as_str);
    if matches!(command, Some("view" | "undo_edit")) {
        return None;
    }
    match get(map, EDITS) {
        Some(Value::Array(list)) if !list.is_empty() => return edits(list, path),
        Some(edit @ Value::Object(_)) => return edits(std::slice::from_ref(edit), path),
        Some(Value::String(text)) => {
            let list: Value = serde_json::from_str(text).ok()?;
            return edits(list.as_array()?, path);
        }
        _ => {}
    }
    if let Some(Value::Array(files)) = get(map, FILES) {
        let mut out = Vec::new();
        for file in files {
            match object(file.as_object()?, path, depth.checked_sub(1)?)? {
                Ok(patches) => out.extend(patches),
                Err(e) => return Some(Err(e)),
            }
        }
        return (!out.is_empty()).then_some(Ok(out));
    }
    if get(map, SEARCH).is_some() || get(map, LINE).is_some() || command == Some("insert") {
        return edits(&[Value::Object(map.clone())], path);
    }
    if let Some(wrapped) = get(map, WRAPPERS).filter(|value| value.is_object()) {
        return read_nested(wrapped, path, depth);
    }
    if let Some(found) = PATCH
        .split_whitespace()
        .filter_map(|name| get(map, name))
        .find_map(|value| read_nested(value, path, depth))
    {
        return Some(found);
    }
    let content = text(get(map, CONTENT)?)?;
    Some(
        path.map(|path| vec![whole_file(path, content.as_bytes())])
            .ok_or(ParseError::NoPath("give it a path")),
    )
}

/// Reads a list of edits. Edits without a path of their own use `path`.
fn edits(list: &[Value], path: Option<&str>) -> Option<Result<Vec<FilePatch>, ParseError>> {
    struct Edit {
        path: Option<String>,
        search: String,
        replace: String,
        everywhere: bool,
        expected: Option<usize>,
        below: Option<usize>,
    }
    let edit = |value: &Value| {
        let map = value.as_object()?;
        let below = match get(map, LINE) {
            Some(line) => Some(usize::try_from(line.as_u64()?).ok()?),
            None => None,
        };
        let search = match get(map, SEARCH) {
            Some(search) => text(search)?,
            None if below.is_some() => String::new(),
            None => return None,
        };
        Some(Edit {
            path: get(map, PATH)
                .and_then(Value::as_str)
                .filter(|path| !path.is_empty())
                .or(path)
                .map(str::to_owned),
            search,
            replace: text(get(map, REPLACE)?)?,
            everywhere: match get(map, REPLACE_ALL) {
                Some(all) => boolean(all)?,
                None => false,
            },
            expected: match get(map, EXPECTED) {
                Some(count) => Some(number(count)?),
                None => None,
            },
            below,
        })
    };
    let list: Vec<Edit> = list.iter().map(edit).collect::<Option<_>>()?;
    if list.iter().any(|edit| edit.path.is_none()) {
        return Some(Err(ParseError::NoPath("give each edit a path")));
    }
    Some(Ok(edits_with_options(list.iter().filter_map(|edit| {
        let path = edit.path.as_deref()?;
        Some(crate::Edit {
            path,
            search: &edit.search,
            replace: &edit.replace,
            everywhere: edit.everywhere,
            expected: edit.expected,
            below: edit.below,
        })
    }))))
}
