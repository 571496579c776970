//! The search tool: searches the files that git does not ignore, using ripgrep's libraries.

mod aliases;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, sinks::Lossy};
use schemars::JsonSchema;
use secrets::Secrets;
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::{Effect, Outcome, Spec, ToolError, TypedTool};
use workspace::{CleanPath, Glob, READ_LIMIT, WalkFilter, Workspace};

/// Maximum number of matches shown.
const MATCHES: usize = 100;
/// Maximum number of matches shown per file.
const PER_FILE: usize = 20;
/// Maximum length of a displayed line, in characters.
const WIDTH: usize = 200;
/// Maximum number of files searched.
const FILES: usize = 50_000;
/// Maximum number of bytes searched.
const BYTES: u64 = 1 << 30;

/// The search tool for a workspace.
#[derive(Debug, Clone)]
pub struct Search(Workspace, Secrets);

/// What to search.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    /// Regex
    pattern: String,
    path: Option<String>,
    glob: Option<String>,
}

impl Search {
    /// The name of the tool.
    pub const NAME: &'static str = "search";

    /// Creates the tool for a workspace. It searches files with `secrets` masked, so that a pattern
    /// cannot be used to probe for a secret.
    #[must_use]
    pub fn new(workspace: Workspace, secrets: Secrets) -> Self {
        Self(workspace, secrets)
    }

    /// Returns the files where a call with these arguments would find a match, within the limits of
    /// a search. Returns an empty list if the call would be refused.
    #[must_use]
    pub fn matching(&self, arguments: &Value) -> Vec<CleanPath> {
        let Ok(arguments) = serde_json::from_value::<Arguments>(arguments.clone()) else { return Vec::new() };
        self.job(&arguments).map(|(job, _)| job.run().found).unwrap_or_default()
    }

    fn job(&self, arguments: &Arguments) -> Result<(Job, &'static str), String> {
        let under = match arguments.path.as_deref().filter(|p| !p.trim().is_empty()) {
            Some(path) => Some(self.0.resolve(path).map_err(|e| e.to_string())?),
            None => None,
        };
        let glob = arguments.glob.as_deref().map(Glob::new).transpose()?;
        let (matcher, note) = matcher(&arguments.pattern)?;
        let (workspace, secrets) = (self.0.clone(), self.1.clone());
        let masked = secrets::first_placeholder(&arguments.pattern).is_some();
        Ok((Job { workspace, secrets, masked, under, glob, matcher, stop: Arc::default() }, note))
    }
}

#[async_trait::async_trait]
impl TypedTool for Search {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        Spec {
            aliases: aliases::ALIASES,
            titled_by: Some("pattern"),
            ..Spec::of::<Arguments>(Self::NAME, "Find lines in files.", Effect::Read)
        }
    }

    fn judge_field(&self, name: &str, value: &Value) -> Result<(), String> {
        match (name, value.as_str()) {
            ("pattern", Some(pattern)) => matcher(pattern).map(|_| ()),
            ("path", Some(path)) => self.0.resolve(path).map(|_| ()).map_err(|e| e.to_string()),
            ("glob", Some(glob)) => Glob::new(glob).map(|_| ()),
            _ => Ok(()),
        }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let (job, note) = self.job(&arguments).map_err(ToolError::Model)?;
        // If the call is dropped because it is interrupted or times out, this stops its search.
        let _stop = Stop(Arc::clone(&job.stop));
        let found = tokio::task::spawn_blocking(move || job.run()).await;
        let found = found.map_err(|e| ToolError::Run(format!("the search failed: {e}")))?;
        Ok(found.outcome(note))
    }
}

struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Compiles a pattern. Case matters if the pattern contains uppercase letters. An invalid regex is
/// searched for literally.
fn matcher(pattern: &str) -> Result<(RegexMatcher, &'static str), String> {
    if pattern.is_empty() {
        return Err("pattern is empty; give the text to find".into());
    }
    let build = |literal: bool| {
        let mut builder = RegexMatcherBuilder::new();
        builder.case_smart(true).fixed_strings(literal).line_terminator(Some(b'\n')).build(pattern)
    };
    if pattern.contains('\n') {
        return Err("pattern has a newline; search matches single lines; give the most specific one".into());
    }
    match build(false) {
        Ok(matcher) => Ok((matcher, "")),
        Err(_) => match build(true) {
            Ok(matcher) => Ok((matcher, " (not a valid regex, so searched literally)")),
            Err(e) => Err(format!("cannot search for the pattern: {e}")),
        },
    }
}

struct Job {
    workspace: Workspace,
    secrets: Secrets,
    /// Whether the pattern contains a placeholder, which can match only in masked text.
    masked: bool,
    under: Option<CleanPath>,
    glob: Option<Glob>,
    matcher: RegexMatcher,
    stop: Arc<AtomicBool>,
}

#[derive(Default)]
struct Matches {
    text: String,
    shown: usize,
    total: usize,
    found: Vec<CleanPath>,
    cut: bool,
}

impl Job {
    fn run(self) -> Matches {
        let filter = WalkFilter { under: self.under, limit: FILES, ..WalkFilter::default() };
        let listing = self.workspace.walk(&filter);
        let mut found = Matches { cut: listing.cut, ..Matches::default() };
        let mut left = BYTES;
        let mut searcher = SearcherBuilder::new().binary_detection(BinaryDetection::quit(0)).build();
        for entry in listing.entries.iter().filter(|e| self.glob.as_ref().is_none_or(|g| g.matches(&e.path)))
        {
            // Skip a file that is too large to read.
            if entry.size > READ_LIMIT {
                continue;
            }
            if self.stop.load(Ordering::Relaxed) || left < entry.size || found.total >= 100 * MATCHES {
                found.cut = true;
                break;
            }
            left -= entry.size;
            let Ok(file) = self.workspace.read(&entry.path) else { continue };
            // Masking costs more than searching, so files without a match are not masked.
            if self.masked || matches(&mut searcher, &self.matcher, file.text()) {
                let shown = self.secrets.mask_bytes(file.text());
                found.search(&mut searcher, &self.matcher, &entry.path, &shown);
            }
        }
        found
    }
}

fn matches(searcher: &mut Searcher, matcher: &RegexMatcher, bytes: &[u8]) -> bool {
    let mut any = false;
    let sink = Lossy(|_, _| {
        any = true;
        Ok(false)
    });
    // Searching a slice cannot fail.
    let _ = searcher.search_slice(matcher, bytes, sink);
    any
}

impl Matches {
    fn search(&mut self, searcher: &mut Searcher, matcher: &RegexMatcher, path: &CleanPath, bytes: &[u8]) {
        let mut here = 0;
        let sink = Lossy(|number, line| {
            here += 1;
            if here <= PER_FILE && self.shown < MATCHES {
                let line = line.trim_end_matches(['\n', '\r']);
                let text: String = line.chars().take(WIDTH).collect();
                let more = if text.len() < line.len() { "…" } else { "" };
                self.text += &format!("\n{path}:{number}: {text}{more}");
                self.shown += 1;
            }
            Ok(true)
        });
        // Searching a slice cannot fail.
        let _ = searcher.search_slice(matcher, bytes, sink);
        self.total += here;
        if here > 0 {
            self.found.push(path.clone());
        }
    }

    fn outcome(self, note: &str) -> Outcome {
        let Self { text, shown, total, found, cut } = self;
        let files = found.len();
        let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let mut head = match total {
            0 => "no matches".to_owned(),
            _ => format!("{} in {}", plural(total, "match", "matches"), plural(files, "file", "files")),
        };
        if cut {
            head += "; not all files were searched: narrow it with path or glob";
        } else if shown < total {
            head += &format!(", {shown} shown: narrow it with path or glob");
        }
        let mut outcome = Outcome::ok(format!("{head}{note}{text}"));
        outcome.facts = json!({"matches": total, "files": files, "shown": shown});
        outcome
    }
}
