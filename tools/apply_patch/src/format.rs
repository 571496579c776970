//! Descriptions of the tool for a model that is asked to use a particular edit format. The tool
//! still accepts every format.
//!
//! Effect on the prompt cache: the description is part of the system prompt, so it must not change
//! within a session.

use patch::Dialect;
use serde_json::{Value, json};

/// An edit format that a model can be asked to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditFormat(Dialect);

impl EditFormat {
    /// Every format, with its name in the settings.
    pub const ALL: [(&str, Self); 5] = [
        ("edits", Self(Dialect::Edits)),
        ("unified", Self(Dialect::Unified)),
        ("envelope", Self(Dialect::Envelope)),
        ("search-replace", Self(Dialect::SearchReplace)),
        ("whole-file", Self(Dialect::WholeFile)),
    ];

    /// Returns the format with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    /// Returns the description of the tool for the model.
    #[must_use]
    pub fn description(self) -> String {
        let says = match self.0 {
            Dialect::Unified => "Edit, create or delete files with a unified diff",
            Dialect::Envelope => "Edit files with a patch (Update File, Add File, Delete File)",
            Dialect::SearchReplace => {
                "Edit files with blocks whose SEARCH lines are copied exactly from the file (none: a new file)"
            }
            Dialect::Edits => {
                "Edit files: each \"search\" is a few lines copied exactly from the file (empty: a new file)"
            }
            Dialect::WholeFile => "Write a file: \"content\" is its complete new text",
        };
        format!("{says}, like {}", self.example())
    }

    /// Returns the arguments of a small change, as shown in the description.
    #[must_use]
    pub fn example(self) -> Value {
        let [head, old] = SEARCH;
        let [_, new] = REPLACE;
        let lines: Vec<String> = match self.0 {
            Dialect::Unified => vec![
                format!("--- a/{PATH}"),
                format!("+++ b/{PATH}"),
                "@@ -1,2 +1,2 @@".into(),
                format!(" {head}"),
                format!("-{old}"),
                format!("+{new}"),
            ],
            Dialect::Envelope => vec![
                "*** Begin Patch".into(),
                format!("*** Update File: {PATH}"),
                "@@".into(),
                format!(" {head}"),
                format!("-{old}"),
                format!("+{new}"),
                "*** End Patch".into(),
            ],
            Dialect::SearchReplace => {
                let mut lines = vec![PATH.to_owned(), "<<<<<<< SEARCH".into()];
                lines.extend(SEARCH.map(str::to_owned));
                lines.push("=======".into());
                lines.extend(REPLACE.map(str::to_owned));
                lines.push(">>>>>>> REPLACE".into());
                lines
            }
            Dialect::Edits => {
                let (search, replace) = (joined(&SEARCH), joined(&REPLACE));
                return json!({"edits": [{"path": PATH, "search": search, "replace": replace}]});
            }
            Dialect::WholeFile => return json!({"path": PATH, "content": joined(&REPLACE)}),
        };
        json!({"patch": joined(&lines.iter().map(String::as_str).collect::<Vec<_>>())})
    }

    /// Returns the JSON Schema of the described arguments. The tool also accepts others.
    #[must_use]
    pub fn schema(self) -> Value {
        let object = |properties: Value| {
            let required: Vec<_> =
                properties.as_object().into_iter().flat_map(|p| p.keys().cloned()).collect();
            json!({"type": "object", "properties": properties, "required": required})
        };
        let text = json!({"type": "string"});
        match self.0 {
            Dialect::Unified | Dialect::Envelope | Dialect::SearchReplace => object(json!({"patch": text})),
            Dialect::Edits => {
                let edit = object(json!({"path": text, "search": text, "replace": text}));
                object(json!({"edits": {"type": "array", "items": edit}}))
            }
            Dialect::WholeFile => object(json!({"path": text, "content": text})),
        }
    }
}

/// The example, which is the same in every format: a small change with one context line.
const PATH: &str = "area.py";
const SEARCH: [&str; 2] = ["def area(w, h):", "    return w + h"];
const REPLACE: [&str; 2] = ["def area(w, h):", "    return w * h"];

/// Joins lines into a single string.
fn joined(lines: &[&str]) -> Value {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into()
}
