//! `--queue`: runs the batch on the workers of a queue. A few settings travel with the tasks; the
//! workers decide the rest.

use batch::Task;
use journal::Ending;
use queue::{Publisher, Queue};

use super::{Ready, complete};
use crate::cli::{Batch, Jobs};
use crate::exit::{Exit, Failure, Result};
use crate::interrupt::{self, Signals};
use crate::settings::{Settings, definition};

/// The default number of tasks to keep in the queue at a time.
const IN_QUEUE: usize = 1000;

/// The settings that travel with a task.
const TRAVEL: &[&str] =
    &["model", "verify", "attempts", "max_turns", "max_tokens", "max_seconds", "max_cost"];

/// Runs the batch on the workers of the queue at `url`.
pub(super) fn run(mut batch: Ready, command: &Batch, url: &str) -> Result<Exit> {
    let given = &command.settings.given;
    check(given)?;
    batch.options.jobs = match command.jobs {
        Some(Jobs::Number(jobs)) => jobs.into(),
        Some(Jobs::Auto) | None => IN_QUEUE,
    };
    // The workers decide any settings that were not given here.
    for (key, value) in &mut batch.options.settings {
        if !given.iter().any(|(given, _)| given == key) {
            *value = None;
        }
    }
    let (address, display) = (command.login.at(url), batch.agent.display.clone());
    interrupt::block_on(async {
        let signals = Signals::take()?;
        let queue = tokio::select! {
            queue = Queue::connect(&address, Some(batch.options.wait), move |notice| display.note(notice)) => queue?,
            () = signals.wait() => return Ok(Exit::Run(Ending::Interrupted)),
        };
        let defaults = |task: &mut Task| fill(task, given, &batch.settings);
        let out = batch.options.out.clone();
        let publisher = Publisher::new(queue, out, batch.agent.sessions(), &defaults);
        let Some(summary) = complete(&batch, &publisher, &signals).await? else {
            return Ok(Exit::Run(Ending::Interrupted));
        };
        if summary.rows.iter().all(batch::Row::has_result) {
            publisher.forget().await;
        }
        batch.finish(&summary)
    })
}

/// Checks that every flag can travel with a task.
fn check(given: &[(&'static str, String)]) -> Result<()> {
    let Some((key, _)) = given.iter().find(|(key, _)| !TRAVEL.contains(key)) else { return Ok(()) };
    let flag = definition(key).and_then(|d| d.flag_name()).unwrap_or_default();
    Err(Failure::misuse(format!("{flag} does not apply to a batch with --queue; give it to `agent worker`")))
}

/// Fills in the settings that were given for the whole batch, unless the task sets them itself.
fn fill(task: &mut Task, given: &[(&'static str, String)], settings: &Settings) {
    let is_given = |key: &str| given.iter().any(|(given, _)| *given == key);
    let limits = &mut task.limits;
    task.model = task.model.take().or_else(|| settings.model.clone().filter(|_| is_given("model")));
    task.verify = task.verify.take().or_else(|| settings.verify.clone().filter(|_| is_given("verify")));
    task.attempts = task.attempts.or(is_given("attempts").then_some(settings.attempts));
    limits.max_turns = limits.max_turns.or(is_given("max_turns").then_some(settings.max_turns));
    limits.max_tokens = limits.max_tokens.or(settings.max_tokens.filter(|_| is_given("max_tokens")));
    limits.max_seconds = limits.max_seconds.or(is_given("max_seconds").then_some(settings.max_seconds));
    limits.max_cost = limits.max_cost.or(settings.max_cost.filter(|_| is_given("max_cost")));
}

#[cfg(test)]
mod tests {
    use batch::TaskLimits;

    use super::*;
    use crate::layers::{self, Environment};

    #[test]
    fn flags_of_the_batch_travel_with_its_tasks_and_the_tasks_own_values_win() {
        let given: Vec<_> = TRAVEL.iter().map(|key| (*key, "7".to_owned())).collect();
        let settings =
            layers::resolve(&given, &Environment::default(), None).ok().unwrap().settings().ok().unwrap();
        let mut task = Task { model: Some("own".into()), ..Task::default() };
        fill(&mut task, &given, &settings);
        let limits =
            TaskLimits { max_turns: Some(7), max_tokens: Some(7), max_seconds: Some(7), max_cost: Some(7.0) };
        assert_eq!(
            (task.model.as_deref(), task.verify.as_deref(), task.attempts),
            (Some("own"), Some("7"), Some(7))
        );
        assert_eq!(task.limits, limits);
        let mut task = Task::default();
        fill(&mut task, &[], &settings);
        assert_eq!(task, Task::default());
        assert!(check(&given).is_ok());
        assert!(check(&[("sandbox", "false".into())]).is_err());
    }
}
