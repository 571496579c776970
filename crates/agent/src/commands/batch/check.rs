//! `agent batch --check`: shows the tasks that would run, and any problems that would keep them
//! from starting.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use batch::Task;
use models::choose::Choice;

use crate::console;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::sanitize;

/// Prints the tasks in the order they would run.
///
/// # Errors
/// If any task cannot start. The message lists all such tasks.
pub(super) async fn run(tasks: &[Task]) -> Result<Exit> {
    console::print(&*sanitize::text(&table(tasks)))?;
    let found = batch::check(tasks).await;
    let mut problems: Vec<String> = found.iter().map(|(id, problem)| format!("{id}: {problem}")).collect();
    for task in tasks {
        if let Some(Err(problem)) = task.model.as_deref().map(str::parse::<Choice>) {
            problems.push(format!("{}: {problem}", task.id));
        }
    }
    if problems.is_empty() { Ok(Exit::Success) } else { Err(Failure::misuse(problems.join("\n"))) }
}

fn table(tasks: &[Task]) -> String {
    let width = tasks.iter().map(|task| task.id.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:10}  repository\n", "task", "commit");
    for task in tasks {
        let commit: String = task.base_commit.as_deref().unwrap_or("HEAD").chars().take(10).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:width$}  {commit:10}  {}", task.id, task.shown_repo());
    }
    let repositories = tasks.iter().map(|task| &task.repo).collect::<BTreeSet<_>>().len();
    let repositories =
        if repositories == 1 { "1 repository".to_owned() } else { format!("{repositories} repositories") };
    let _ = writeln!(text, "\n{} in {repositories}", plural(tasks.len() as u64, "task"));
    let unverified = tasks.iter().filter(|task| task.verify.is_none()).count();
    if unverified > 0 {
        let without = plural(unverified as u64, "task");
        let _ = writeln!(text, "{without} without \"verify\": the agent looks for a test command");
    }
    text
}
