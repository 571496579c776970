//! The arguments, and the patches they mean.

use std::borrow::Cow;

use patch::{Action, Change, Dialect, FilePatch};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// What to change: one of `patch`, `edits`, `path` with `content`, `path` with `delete`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    patch: Option<Text>,
    edits: Option<Vec<Edit>>,
    path: Option<String>,
    content: Option<Text>,
    delete: Option<bool>,
    /// The line behind which `content` goes, 0 for the beginning. Taken, not shown: models that know other agents send it.
    #[schemars(extend("hidden" = true))]
    insert_line: Option<u64>,
}

/// search occurs once
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    path: String,
    search: Text,
    replace: Text,
    /// Every place is meant. Taken, not shown: models that know other agents send it.
    #[schemars(extend("hidden" = true))]
    replace_all: Option<bool>,
    /// So many places are meant, and all of them. Taken, not shown, as well.
    #[schemars(extend("hidden" = true))]
    expected_replacements: Option<usize>,
}

impl Edit {
    /// Path, search and replacement. One line may be a part of a line, as it may be as a string; lines without a replacement go whole.
    fn texts(self) -> (String, String, String) {
        let Self { path, search, replace, .. } = self;
        match (search, replace) {
            (Text::Lines(search), Text::Lines(replace)) if !search.is_empty() && !replace.is_empty() => {
                (path, search.join("\n"), replace.join("\n"))
            }
            (search, replace) => (path, search.joined(), replace.joined()),
        }
    }
}

/// A text, or its lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// As it is.
    Whole(String),
    /// One string for each line.
    Lines(Vec<String>),
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "array"], "items": {"type": "string"}})
    }
}

impl Text {
    fn strings(&mut self) -> &mut [String] {
        match self {
            Self::Whole(text) => std::slice::from_mut(text),
            Self::Lines(lines) => lines,
        }
    }

    pub(crate) fn joined(self) -> String {
        match self {
            Self::Whole(text) => text,
            Self::Lines(lines) => {
                lines.iter().map(|l| format!("{}\n", l.strip_suffix('\n').unwrap_or(l))).collect()
            }
        }
    }
}

impl Arguments {
    /// The line to insert behind, the path and the text, where that is what is asked for.
    pub(crate) fn insertion(&self) -> Option<Result<(u64, String, String), String>> {
        let line = self.insert_line?;
        let text = self.content.clone().map(Text::joined).filter(|text| !text.is_empty());
        let parts = self.path.clone().zip(text).filter(|_| self.patch.is_none() && self.edits.is_none());
        let why = "insert_line needs a path and content, the text to go behind that line, and nothing else";
        Some(parts.map(|(path, text)| (line, path, text)).ok_or_else(|| why.to_owned()))
    }

    /// A whole file.
    pub(crate) fn whole(path: String, content: String) -> Self {
        Self { path: Some(path), content: Some(Text::Whole(content)), ..Self::default() }
    }

    /// Every text that goes into files, or is looked for in them.
    pub(crate) fn strings(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { patch, edits, content, .. } = self;
        let edits = edits.iter_mut().flatten().flat_map(|e| [&mut e.search, &mut e.replace]);
        patch.iter_mut().chain(content).chain(edits).flat_map(Text::strings)
    }

    /// The patches, one for each file; `Err` is a sentence for the model.
    pub(crate) fn patches(self) -> Result<Vec<FilePatch>, String> {
        let Self { patch, edits, path, content, delete, insert_line: _ } = self;
        let edits = edits.filter(|e| !e.is_empty());
        let patch = patch.map(Text::joined).filter(|p| !p.trim().is_empty());
        let delete = delete.unwrap_or(false);
        // Small models fill in every argument, those they do not mean with nothing. An empty file is only meant when nothing else is.
        let meant = patch.is_some() || edits.is_some() || delete;
        let content = content.filter(|text| !matches!(text, Text::Lines(lines) if lines.is_empty()));
        let content = content.map(Text::joined).filter(|text| !(meant && text.is_empty()));
        let given = [patch.is_some(), edits.is_some(), content.is_some(), delete];
        if given.iter().filter(|g| **g).count() > 1 {
            return Err("give only one of patch, edits, content and delete".into());
        }
        let path = path.as_deref();
        match (patch, edits, content) {
            (Some(text), ..) => patch::parse_for(&text, path).map_err(|e| e.to_string()),
            (_, Some(edits), _) => {
                let places = |edit: &Edit| (edit.replace_all.unwrap_or(false), edit.expected_replacements);
                let edits: Vec<_> = edits.into_iter().map(|edit| (places(&edit), edit.texts())).collect();
                Ok(patch::changes(edits.iter().map(|((all, expected), (path, search, replace))| Change {
                    path,
                    search,
                    replace,
                    everywhere: *all,
                    expected: *expected,
                    below: None,
                })))
            }
            (.., Some(content)) => {
                let path = path.ok_or("content needs a path: the file that is to have it")?;
                Ok(vec![patch::whole(path, content.as_bytes())])
            }
            _ if delete => Ok(vec![FilePatch {
                dialect: Dialect::WholeFile,
                path: path.ok_or("delete needs a path: the file to remove")?.to_owned(),
                from: None,
                action: Action::Delete,
                hunks: Vec::new(),
                executable: None,
                own_endings: false,
            }]),
            _ => Err("give a patch, or edits, or a path with content or delete".into()),
        }
    }
}
