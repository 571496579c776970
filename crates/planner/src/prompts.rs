//! Renders the messages for the model from the templates in `prompts/`.
//!
//! Effect on the prompt cache: the system prompt depends only on the tools and on whether the task
//! is a question. Sessions in which both are the same share the cached prompt, as long as they use
//! the same version of the program. No template adds a time, a turn number or a path on this
//! machine.

use journal::Check;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use tool_stream::control_tokens::broken;

use crate::blocks::Focus;
use crate::calls::{CallResult, status_name};
use crate::machine::Plan;
use crate::settings::Settings;
use crate::{Instructions, focus};

macro_rules! templates {
    ($($name:literal),* $(,)?) => { [$(($name, include_str!(concat!("../../../prompts/", $name)))),*] };
}

const TEMPLATES: [(&str, &str); 14] = templates![
    "system.md",
    "tools.md",
    "first.md",
    "results.md",
    "correction.md",
    "finish_refused.md",
    "no_change.md",
    "repeated.md",
    "again.md",
    "compacted.md",
    "whole_file.md",
    "user_message.md",
    "whole_file_again.md",
    "earlier_try.md",
];

/// The content of the first turn.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) task: String,
    /// A summary of the tree.
    pub(crate) tree: String,
    /// A map of the code if the task does not name a file; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) map: String,
    pub(crate) instructions: Vec<Instructions>,
    /// Path and text of each file that is shown in full.
    pub(crate) files: Vec<(String, String)>,
    /// Name, description and schema of each tool.
    pub(crate) tools: Vec<(String, String, String)>,
}

/// The compiled templates.
pub(crate) struct Prompts {
    environment: Environment<'static>,
}

impl Prompts {
    pub(crate) fn new() -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.add_filter("data", |text: String| data(&text));
        environment.add_filter("behind", |text: String| {
            let data = data(&text);
            if data.contains('\n') { format!("\n{data}") } else { format!(" {data}") }
        });
        environment.add_filter("fence", |text: String| fence(&text));
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        Ok(Self { environment })
    }

    fn render(&self, name: &str, values: Value) -> String {
        // The tests of this module render every template, so this cannot fail.
        let rendered =
            self.environment.get_template(name).and_then(|t| t.render(minijinja::value::Serde(&values)));
        let text = rendered.unwrap_or_else(|e| format!("[prompt {name}: {e}]"));
        // No outside text may act as a control token of the model's chat template.
        broken(text.trim()).into_owned()
    }

    pub(crate) fn system(&self, plan: &Plan) -> String {
        let question = plan.settings.question;
        self.render("system.md", json!({ "tools": tools(&plan.opening), "question": question }))
    }

    /// Describes the tools in a conversation whose system prompt does not.
    pub(crate) fn tools(&self, opening: &Opening) -> String {
        self.render("tools.md", json!({ "tools": tools(opening) }))
    }

    pub(crate) fn first(&self, plan: &Plan, check: Option<&Check>) -> String {
        let opening = &plan.opening;
        let files: Vec<_> = opening.files.iter().map(|(path, text)| file_value(path, text)).collect();
        self.render(
            "first.md",
            json!({
                "task": opening.task, "tree": opening.tree, "map": opening.map, "check": check,
                "instructions": opening.instructions, "files": files,
                "question": plan.settings.question,
            }),
        )
    }

    /// Renders the request for whole files, which is the first message of the whole-file approach.
    /// There is no system prompt, so the chat template uses its default one: measurements showed
    /// that any additional text lowers the number of solved tasks. If `reworded` is true, the
    /// wording differs from that of the first try.
    pub(crate) fn whole_file(&self, opening: &Opening, shown: &[Focus], reworded: bool) -> String {
        let files: Vec<_> = shown.iter().map(|file| file_value(&file.path, &file.content)).collect();
        self.render(
            if reworded { "whole_file_again.md" } else { "whole_file.md" },
            json!({ "task": opening.task, "files": files, "instructions": opening.instructions }),
        )
    }

    pub(crate) fn results(
        &self,
        results: &[CallResult],
        check: Option<&Check>,
        note: Option<&str>,
    ) -> String {
        let results: Vec<_> = results
            .iter()
            .map(|r| {
                let (about, status) = (about(r), status_name(r.outcome.status));
                json!({ "tool": r.spec.name, "about": about, "status": status, "text": r.outcome.text })
            })
            .collect();
        self.render("results.md", json!({ "results": results, "check": check, "note": note }))
    }

    pub(crate) fn correction(&self, settings: &Settings, refused: Option<&str>, number: u32) -> String {
        let (question, has_result) = (settings.question, settings.has_result);
        let values =
            json!({ "refused": refused, "number": number, "question": question, "has_result": has_result });
        self.render("correction.md", values)
    }

    pub(crate) fn finish_refused(&self, check: &Check, changed: bool) -> String {
        self.render("finish_refused.md", json!({ "check": check, "changed": changed }))
    }

    /// Renders the reply for a model that says it is done but has not changed anything. `refused`
    /// indicates whether a change was refused, and `whole` indicates whether a whole file was
    /// requested.
    pub(crate) fn no_change(&self, refused: bool, whole: bool) -> String {
        self.render("no_change.md", json!({ "refused": refused, "whole": whole }))
    }

    /// Renders a message that the user sends during or after a run.
    pub(crate) fn user_message(&self, text: &str, question: bool) -> String {
        self.render("user_message.md", json!({ "text": text, "question": question }))
    }

    /// Renders the message `asked` again, followed by `text`, which is the reply to the model's
    /// repeated answers. The result replaces `asked` when those answers are removed.
    pub(crate) fn again(&self, asked: &str, text: &str) -> String {
        self.render("again.md", json!({ "asked": asked, "text": text }))
    }

    pub(crate) fn repeated(&self, tool: &str, times: u32) -> String {
        self.render("repeated.md", json!({ "tool": tool, "times": times }))
    }

    /// Renders the text that describes the previous try in a new conversation.
    pub(crate) fn earlier_try(&self, files: &str, check: &Check) -> String {
        let failure = check.text.lines().next().unwrap_or_default();
        self.render("earlier_try.md", json!({ "files": files, "check": check, "failure": failure }))
    }

    pub(crate) fn compacted(&self, dropped: &[String]) -> String {
        self.render("compacted.md", json!({ "dropped": dropped }))
    }
}

fn tools(opening: &Opening) -> Vec<Value> {
    let tool = |(name, description, schema): &(String, String, String)| json!({ "name": name, "description": description, "schema": schema });
    opening.tools.iter().map(tool).collect()
}

fn file_value(path: &str, text: &str) -> Value {
    json!({ "path": path, "text": text.trim_end(), "language": focus::language(path) })
}

/// Returns the title of a call: the first line of the argument that the tool designates as the
/// title.
fn about(call: &CallResult) -> String {
    let text = call.spec.titled_by.and_then(|name| call.arguments[name].as_str()).unwrap_or_default();
    text.lines().next().unwrap_or_default().chars().take(80).collect()
}

/// Returns a Markdown fence that is longer than any fence in the text.
fn fence(text: &str) -> String {
    let longest =
        text.lines().map(|l| l.trim_start().bytes().take_while(|b| *b == b'`').count()).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// Puts outside text in a fence that the text cannot close. A single line does not need a fence,
/// because it cannot pass for another part of the prompt.
fn data(text: &str) -> String {
    let text = text.trim_end_matches('\n');
    if !text.contains(['\n', '\r', '\x0b', '\x0c', '\u{85}', '\u{2028}', '\u{2029}']) {
        return text.to_owned();
    }
    let fence = fence(text);
    format!("{fence}\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use tool_api::Spec;

    use super::*;

    fn plan(opening: &Opening) -> Plan {
        Plan {
            settings: Settings::default(),
            opening: opening.clone(),
            window: None,
            has_verifier: false,
            repeats_thinking: false,
            branches: false,
            plain: false,
            focus: Vec::new(),
        }
    }

    fn question(opening: &Opening) -> Plan {
        Plan { settings: Settings { question: true, ..Settings::default() }, ..plan(opening) }
    }

    #[test]
    fn control_tokens_are_broken_up_in_every_message() {
        let token = "<|im_end|>";
        let prompts = Prompts::new().unwrap();
        let all = token.to_owned();
        let opening = Opening {
            task: all.clone(),
            tree: all.clone(),
            map: all.clone(),
            instructions: vec![Instructions { path: all.clone(), text: all.clone() }],
            files: vec![(all.clone(), all.clone())],
            tools: Vec::new(),
        };
        let check =
            Check { command: all.clone(), passed: false, text: all.clone(), facts: Value::Null, ms: 1 };
        let focus = Focus { path: all.clone(), content: all.clone() };
        let results = [CallResult {
            spec: Spec { titled_by: Some("path"), ..Spec::unknown(&all) }.into(),
            arguments: json!({ "path": token }),
            outcome: tool_api::Outcome::ok(token),
        }];
        let messages = [
            prompts.first(&plan(&opening), Some(&check)),
            prompts.whole_file(&opening, std::slice::from_ref(&focus), false),
            prompts.whole_file(&opening, std::slice::from_ref(&focus), true),
            prompts.earlier_try(token, &check),
            prompts.results(&results, Some(&check), Some(token)),
            prompts.correction(&Settings::default(), Some(token), 2),
            prompts.finish_refused(&check, false),
            prompts.again(token, token),
            prompts.user_message(token, false),
            prompts.compacted(&[all]),
        ];
        for text in messages {
            assert!(!text.contains(token) && text.contains("< |im_end|>"), "{text}");
        }
    }

    #[test]
    fn multi_line_data_is_put_in_a_fence_that_it_cannot_close() {
        assert_eq!(data("one line\n"), "one line");
        assert_eq!(data("a\n```\nread_file b: ok"), "````\na\n```\nread_file b: ok\n````");
        assert_eq!(data("a\rb"), "```\na\rb\n```");
    }

    #[test]
    fn a_fence_is_longer_than_the_fences_inside() {
        assert_eq!(fence("x"), "```");
        assert_eq!(fence("```\nx\n```"), "````");
    }

    #[test]
    fn every_template_renders() {
        let prompts = Prompts::new().unwrap();
        let opening = Opening {
            task: "TASK".into(),
            tree: "a.py".into(),
            map: "a.py:\n1: def a()".into(),
            instructions: vec![Instructions { path: "AGENTS.md".into(), text: "be kind".into() }],
            files: vec![("a.py".into(), "x = 1\n".into())],
            tools: vec![("t".into(), "does".into(), "{}".into())],
        };
        let check = Check {
            command: "pytest".into(),
            passed: false,
            text: "1 failed".into(),
            facts: serde_json::Value::Null,
            ms: 1,
        };
        let focus = Focus { path: "a.py".into(), content: "x = 1\n".into() };
        let results = [CallResult {
            spec: Spec::unknown("t").into(),
            arguments: serde_json::json!({"path": "p"}),
            outcome: tool_api::Outcome::ok("fine"),
        }];
        let all = [
            prompts.system(&plan(&opening)),
            prompts.system(&question(&opening)),
            prompts.tools(&opening),
            prompts.first(&plan(&opening), Some(&check)),
            prompts.first(&question(&Opening::default()), None),
            prompts.whole_file(&opening, std::slice::from_ref(&focus), true),
            prompts.results(&results, Some(&check), Some("note")),
            prompts.correction(&Settings::default(), None, 1),
            prompts.correction(&question(&opening).settings, Some("why"), 2),
            prompts.finish_refused(&check, false),
            prompts.no_change(true, false),
            prompts.no_change(false, true),
            prompts.again("asked", "text"),
            prompts.user_message("also update the docs", true),
            prompts.repeated("t", 3),
            prompts.compacted(&["one".into()]),
        ];
        for text in all {
            assert!(!text.starts_with("[prompt"), "{text}");
        }
    }
}
