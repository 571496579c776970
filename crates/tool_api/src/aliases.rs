//! The names that other agents use for a tool and its arguments. They are data in the tool's
//! definition.
//!
//! Models are trained on the tools of many agents and fall back on those names. An alias is
//! accepted only where it is unambiguous. If a tool cannot honor an argument (such as one that runs
//! a command in the background or appends text), it refuses the call and explains why. It never
//! drops such an argument.
//!
//! A list of names is a single string, with spaces between the names. Name comparisons ignore case,
//! `_` and `-`: `filePath`, `file-path` and `FILE_PATH` all match `file_path`.

use serde_json::{Map, Value};

/// The aliases of one tool.
#[derive(Debug, Clone, Copy)]
pub struct Aliases {
    /// Names, in snake case, of other agents' tools whose calls this tool may carry out.
    pub tools: &'static str,
    /// Additional names that are ordinary words. A JSON object that is not a call may also contain
    /// these words, so they are accepted only where the model is certainly calling a tool.
    pub words: &'static str,
    /// Other names for arguments, in snake case, and what to do with arguments that have those
    /// names.
    pub arguments: &'static [(&'static str, Take)],
    /// Converts arguments to those of the tool: arguments marked [`Take::Converted`], and the
    /// tool's own arguments if their values are in another agent's format. Receives the tool's name
    /// as written in the call, and adds a note for each change. The result is validated.
    pub convert: Option<Convert>,
}

/// See [`Aliases::convert`].
pub type Convert =
    fn(tool: &str, arguments: &mut Map<String, Value>, notes: &mut Vec<String>) -> Result<(), String>;

/// What happens to an argument whose name is not one of the tool's own.
#[derive(Debug, Clone, Copy)]
pub enum Take {
    /// The argument becomes the tool's argument with the given name.
    As(&'static str),
    /// The argument is dropped, regardless of its value, because it does not change what the call
    /// does.
    LeftOut,
    /// The argument is dropped if its value is empty or one of the words in the first string. The
    /// value `false` is treated as empty unless `true` is one of these words. Any other value is
    /// refused with the sentence in the second string.
    Only(&'static str, &'static str),
    /// The argument is kept for [`Aliases::convert`].
    Converted,
}

/// Arguments that are notes about a call and do not change what it does.
const ASIDES: &str = "description display_description explanation instruction \
    instruction_reminder instructions instructions_reminder justification purpose rationale reason \
    reasoning security_risk summary task_progress thinking thought thoughts tool_action tool_summary \
    wait_for_previous_tools";

impl Aliases {
    /// No aliases.
    pub const NONE: &'static Aliases = &Aliases { tools: "", words: "", arguments: &[], convert: None };

    /// Other agents' names for the path of a file.
    pub const FILE: &'static str = "file_path filename file_name file target_file \
        target_path relative_path relative_workspace_path absolute_path path_to_file full_path";
    /// Other agents' names for the path of a folder.
    pub const FOLDER: &'static str = "directory directory_path dir dir_path folder \
        folder_path target_directory relative_path relative_workspace_path absolute_path search_path \
        search_directory root";

    /// Returns what to do with an argument, or `None` if its name is unknown.
    pub(crate) fn take(&self, name: &str) -> Option<Take> {
        let found = self.arguments.iter().find(|(names, _)| is_one_of(name, names));
        found.map(|(_, take)| *take).or_else(|| is_aside(name).then_some(Take::LeftOut))
    }

    pub(crate) fn names_tool(&self, name: &str) -> bool {
        is_one_of(name, self.tools) || is_one_of(name, self.words)
    }
}

/// Removes and returns the first argument with one of these names, in any spelling. Null is treated
/// as absent.
pub fn take(arguments: &mut Map<String, Value>, names: &str) -> Option<Value> {
    let name = arguments.keys().find(|name| is_one_of(name, names)).cloned()?;
    arguments.shift_remove(&name).filter(|value| !value.is_null())
}

/// Sets an argument.
///
/// # Errors
/// Fails if the argument already has a different value.
pub fn set(arguments: &mut Map<String, Value>, name: &str, value: impl Into<Value>) -> Result<(), String> {
    let value = value.into();
    match arguments.get(name) {
        Some(known) if !known.is_null() && *known != value => {
            Err(format!("{name} is given twice, with different values"))
        }
        _ => {
            arguments.insert(name.to_owned(), value);
            Ok(())
        }
    }
}

/// Renames an argument with any of these names to `own`. If its value is a list with one item, the
/// item replaces the list. An argument that is already named `own` stays as it is unless its value
/// is a list.
///
/// # Errors
/// Fails if the list has several items.
pub fn one(
    arguments: &mut Map<String, Value>,
    names: &str,
    own: &str,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let names: Vec<String> = arguments.keys().filter(|name| is_one_of(name, names)).cloned().collect();
    for name in names {
        let value = match arguments.get(&name) {
            Some(Value::Array(list)) => match list.as_slice() {
                [] => Value::Null,
                [one] => one.clone(),
                _ => return Err(format!("give one {own} with each call")),
            },
            Some(value) if name != own => value.clone(),
            _ => continue,
        };
        arguments.shift_remove(&name);
        if !is_empty(&value) {
            notes.push(if name == own {
                format!("{own}: a list with one item")
            } else {
                format!("{name} taken as {own}")
            });
            set(arguments, own, value)?;
        }
    }
    Ok(())
}

/// Removes and returns a boolean argument with any of these names.
///
/// # Errors
/// Fails if the value is neither true nor false.
pub fn truth(arguments: &mut Map<String, Value>, names: &str) -> Result<Option<bool>, String> {
    match take(arguments, names) {
        None => Ok(None),
        Some(Value::Bool(yes)) => Ok(Some(yes)),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(format!("{} is neither true nor false", names.replace(' ', " or "))),
    }
}

/// Returns a name in lowercase, without separators.
#[must_use]
pub fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// Returns a tool's name without the namespace prefix that a chat template adds: `functions.bash`,
/// `default_api.bash`, `mcp__files__read_file`.
#[must_use]
pub fn bare(name: &str) -> &str {
    let number = |part: &&str| part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = name.trim().rsplit(['.', ':', '/']);
    let name = parts.find(|part| !number(part)).unwrap_or(name);
    name.rsplit("__").next().unwrap_or(name)
}

/// Whether an argument is a note about a call.
#[must_use]
pub fn is_aside(name: &str) -> bool {
    is_one_of(name, ASIDES)
}

/// Whether a name is in a list of names, in any spelling.
#[must_use]
pub fn is_one_of(name: &str, names: &str) -> bool {
    let name = plain(name);
    names.split_whitespace().any(|n| plain(n) == name)
}

/// Returns the usual spellings of a name that is given in snake case.
pub(crate) fn spellings(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split('_').filter(|w| !w.is_empty()).collect();
    let pascal: String = words.iter().map(|w| capitalized(w)).collect();
    let mut camel = pascal.clone();
    if let Some(first) = camel.get(..1).map(str::to_lowercase) {
        camel.replace_range(..1, &first);
    }
    let mut all = vec![name.to_owned(), words.join("-"), words.concat(), camel, pascal, name.to_uppercase()];
    all.sort();
    all.dedup();
    all
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Whether a value, such as null, false or an empty list, is equivalent to no value.
#[must_use]
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(_) | Value::Bool(true) => false,
        Value::String(text) => {
            let text = text.trim().to_lowercase();
            text.is_empty() || text == "false" || text == "none" || text == "null"
        }
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// Whether [`Take::Only`] drops a value.
pub(crate) fn asks_nothing(value: &Value, allowed: &str) -> bool {
    let text = match value {
        Value::String(text) => text.trim().to_lowercase(),
        other => other.to_string(),
    };
    let allows = |word: &str| allowed.split_whitespace().any(|allowed| allowed == word);
    let denied = allows("true") && text == "false";
    !denied && (is_empty(value) || allows(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_of_names_ignore_case_and_separators() {
        assert_eq!(plain("filePath"), plain("FILE-PATH"));
        assert_eq!((bare("functions.bash"), bare("functions.bash:0")), ("bash", "bash"));
        assert_eq!(bare("mcp__files__read_file"), "read_file");
        assert_eq!(
            spellings("list_dir"),
            ["LIST_DIR", "ListDir", "list-dir", "listDir", "list_dir", "listdir"]
        );
    }
}
