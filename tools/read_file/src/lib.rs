//! The read_file tool: shows a text file as numbered lines, in pieces that fit into a prompt.

mod aliases;

use schemars::JsonSchema;
use secrets::Secrets;
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::{Effect, Outcome, Spec, ToolError, TypedTool};
use workspace::Workspace;

/// Maximum number of lines shown at once.
const LINES: usize = 500;
/// Maximum number of bytes shown at once: about 6,000 tokens.
const BYTES: usize = 24_000;
/// Maximum length of a displayed line, in characters.
const WIDTH: usize = 1000;

/// The read_file tool for a workspace.
#[derive(Debug, Clone)]
pub struct ReadFile(Workspace, Secrets);

/// What to read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Arguments {
    path: String,
    start_line: Option<i64>,
    end_line: Option<i64>,
}

impl ReadFile {
    /// Creates the tool for a workspace. The tool masks `secrets` before it truncates anything.
    #[must_use]
    pub fn new(workspace: Workspace, secrets: Secrets) -> Self {
        Self(workspace, secrets)
    }
}

#[async_trait::async_trait]
impl TypedTool for ReadFile {
    type Arguments = Arguments;

    fn spec(&self) -> Spec {
        let description = "Read a file, or a range of its lines, as NUMBER|TEXT.";
        Spec {
            aliases: aliases::ALIASES,
            titled_by: Some("path"),
            ..Spec::of::<Arguments>("read_file", description, Effect::Read)
        }
    }

    fn judge_field(&self, name: &str, value: &Value) -> Result<(), String> {
        match (name, value.as_str()) {
            ("path", Some(path)) => self.0.resolve(path).map(|_| ()).map_err(|e| e.to_string()),
            _ => Ok(()),
        }
    }

    async fn call(&self, arguments: Arguments) -> Result<Outcome, ToolError> {
        let path = self.0.resolve(&arguments.path).map_err(|e| ToolError::Model(e.to_string()))?;
        let file = self.0.read(&path).map_err(|e| ToolError::Model(e.to_string()))?;
        self.0.saw(&path, file.bytes());
        let shown = self.1.mask_bytes(file.text());
        let text = shown.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&shown);
        let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
        let lines =
            if text.ends_with(b"\n") || text.is_empty() { &lines[..lines.len() - 1] } else { &lines[..] };
        let total = lines.len();
        if total == 0 {
            return Ok(Outcome::ok(format!("{path} is empty")));
        }
        let mut notes = String::new();
        let (first, last) = range(arguments.start_line, arguments.end_line, total, &mut notes);
        let (mut body, mut shown, mut cut) = (String::new(), first - 1, false);
        for (i, line) in lines[first - 1..last].iter().enumerate() {
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
            let mut text: String = line.chars().take(WIDTH).collect();
            if text.len() < line.len() {
                text.push('…');
                cut = true;
            }
            if i > 0 && (i >= LINES || body.len() + text.len() > BYTES) {
                break;
            }
            body += &format!("\n{}|{text}", first + i);
            shown = first + i;
        }
        if shown < last {
            notes += &format!("; continue with start_line {}", shown + 1);
        }
        if cut {
            notes += &format!("; lines ending in … are cut at {WIDTH} characters");
        }
        if let Some(note) = file.note() {
            notes += &format!("; {note}");
        }
        let mut outcome = Outcome::ok(format!("{path} lines {first}-{shown} of {total}{notes}{body}"));
        outcome.facts = json!({"path": path, "first": first, "last": shown, "lines": total});
        Ok(outcome)
    }
}

/// Clamps the requested range of 1-based lines to the lines of the file.
fn range(start: Option<i64>, end: Option<i64>, total: usize, notes: &mut String) -> (usize, usize) {
    let inside = |line: i64| usize::try_from(line).unwrap_or(1).clamp(1, total);
    let first = start.map_or(1, inside);
    let last = end.filter(|e| *e > 0).map_or(total, inside);
    if start.is_some_and(|s| s > total as i64) {
        *notes += &format!("; there is no line {}", start.unwrap_or_default());
        return (total.saturating_sub(20).max(1), total);
    }
    if last < first {
        *notes += "; end_line < start_line";
        return (last, first);
    }
    (first, last)
}
