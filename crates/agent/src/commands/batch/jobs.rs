//! `--jobs auto`: runs one task for each request that the server can answer in parallel.

use models::{Identity, Notices};

use super::progress::Display;
use crate::cli::Jobs;
use crate::figures::plural;
use crate::model;
use crate::sanitize;
use crate::settings::Settings;

/// The number of tasks to run at a time on a remote server that does not report how many requests
/// it handles in parallel. Hosted APIs can handle more, but new accounts often have low limits.
const REMOTE: u16 = 4;

/// Returns how many tasks to run at a time. With `auto`, asks the server and reports the decision.
pub(in crate::commands) async fn count(jobs: Jobs, settings: &Settings, display: &Display) -> usize {
    if let Jobs::Number(jobs) = jobs {
        return jobs.into();
    }
    // This neither downloads a model nor asks the user.
    let settings = Settings { pull: false, ..settings.clone() };
    let (jobs, why) = match model::open(&settings, false, Notices::default()).await {
        Ok(chosen) => decide(&chosen.model.identity()),
        Err(failure) => (1, format!("cannot ask the server: {:#}", failure.error)),
    };
    let tasks = plural(jobs.into(), "task");
    display.note(&format!("running {tasks} at a time: {}", sanitize::short(&why, 200)));
    jobs.into()
}

/// Returns how many tasks to run at a time on a server, and the reason.
fn decide(server: &Identity) -> (u16, String) {
    let name = &server.server;
    match server.slots {
        Some(slots) => (slots.min(Jobs::MAX), format!("{name} answers that many requests at a time")),
        None if server.local => (1, format!("{name} does not report how many requests it answers at a time")),
        None => (REMOTE, format!("the default for hosted models; {name} does not report a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_reported_slots_a_local_server_gets_one_task_and_a_remote_server_four() {
        let server = |slots, local| decide(&Identity { slots, local, ..Identity::default() }).0;
        assert_eq!(server(Some(6), true), 6);
        assert_eq!(server(Some(6), false), 6);
        assert_eq!(server(Some(9999), true), 256);
        assert_eq!(server(None, true), 1);
        assert_eq!(server(None, false), 4);
    }
}
