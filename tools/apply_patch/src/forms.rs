//! How the tool is described to a model that is asked for one edit format. The tool accepts every
//! format, whichever it describes.
//!
//! Effect on the prompt cache: the description is part of the system prompt, so it may not change
//! within a session.

use patch::Dialect;
use serde_json::{Value, json};

/// How a text of several lines is written in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One string, with `\n` in it.
    Text,
    /// An array with a string for each line.
    Lines,
}

/// A description of the tool in one format and one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Described {
    /// The format.
    pub form: Dialect,
    /// The shape of its texts.
    pub shape: Shape,
}

/// Every description of one format, by its name in the settings.
pub const DESCRIBED: [(&str, Described); 10] = [
    ("unified", Described { form: Dialect::Unified, shape: Shape::Text }),
    ("unified-lines", Described { form: Dialect::Unified, shape: Shape::Lines }),
    ("envelope", Described { form: Dialect::Envelope, shape: Shape::Text }),
    ("envelope-lines", Described { form: Dialect::Envelope, shape: Shape::Lines }),
    ("search-replace", Described { form: Dialect::SearchReplace, shape: Shape::Text }),
    ("search-replace-lines", Described { form: Dialect::SearchReplace, shape: Shape::Lines }),
    ("edits", Described { form: Dialect::Edits, shape: Shape::Text }),
    ("edits-lines", Described { form: Dialect::Edits, shape: Shape::Lines }),
    ("whole-file", Described { form: Dialect::WholeFile, shape: Shape::Text }),
    ("whole-file-lines", Described { form: Dialect::WholeFile, shape: Shape::Lines }),
];

impl Described {
    /// The description with this name in the settings.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        DESCRIBED.iter().find(|(name, _)| *name == word).map(|(_, described)| *described)
    }

    /// What the tool does, for the model.
    #[must_use]
    pub fn description(self) -> String {
        format!("{}, like {}", says(self.form), self.example())
    }

    /// The arguments of a small change, as shown in the description.
    #[must_use]
    pub fn example(self) -> Value {
        example(self.form, self.shape)
    }

    /// The JSON Schema of the described arguments, which are not all that are accepted.
    #[must_use]
    pub fn schema(self) -> Value {
        schema(self.form, self.shape)
    }
}

/// The smallest change that needs a line of context; the same in every format.
const PATH: &str = "area.py";
const SEARCH: [&str; 2] = ["def area(w, h):", "    return w + h"];
const REPLACE: [&str; 2] = ["def area(w, h):", "    return w * h"];

fn says(form: Dialect) -> &'static str {
    match form {
        Dialect::Unified => "Change, create or delete files by a unified diff",
        Dialect::Envelope => "Change files by a patch (Update File, Add File, Delete File)",
        Dialect::SearchReplace => {
            "Change files by blocks whose SEARCH lines are copied exactly from the file (none: a new file)"
        }
        Dialect::Edits => {
            "Change files by edits whose \"search\" is a few lines copied exactly from the file (empty: a new file)"
        }
        Dialect::WholeFile => "Write a file: \"content\" is the whole file as it is to be",
    }
}

fn example(form: Dialect, shape: Shape) -> Value {
    let [head, old] = SEARCH;
    let [_, new] = REPLACE;
    let lines: Vec<String> = match form {
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
            let (search, replace) = (shape.text(&SEARCH), shape.text(&REPLACE));
            return json!({"edits": [{"path": PATH, "search": search, "replace": replace}]});
        }
        Dialect::WholeFile => return json!({"path": PATH, "content": shape.text(&REPLACE)}),
    };
    json!({"patch": shape.text(&lines.iter().map(String::as_str).collect::<Vec<_>>())})
}

fn schema(form: Dialect, shape: Shape) -> Value {
    let object = |properties: Value| {
        let required: Vec<_> = properties.as_object().into_iter().flat_map(|p| p.keys().cloned()).collect();
        json!({"type": "object", "properties": properties, "required": required})
    };
    let (path, text) = (json!({"type": "string"}), shape.schema());
    match form {
        Dialect::Unified | Dialect::Envelope | Dialect::SearchReplace => object(json!({"patch": text})),
        Dialect::Edits => {
            let edit = object(json!({"path": path, "search": text, "replace": text}));
            object(json!({"edits": {"type": "array", "items": edit}}))
        }
        Dialect::WholeFile => object(json!({"path": path, "content": text})),
    }
}

impl Shape {
    fn text(self, lines: &[&str]) -> Value {
        match self {
            Self::Text => lines.iter().map(|line| format!("{line}\n")).collect::<String>().into(),
            Self::Lines => lines.into(),
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Lines => json!({"type": "array", "items": {"type": "string"}}),
        }
    }
}
