//! A batch as Markdown, for the job page of a CI system.

use std::fmt::Write as _;

use batch::{Row, Summary};
use preview::figures::{plural, thousands};

use crate::outcome::{first_line, seconds};

/// The maximum number of tasks to list. GitHub shows at most 1 MiB per step.
const MAX_LISTED: usize = 500;
/// The maximum number of characters in a message.
const MESSAGE: usize = 200;

/// Writes the summary of a batch as Markdown: the outcome counts, and the tasks that are not
/// verified. Messages are formatted as code, so nothing in them becomes markup, a link or a
/// mention.
#[must_use]
pub fn markdown(name: &str, summary: &Summary) -> String {
    let verified = summary.rows.iter().filter(|row| row.is_verified()).count() as u64;
    let mut out = format!(
        "## {}: {} of {} verified\n\n| ending | tasks |\n|---|---:|\n",
        code(name),
        thousands(verified),
        plural(summary.tasks as u64, "task")
    );
    // Writing to a string cannot fail.
    for (label, n) in &summary.endings {
        let _ = writeln!(out, "| {label} | {} |", thousands(*n as u64));
    }
    let dollars = |cost| format!(", {}", journal::dollars(cost, summary.prices_of));
    let cost = summary.cost.map_or_else(String::new, dollars);
    let _ = writeln!(
        out,
        "\n{}, {}, {} of work{cost}",
        plural(summary.attempts as u64, "attempt"),
        plural(summary.tokens, "token"),
        seconds(summary.seconds)
    );
    if let Some(stop) = summary.stopped {
        let _ = writeln!(out, "\n**The batch is not complete**: {}.", stop.describe());
    }
    let open: Vec<&Row> = summary.rows.iter().filter(|row| !row.is_verified()).collect();
    if open.is_empty() {
        return out;
    }
    out.push_str("\n| task | ending | turns | tokens | time | lines | message |\n");
    out.push_str("|---|---|---:|---:|---:|---:|---|\n");
    for row in open.iter().take(MAX_LISTED) {
        let message = first_line(&row.message, MESSAGE);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | +{} -{} | {} |",
            code(&row.id),
            row.label(),
            row.turns,
            thousands(row.tokens),
            seconds(row.seconds),
            row.added,
            row.removed,
            if message.is_empty() { String::new() } else { code(&message) }
        );
    }
    if let Some(more) = open.len().checked_sub(MAX_LISTED).filter(|more| *more > 0) {
        let _ = writeln!(out, "\n{} more tasks are not verified.", thousands(more as u64));
    }
    out
}

/// Formats text as inline code that also works in a table cell.
fn code(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if longest > 0 { " " } else { "" };
    // In a table, a vertical bar ends the cell, even inside code.
    format!("{fence}{space}{}{space}{fence}", text.replace('|', "\\|"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{row, summary};
    use journal::Ending;

    #[test]
    fn hostile_messages_stay_code_in_one_cell() {
        let message = "`` | <img src=x> @all [a](b)\nsecond line";
        let rows = vec![row("done", Some(Ending::Verified), ""), row("wrong", Some(Ending::GaveUp), message)];
        let text = markdown("tasks", &summary(rows));
        assert!(text.starts_with("## `tasks`: 1 of 2 tasks verified\n"), "{text}");
        assert!(text.contains("| gave up | 1 |\n"), "{text}");
        assert!(
            text.contains(
                "| `wrong` | gave up | 3 | 1,000 | 1.5 s | +2 -1 | ``` `` \\| <img src=x> @all [a](b) ``` |\n"
            ),
            "{text}"
        );
        assert!(!text.contains("| `done`"), "verified tasks should not be listed: {text}");
    }

    #[test]
    fn a_long_list_is_cut() {
        let rows = (0..600).map(|n| row(&format!("t{n}"), Some(Ending::GaveUp), "no")).collect();
        assert!(markdown("tasks", &summary(rows)).ends_with("\n100 more tasks are not verified.\n"));
    }
}
