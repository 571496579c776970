//! The list_files tool: lists files or, if there are too many, folders with the number of files in
//! each.

mod aliases;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::{Effect, Outcome, Spec, ToolError, TypedTool};
use workspace::{CleanPath, Glob, WalkFilter, Workspace};

/// Maximum number of lines shown.
const LINES: usize = 200;
/// Maximum number of files considered.
const MAX_FILES: usize = 50_000;

/// The list_files tool for a workspace.
#[derive(Debug, Clone)]
pub struct ListFiles(Workspace);

/// What to list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    path: Option<String>,
    glob: Option<String>,
}

impl ListFiles {
    /// Creates the tool for a workspace.
    #[must_use]
    pub fn new(workspace: Workspace) -> Self {
        Self(workspace)
    }
}

#[async_trait::async_trait]
impl TypedTool for ListFiles {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        let description = "List files, below path and matching glob.";
        Spec {
            aliases: aliases::ALIASES,
            titled_by: Some("path"),
            ..Spec::of::<Arguments>("list_files", description, Effect::Read)
        }
    }

    fn judge_field(&self, name: &str, value: &Value) -> Result<(), String> {
        match (name, value.as_str()) {
            ("path", Some(path)) => self.0.resolve(path).map(|_| ()).map_err(|e| e.to_string()),
            ("glob", Some(glob)) => Glob::new(glob).map(|_| ()),
            _ => Ok(()),
        }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let under = match arguments.path.as_deref().filter(|p| !p.trim().is_empty()) {
            Some(path) => Some(self.0.resolve(path).map_err(|e| ToolError::Model(e.to_string()))?),
            None => None,
        };
        let glob = arguments.glob.as_deref().map(Glob::new).transpose().map_err(ToolError::Model)?;
        let filter = WalkFilter { under: under.clone(), limit: MAX_FILES, ..WalkFilter::default() };
        let listing = self.0.walk(&filter);
        let fits = |path: &CleanPath| glob.as_ref().is_none_or(|g| g.matches(path));
        let files: Vec<&str> =
            listing.entries.iter().filter(|e| fits(&e.path)).map(|e| e.path.as_str()).collect();
        let start = under.as_ref().filter(|p| p.as_str() != ".").map_or(0, |p| p.as_str().split('/').count());
        let mut text = match files.len() {
            0 => "no files".to_owned(),
            n => format!("{n}{} files", if listing.cut { "+" } else { "" }),
        };
        if listing.entries.iter().any(|e| e.path.is_escaped()) {
            text += "; \\xHH in a name is a byte that is not UTF-8; use it in paths as shown";
        }
        for (line, count) in fold(&files, start) {
            text += "\n";
            // A name with a newline must not look like two files.
            text.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
            if let Some(count) = count {
                text += &format!("/ ({count} files)");
            }
        }
        let mut outcome = Outcome::ok(text);
        outcome.facts = json!({"files": files.len(), "more": listing.cut});
        Ok(outcome)
    }
}

/// Returns the paths of the files. If there are too many, returns folders instead, with the number
/// of files in each, descending as deep as the line limit allows.
fn fold(files: &[&str], start: usize) -> Vec<(String, Option<usize>)> {
    if files.len() <= LINES {
        return files.iter().map(|f| ((*f).to_owned(), None)).collect();
    }
    let at = |depth: usize| {
        let mut out: BTreeMap<String, Option<usize>> = BTreeMap::new();
        for file in files {
            let parts: Vec<&str> = file.split('/').collect();
            if parts.len() <= depth {
                out.insert((*file).to_owned(), None);
            } else {
                *out.entry(parts[..depth].join("/")).or_insert(Some(0)).get_or_insert(0) += 1;
            }
        }
        out
    };
    let mut best = at(start + 1);
    for depth in start + 2..start + 10 {
        let deeper = at(depth);
        if deeper.len() > LINES {
            break;
        }
        best = deeper;
    }
    let more = best.len().saturating_sub(LINES);
    let mut out: Vec<_> = best.into_iter().take(LINES).collect();
    if more > 0 {
        out.push((format!("… {more} more; narrow it with path or glob"), None));
    }
    out
}
