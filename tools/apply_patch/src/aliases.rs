//! Accepts the tool names and edit formats that other agents use to edit files, and converts them
//! to their `apply_patch` equivalents.

use serde_json::{Map, Value, json};
use tool_api::{Aliases, Take, aliases};

pub(crate) const ALIASES: &Aliases = &Aliases {
    tools: "edit edit_file file_edit edit_existing_file update_file modify_file str_replace \
        string_replace str_replace_editor str_replace_based_edit_tool text_editor file_editor \
        replace_in_file replace_file_content multi_replace_file_content replace_string \
        replace_string_in_file search_replace search_and_replace find_and_replace multi_edit \
        multi_edit_file multi_replace_string_in_file apply_diff apply_edit apply_edits patch_file \
        write write_file write_to_file write_text_file file_write fs_write create_file \
        create_new_file new_file save_file overwrite_file insert_text insert_lines delete_file \
        remove_file",
    words: "replace patch create insert",
    arguments: &[
        (Aliases::FILE, Take::As("path")),
        ("input diff patch_text patch_content patch_string unified_diff git_diff", Take::As("patch")),
        (
            "contents text file_text file_content file_contents new_content new_contents \
                full_content code code_content",
            Take::As("content"),
        ),
        (SEARCH, Take::Converted),
        (REPLACE, Take::Converted),
        (EDITS, Take::Converted),
        (ALL, Take::Converted),
        (EXPECTED, Take::Converted),
        ("start_line end_line insert_line insert_text command overwrite code_edit", Take::Converted),
        (
            "line_count create_dirs create_directories create_parents make_dirs mkdir \
                requires_approval",
            Take::LeftOut,
        ),
        ("dry_run preview", Take::Only("", "a call changes files; leave this out")),
        ("append", Take::Only("", "cannot append: send an edit that ends with it, or the whole file")),
        (
            "mode write_mode",
            Take::Only(
                "w write overwrite rewrite create replace",
                "files are written whole or edited; leave it out",
            ),
        ),
        ("encoding", Take::Only("utf-8 utf8", "a file keeps its encoding; leave it out")),
        ("line line_number view_range line_range range", Take::Only("", NO_LINE_NUMBERS)),
        (
            "executable empty_file regex use_regex is_regex ignore_case",
            Take::Only("", "not supported; send edits, or the whole file as content"),
        ),
    ],
    convert: Some(convert),
};

const SEARCH: &str = "search old_string old_str old_text old_content old_code old original \
    original_text search_text search_string find find_text target_content";
const REPLACE: &str = "replace new_string new_str new_text new_code new replacement \
    replacement_text replacement_content replace_text replace_with updated";
const EDITS: &str = "edits changes replacements operations replacement_chunks";
const EXPECTED: &str = "expected_replacements expected_occurrences";
const ALL: &str = "replace_all allow_multiple all_occurrences";

const NO_LINE_NUMBERS: &str =
    "line numbers do not work; send edits whose search is a few lines copied from the file";

/// Other agents' tools that only delete a file.
const DELETES: [&str; 2] = ["deletefile", "removefile"];

fn convert(tool: &str, arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String> {
    let inserts = command(arguments)?;
    if aliases::take(arguments, "code_edit").is_some_and(|value| !aliases::is_empty(&value)) {
        let why = "code_edit leaves out code; send edits (path, search, replace), or the \
                   whole file as content";
        return Err(why.into());
    }
    if aliases::truth(arguments, "overwrite")? == Some(false) {
        return Err("existing files are always overwritten; leave overwrite out if you mean that".into());
    }
    if DELETES.contains(&aliases::plain(aliases::bare(tool)).as_str()) {
        aliases::set(arguments, "delete", true)?;
    }
    if insertion(arguments, inserts)? {
        notes.push("text to insert taken as content".into());
        return Ok(());
    }
    // If there is a patch, line numbers are only a hint about where it goes in the file.
    let hints = [aliases::take(arguments, "start_line"), aliases::take(arguments, "end_line")];
    if !arguments.contains_key("patch") && hints.iter().flatten().any(|line| !aliases::is_empty(line)) {
        return Err(NO_LINE_NUMBERS.into());
    }
    let all = aliases::truth(arguments, ALL)? == Some(true);
    let expected = expected(arguments)?;
    let mut edits = listed(arguments, notes)?;
    edits.extend(single(arguments, notes)?);
    if all {
        for edit in edits.iter_mut().filter_map(Value::as_object_mut) {
            edit.entry("replace_all").or_insert(Value::Bool(true));
        }
    }
    if let Some(count) = expected {
        match &mut edits[..] {
            [Value::Object(edit)] => _ = edit.entry("expected_replacements").or_insert(count.into()),
            [] => {}
            _ => {
                return Err("expected_replacements is ambiguous with several edits".into());
            }
        }
    }
    if !edits.is_empty() {
        remove_empty_content(arguments);
        arguments.insert("edits".into(), Value::Array(edits));
    }
    Ok(())
}

fn remove_empty_content(arguments: &mut Map<String, Value>) {
    if arguments.get("content").is_some_and(aliases::is_empty) {
        arguments.shift_remove("content");
    }
}

/// Returns the expected number of replacements; `None` means one.
fn expected(arguments: &mut Map<String, Value>) -> Result<Option<u64>, String> {
    let Some(count) = aliases::take(arguments, EXPECTED).filter(|count| !aliases::is_empty(count)) else {
        return Ok(None);
    };
    let number = count.as_u64().or_else(|| count.as_str()?.trim().parse().ok());
    let number = number.ok_or_else(|| format!("expected_replacements is {count}, not a count"))?;
    Ok(Some(number).filter(|n| *n != 1))
}

/// Refuses a command of another agent's editor if it is unknown or, like `view`, does not change
/// files. Returns whether the command inserts text; `None` if the call has no command.
fn command(arguments: &mut Map<String, Value>) -> Result<Option<bool>, String> {
    let Some(command) = aliases::take(arguments, "command") else { return Ok(None) };
    match command.as_str() {
        Some("create" | "str_replace" | "write" | "replace" | "edit" | "apply_patch") => Ok(Some(false)),
        Some("insert") => Ok(Some(true)),
        Some("view") => Err("to view a file, use read_file".into()),
        _ => Err(format!("there is no command {command}; send edits, or path and content")),
    }
}

/// If a call inserts text after a line, converts it. Returns whether the call inserts text.
/// `inserts` is the result of [`command`].
fn insertion(arguments: &mut Map<String, Value>, inserts: Option<bool>) -> Result<bool, String> {
    let line = aliases::take(arguments, "insert_line").filter(|line| !aliases::is_empty(line));
    let Some(line) = line.filter(|_| inserts != Some(false)) else {
        return if inserts == Some(true) { Err("insert needs insert_line".into()) } else { Ok(false) };
    };
    if aliases::take(arguments, SEARCH).is_some_and(|search| !aliases::is_empty(&search)) {
        return Err("text is either inserted after a line or replaces other text".into());
    }
    let text = aliases::take(arguments, "insert_text").or_else(|| aliases::take(arguments, REPLACE));
    if let Some(text) = text {
        remove_empty_content(arguments);
        aliases::set(arguments, "content", text)?;
    }
    arguments.insert("insert_line".into(), line);
    Ok(true)
}

/// Returns the edits that are passed as a list, each with its path.
fn listed(arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<Vec<Value>, String> {
    let Some(list) = aliases::take(arguments, EDITS) else { return Ok(Vec::new()) };
    let wrong = || "edits is not a list of edits".to_owned();
    let list = match list {
        Value::String(text) => serde_json::from_str(&text).map_err(|_| wrong())?,
        list => list,
    };
    let mut list = match list {
        Value::Array(list) => list,
        Value::Object(_) => vec![list],
        _ => return Err(wrong()),
    };
    let mut path = None;
    for edit in &mut list {
        let edit = edit.as_object_mut().ok_or_else(wrong)?;
        edit.retain(|name, _| !aliases::is_aside(name));
        if aliases::truth(edit, ALL)? == Some(true) {
            edit.insert("replace_all".into(), true.into());
        }
        if let Some(count) = expected(edit)? {
            edit.insert("expected_replacements".into(), count.into());
        }
        for (names, own) in [(SEARCH, "search"), (REPLACE, "replace"), (Aliases::FILE, "path")] {
            rename(edit, names, own, notes)?;
        }
        if !edit.contains_key("path") {
            path = path.or_else(|| arguments.get("path").cloned());
            let path = path.clone().ok_or("each edit needs a path")?;
            edit.insert("path".into(), path);
        }
    }
    if path.is_some() {
        notes.push("path added to each edit".into());
        arguments.shift_remove("path");
    }
    Ok(list)
}

/// Returns the edit whose search and replacement are top-level arguments of the call, or `None` if
/// there is none.
fn single(arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<Option<Value>, String> {
    let (search, replace) = (aliases::take(arguments, SEARCH), aliases::take(arguments, REPLACE));
    let nothing = |part: &Option<Value>| part.as_ref().is_none_or(aliases::is_empty);
    // Small models often fill in every argument and leave unused ones empty.
    let other = ["patch", "content", "edits", "delete"]
        .iter()
        .any(|name| arguments.get(*name).is_some_and(|value| !aliases::is_empty(value)));
    if search.is_none() && replace.is_none() || other && nothing(&search) && nothing(&replace) {
        return Ok(None);
    }
    let (Some(search), Some(replace)) = (search, replace) else {
        return Err("an edit needs search (the old lines) and replace (the new lines)".into());
    };
    let path = aliases::take(arguments, "path").ok_or("an edit needs a path")?;
    notes.push("search and replace taken as an edit".into());
    Ok(Some(json!({ "path": path, "search": search, "replace": replace })))
}

fn rename(
    edit: &mut Map<String, Value>,
    names: &str,
    own: &str,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let found: Vec<String> =
        edit.keys().filter(|name| *name != own && aliases::is_one_of(name, names)).cloned().collect();
    for name in found {
        let value = edit.shift_remove(&name).unwrap_or_default();
        let note = format!("{name} taken as {own}");
        if !notes.contains(&note) {
            notes.push(note);
        }
        aliases::set(edit, own, value)?;
    }
    Ok(())
}
