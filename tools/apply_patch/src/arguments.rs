//! Converts the tool's arguments into patches.

use std::borrow::Cow;
use std::sync::Arc;

use patch::{Action, FilePatch, ParseError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::Value;
use tool_api::Parsed;

/// What to change: one of `patch`, `edits`, `path` with `content`, `path` with `delete`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    patch: Option<Text>,
    edits: Option<Vec<Edit>>,
    path: Option<String>,
    content: Option<Text>,
    delete: Option<bool>,
    /// The line after which to insert `content`; 0 for the start. Not in the description, but
    /// accepted, because models that know other agents send it.
    #[schemars(extend("hidden" = true))]
    insert_line: Option<u64>,
    /// The parsed `patch`, if validating the call has already parsed it.
    #[serde(skip)]
    pub(crate) parsed: Option<Arc<ParsedPatch>>,
}

/// The parsed patch of a call. Validation keeps it so that execution does not parse the patch
/// again.
#[derive(Debug)]
pub(crate) struct ParsedPatch {
    text: String,
    pub(crate) patches: Result<Vec<FilePatch>, ParseError>,
}

impl ParsedPatch {
    /// Returns the parsed patch for some text. Parses the text only if `parsed` does not already
    /// contain the result.
    pub(crate) fn of(text: String, parsed: &mut Parsed) -> Arc<Self> {
        if let Some(known) = parsed.get::<Self>().filter(|known| known.text == text) {
            return known;
        }
        let patches = parse(&text, None);
        Self::keep(text, patches, parsed)
    }

    pub(crate) fn keep(
        text: String,
        patches: Result<Vec<FilePatch>, ParseError>,
        parsed: &mut Parsed,
    ) -> Arc<Self> {
        let patch = Arc::new(Self { text, patches });
        parsed.keep(Arc::clone(&patch));
        patch
    }

    /// Returns the result of parsing `text`, or `None` if `self` is the result of parsing some
    /// other text. If `path` is given, also returns `None` instead of an error, because the text
    /// may parse with that path.
    fn take(self: Arc<Self>, text: &str, path: Option<&str>) -> Option<Result<Vec<FilePatch>, ParseError>> {
        let fits = self.text == text && (path.is_none() || self.patches.is_ok());
        fits.then(|| Arc::try_unwrap(self).map_or_else(|shared| shared.patches.clone(), |own| own.patches))
    }
}

/// search occurs once
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    path: String,
    search: Text,
    replace: Text,
    /// Replaces every occurrence. Not in the description, but accepted, because models that know
    /// other agents send it.
    #[schemars(extend("hidden" = true))]
    replace_all: Option<bool>,
    /// The expected number of occurrences. Not in the description, but accepted.
    #[schemars(extend("hidden" = true))]
    expected_replacements: Option<usize>,
}

/// Parses the text of a patch. Apart from [`crate::answer::read`], which parses a patch to find it,
/// no other function in this tool parses a complete patch.
fn parse(text: &str, path: Option<&str>) -> Result<Vec<FilePatch>, ParseError> {
    #[cfg(test)]
    tests::PARSES.set(tests::PARSES.get() + 1);
    patch::parse_for(text, path)
}

impl Edit {
    /// Returns the path, the search text and the replacement. If both are given as arrays of lines,
    /// neither gets a final newline, because each may end in the middle of a line, just like a
    /// string. If one array is empty, the other one contains whole lines and gets a final newline.
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

/// Text, or an array of its lines.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// The text.
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
    /// Returns the line after which the call inserts text, along with the path and the text itself;
    /// `None` if the call does not insert text.
    pub(crate) fn insertion(&self) -> Option<Result<(u64, String, String), String>> {
        let line = self.insert_line?;
        let text = self.content.clone().map(Text::joined).filter(|text| !text.is_empty());
        let parts = self.path.clone().zip(text).filter(|_| self.patch.is_none() && self.edits.is_none());
        let why = "insert_line needs only a path and content, the text to insert after that line";
        Some(parts.map(|(path, text)| (line, path, text)).ok_or_else(|| why.to_owned()))
    }

    /// Returns arguments that write a whole file.
    pub(crate) fn whole(path: String, content: String) -> Self {
        Self { path: Some(path), content: Some(Text::Whole(content)), ..Self::default() }
    }

    /// Parses the arguments of a call.
    pub(crate) fn read(arguments: Value) -> Result<Self, String> {
        serde_json::from_value(arguments).map_err(|e| format!("invalid arguments for apply_patch: {e}"))
    }

    /// Returns the patches, one per file. The error is written for the model.
    pub(crate) fn patches(self) -> Result<Vec<FilePatch>, String> {
        let Self { patch, edits, path, content, delete, parsed, insert_line: _ } = self;
        let edits = edits.filter(|e| !e.is_empty());
        let patch = patch.map(Text::joined).filter(|p| !p.trim().is_empty());
        let delete = delete.unwrap_or(false);
        // Small models often fill in every argument and leave unused ones empty. Therefore, ignore
        // an empty `content` if the call contains another change.
        let meant = patch.is_some() || edits.is_some() || delete;
        let content = content.filter(|text| !matches!(text, Text::Lines(lines) if lines.is_empty()));
        let content = content.map(Text::joined).filter(|text| !(meant && text.is_empty()));
        let given = [patch.is_some(), edits.is_some(), content.is_some(), delete];
        if given.iter().filter(|g| **g).count() > 1 {
            return Err("give only one of patch, edits, content and delete".into());
        }
        let path = path.as_deref();
        match (patch, edits, content) {
            (Some(text), ..) => parsed
                .and_then(|parsed| parsed.take(&text, path))
                .unwrap_or_else(|| parse(&text, path))
                .map_err(|e| e.to_string()),
            (_, Some(edits), _) => {
                let places = |edit: &Edit| (edit.replace_all.unwrap_or(false), edit.expected_replacements);
                let edits: Vec<_> = edits.into_iter().map(|edit| (places(&edit), edit.texts())).collect();
                let edits = edits.iter().map(|((all, expected), (path, search, replace))| patch::Edit {
                    path,
                    search,
                    replace,
                    everywhere: *all,
                    expected: *expected,
                    below: None,
                });
                Ok(patch::edits_with_options(edits))
            }
            (.., Some(content)) => {
                let path = path.ok_or("content needs a path: the file to write")?;
                Ok(vec![patch::whole_file(path, content.as_bytes())])
            }
            _ if delete => {
                let path = path.ok_or("delete needs a path: the file to remove")?;
                Ok(vec![FilePatch { action: Action::Delete, ..patch::whole_file(path, b"") }])
            }
            _ => Err("give a patch, or edits, or a path with content or delete".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use secrets::Secrets;
    use serde_json::{Value, json};
    use tool_api::Registry;
    use workspace::Workspace;

    use crate::ApplyPatch;

    thread_local! {
        /// How many times this thread has parsed a patch.
        pub(super) static PARSES: Cell<usize> = const { Cell::new(0) };
    }

    // The key is split in two so that secret scanners ignore this file.
    const FILE: &str = concat!("one\nkey = 'ghp_", "4pUqkVZtmD8yHs2bWnR6cXjE0aGfL1oT3iKv'\ntwo\n");

    /// Counts how many times one call parses its patch, both while streaming and afterward.
    async fn parses(patch: Value, secrets: Secrets, whole_answer: bool) -> usize {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), FILE).unwrap();
        let tool = ApplyPatch::new(Workspace::open(folder.path()).unwrap(), secrets);
        let registry = Registry::of([tool.into_tool()]).unwrap();
        PARSES.set(0);
        let accepted = if whole_answer {
            let (incoming, arguments) = registry.whole_answer(patch.as_str().unwrap()).unwrap().unwrap();
            incoming.complete(&arguments).unwrap()
        } else {
            let mut incoming = registry.open("apply_patch").unwrap();
            if let Some(text) = patch.as_str() {
                incoming.text("patch", text, true).unwrap();
            }
            incoming.field("patch", &patch).unwrap();
            incoming.complete(&json!({ "patch": patch })).unwrap()
        };
        let done = registry.call_parsed("apply_patch", accepted.arguments, accepted.parsed).await.unwrap();
        assert_eq!(done.changed, ["a.txt"]);
        PARSES.get()
    }

    #[tokio::test]
    async fn a_call_parses_its_patch_once() {
        let diff = "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+1\n";
        let blocks = "a.txt\n<<<<<<< SEARCH\none\n=======\n1\n>>>>>>> REPLACE\n";
        for patch in [diff, blocks] {
            assert_eq!(parses(json!(patch), Secrets::disabled(), false).await, 1);
            let lines: Vec<&str> = patch.lines().collect();
            assert_eq!(parses(json!(lines), Secrets::disabled(), false).await, 1);
            // `patch::patch_in_answer` has already parsed the answer to recognize the patch.
            assert_eq!(parses(json!(patch), Secrets::disabled(), true).await, 0);
        }
        let secrets = Secrets::new("session", Vec::new());
        let shown = secrets.mask(FILE).into_owned();
        let line = shown.lines().nth(1).unwrap();
        assert!(line.contains("[secret-"));
        let masked = format!("--- a/a.txt\n+++ b/a.txt\n@@ -2 +2 @@\n-{line}\n+{line} # kept\n");
        assert_eq!(parses(json!(masked), secrets, false).await, 1);
    }
}
