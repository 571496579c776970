//! How a prompt ended: the protocol's stop reason, and a human-readable summary.

use agent_client_protocol::v1::schema::StopReason;
use journal::{Budget, Ending, Report};
use preview::{figures, sanitize};
use serde_json::Value;

use crate::bounded;
use crate::fence::fenced;

/// The maximum number of files that a summary lists.
const MAX_FILES: usize = 20;

/// Returns the stop reason for a prompt, or `None` if the prompt failed because the model or its
/// server is unavailable.
#[must_use]
pub fn stop_reason(ending: &Ending) -> Option<StopReason> {
    match ending {
        Ending::Verified | Ending::Answered | Ending::Unverified | Ending::NoChange | Ending::GaveUp => {
            Some(StopReason::EndTurn)
        }
        Ending::Budget { budget: Budget::Tokens } => Some(StopReason::MaxTokens),
        Ending::Budget { budget: Budget::Turns | Budget::Time | Budget::Cost } => {
            Some(StopReason::MaxTurnRequests)
        }
        Ending::Refused => Some(StopReason::Refusal),
        Ending::Interrupted => Some(StopReason::Cancelled),
        Ending::Unavailable => None,
    }
}

/// Summarizes a run in Markdown: how it ended and what it changed.
#[must_use]
pub fn summary(report: &Report) -> String {
    let label = report.ending.label();
    let message = sanitize::text(report.message.trim());
    let mut text = match message.is_empty() {
        true => format!("**{label}**\n"),
        false => format!("**{label}:** {message}\n"),
    };
    let counts = figures::counts_by_file(&report.diff.patch);
    let files = &report.diff.files;
    for file in files.iter().take(MAX_FILES) {
        let counted = counts.iter().find(|(path, ..)| path == file);
        let counted = counted.map(|(_, added, removed)| format!(" (+{added} -{removed})"));
        let name = sanitize::line(file).replace('`', "'");
        text.push_str(&format!("- `{name}`{}\n", counted.unwrap_or_default()));
    }
    if files.len() > MAX_FILES {
        text.push_str(&format!("- and {} more\n", files.len() - MAX_FILES));
    }
    match &report.result {
        None => {}
        Some(Value::String(answer)) => text.push_str(&format!("\n{}\n", sanitize::text(answer.trim()))),
        Some(result) => text.push_str(&format!("\n{}", fenced("json", &format!("{result:#}")))),
    }
    text
}

/// Returns Markdown that shows the changes made by a dry run and how to apply them, or an empty
/// string if nothing changed.
#[must_use]
pub fn proposal(report: &Report, session: &str) -> String {
    if report.diff.files.is_empty() {
        return String::new();
    }
    let patch = fenced("diff", &bounded(&sanitize::text(&report.diff.patch)));
    format!("\n{patch}\nThe repository is unchanged. To apply this: `agent apply {session}`\n")
}

#[cfg(test)]
mod tests {
    use journal::Diff;

    use super::*;

    #[test]
    fn bug_the_summary_lacked_the_answer_to_a_question() {
        let of = |result| Report { result: Some(result), ..Report::new(Ending::Answered, "answered") };
        assert!(summary(&of("It subtracts.".into())).ends_with("\nIt subtracts.\n"));
        let object = summary(&of(serde_json::json!({"line": 2})));
        assert!(object.contains("```json\n{\n  \"line\": 2\n}\n```"), "{object}");
    }

    #[test]
    fn every_ending_but_an_unavailable_model_has_a_stop_reason() {
        let budget = |budget| Ending::Budget { budget };
        for (ending, reason) in [
            (Ending::Verified, Some(StopReason::EndTurn)),
            (Ending::Unverified, Some(StopReason::EndTurn)),
            (Ending::NoChange, Some(StopReason::EndTurn)),
            (Ending::GaveUp, Some(StopReason::EndTurn)),
            (budget(Budget::Tokens), Some(StopReason::MaxTokens)),
            (budget(Budget::Turns), Some(StopReason::MaxTurnRequests)),
            (budget(Budget::Time), Some(StopReason::MaxTurnRequests)),
            (budget(Budget::Cost), Some(StopReason::MaxTurnRequests)),
            (Ending::Refused, Some(StopReason::Refusal)),
            (Ending::Interrupted, Some(StopReason::Cancelled)),
            (Ending::Unavailable, None),
        ] {
            assert_eq!(stop_reason(&ending), reason, "{ending:?}");
        }
    }

    #[test]
    fn a_summary_names_the_changed_files_and_cannot_contain_escape_sequences() {
        let mut report = Report::new(Ending::Verified, "fixed \u{1b}[31mit");
        let files = (0..22).map(|n| format!("f{n}.rs")).collect();
        let patch = "--- a/f0.rs\n+++ b/f0.rs\n@@ -1 +1,2 @@\n-a\n+b\n+c\n".to_owned();
        report.diff = Diff { files, added: 2, removed: 1, patch };
        let text = summary(&report);
        assert!(text.starts_with("**verified:** fixed ␛[31mit\n- `f0.rs` (+2 -1)\n- `f1.rs`\n"), "{text}");
        assert!(text.ends_with("- `f19.rs`\n- and 2 more\n"), "{text}");
        let proposal = proposal(&report, "ID");
        assert!(proposal.contains("```diff\n--- a/f0.rs") && proposal.contains("`agent apply ID`"));
        assert_eq!(super::proposal(&Report::new(Ending::NoChange, ""), "ID"), "");
    }
}
