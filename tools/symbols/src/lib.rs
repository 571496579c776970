//! The symbols tool: shows where a name is defined and used.

mod aliases;

use std::collections::BTreeSet;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use schemars::JsonSchema;
use secrets::Secrets;
use serde::Deserialize;
use serde_json::{Value, json};
use symbols::{Code, Index};
use tool_api::{Effect, Outcome, Spec, ToolError, TypedTool};
use workspace::{CleanPath, Workspace};

/// Maximum number of definitions shown.
const DEFINITIONS: usize = 20;
/// Maximum number of uses shown.
const USES: usize = 60;
/// Maximum number of files read to find uses.
const FILES: usize = 100;
/// Maximum number of files with definitions or uses that are recorded, so that an export includes
/// them.
const PATHS: usize = 2_000;
/// Maximum length of a displayed line, in characters.
const WIDTH: usize = 160;
/// Maximum number of similar names shown.
const SIMILAR: usize = 8;

/// Finds the definitions and uses of names in a workspace.
#[derive(Debug, Clone)]
pub struct Symbols {
    code: Arc<Code>,
    workspace: Workspace,
    secrets: Secrets,
}

/// What to find.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    name: String,
    path: Option<String>,
}

impl Symbols {
    /// The name of the tool.
    pub const NAME: &'static str = "symbols";

    /// Creates the tool for a workspace and its index. It masks `secrets` in the lines it shows.
    #[must_use]
    pub fn new(code: Arc<Code>, workspace: Workspace, secrets: Secrets) -> Self {
        Self { code, workspace, secrets }
    }
}

#[async_trait::async_trait]
impl TypedTool for Symbols {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        let description = "Find where a name is defined and used.";
        Spec {
            aliases: aliases::ALIASES,
            titled_by: Some("name"),
            ..Spec::of::<Arguments>(Self::NAME, description, Effect::Read)
        }
    }

    fn judge_field(&self, name: &str, value: &Value) -> Result<(), String> {
        match (name, value.as_str()) {
            ("path", Some(path)) => self.workspace.resolve(path).map(|_| ()).map_err(|e| e.to_string()),
            ("name", Some(name)) => plain(name).map(|_| ()),
            _ => Ok(()),
        }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let name = plain(&arguments.name).map_err(ToolError::Model)?.to_owned();
        let under = match arguments.path.as_deref().filter(|p| !p.trim().is_empty()) {
            Some(path) => Some(self.workspace.resolve(path).map_err(|e| ToolError::Model(e.to_string()))?),
            None => None,
        };
        // If the call is interrupted or times out, dropping this stops its work.
        let stop = Stop(Arc::default());
        let (tool, flag) = (self.clone(), Arc::clone(&stop.0));
        let found = tokio::task::spawn_blocking(move || {
            tool.code.with(&flag, |index| tool.find(index, &name, under.as_ref(), &flag))
        });
        found.await.map_err(|e| ToolError::Run(format!("finding symbols failed: {e}")))
    }
}

struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the last part of a qualified name such as `Parser::new`, `os.path.join` or `Map#get`.
fn plain(name: &str) -> Result<&str, String> {
    let name = name.trim().trim_end_matches("()").trim_end_matches('!');
    let last = name.rsplit([':', '.', '#', '/', '\\', '>']).next().unwrap_or(name);
    if last.is_empty() { Err("name is empty; give the name of a function or type".into()) } else { Ok(last) }
}

impl Symbols {
    fn find(&self, index: &Index, name: &str, under: Option<&CleanPath>, stop: &AtomicBool) -> Outcome {
        let inside = |path: &str| {
            under.is_none_or(|under| {
                under.as_str() == "."
                    || path
                        .strip_prefix(under.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let mut found = index.find(name);
        found.definitions.retain(|d| inside(d.path));
        found.uses.retain(|(path, _)| inside(path));
        let (defined, files) = (found.definitions.len(), found.uses.len());
        let paths = found.definitions.iter().map(|d| d.path).chain(found.uses.iter().map(|(path, _)| *path));
        let paths: BTreeSet<&str> = paths.collect();
        let paths: Vec<_> = paths.into_iter().take(PATHS).collect();
        let facts = json!({"definitions": defined, "files": files, "paths": paths});
        if defined == 0 && files == 0 {
            let similar = index.similar(name, SIMILAR);
            let mut text = format!("{name}: no definitions or uses");
            if !similar.is_empty() {
                text += &format!("; similar names: {}", similar.join(", "));
            }
            return Outcome { facts, ..Outcome::ok(text) };
        }
        let mut text = format!("{name}: {}", plural(defined, "definition"));
        for definition in found.definitions.iter().take(DEFINITIONS) {
            if let Some(source) = self.read(definition.path) {
                text += &line(definition.path, definition.line, &source);
            }
        }
        if defined > DEFINITIONS {
            text += &format!("\n({} more definitions: narrow them with path)", defined - DEFINITIONS);
        }
        text += &format!("\nused in {}", plural(files, "file"));
        let mut shown = 0;
        let mut complete = found.uses.len() <= FILES;
        for (path, _) in found.uses.iter().take(FILES) {
            if shown >= USES || stop.load(Ordering::Relaxed) {
                complete = false;
                break;
            }
            let Some(source) = self.read(path) else { continue };
            for number in symbols::lines_with(path, &source, name, stop) {
                if shown >= USES {
                    complete = false;
                    break;
                }
                text += &line(path, number, &source);
                shown += 1;
            }
        }
        if !complete {
            text += "\n(and more: narrow them with path)";
        }
        Outcome { facts, ..Outcome::ok(text) }
    }

    /// Returns the text of a file, with secrets masked.
    fn read(&self, path: &str) -> Option<String> {
        let path = CleanPath::try_from(path.to_owned()).ok()?;
        let text = String::from_utf8(self.workspace.read(&path).ok()?.text().to_vec()).ok()?;
        Some(self.secrets.mask(&text).into_owned())
    }
}

fn plural(n: usize, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// Formats a line of a file for the result. `number` is 1-based.
fn line(path: &str, number: u32, source: &str) -> String {
    let found = source.lines().nth((number as usize).saturating_sub(1)).unwrap_or_default().trim_end();
    let text: String = found.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WIDTH).collect();
    // A path with a line break must not look like two lines of the result.
    let path: String = path.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let more = if text.chars().count() < found.chars().count() { "…" } else { "" };
    format!("\n{path}:{number}: {text}{more}")
}
