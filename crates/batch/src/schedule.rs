//! Decides when the next attempt starts, and when a batch stops. Pure: the caller provides the
//! time, runs attempts and reports how they end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use journal::Ending;
use tokio::time::Instant;

use crate::due::Due;
use crate::record::Finished;
use crate::run::BatchOptions;
use crate::stop::Stop;
use crate::summary::tokens;

/// After this many infrastructure failures in a row, something that all tasks need is probably
/// down. Attempts then run one at a time, as probes.
const OUTAGE: u32 = 3;
/// The wait before the first retry or probe. Each subsequent wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait. When a server comes back, the batch notices within a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What to do now.
pub(crate) enum Next<'t> {
    /// Start an attempt.
    Start(Due<'t>),
    /// Wait until a running attempt ends, or until this time.
    Wait(Option<Instant>),
    /// Nothing is running, and nothing more will start.
    End,
}

/// What happens after an attempt has ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the task is retried.
    pub(crate) again: bool,
    /// How long to wait before the next attempt if the infrastructure is failing.
    pub(crate) pause: Option<Duration>,
}

/// The queue of attempts, and the state that decides when the next one starts.
pub(crate) struct Schedule<'t> {
    queue: VecDeque<Due<'t>>,
    /// Attempts that have started but not ended, by task.
    running: HashMap<&'t str, Due<'t>>,
    options: BatchOptions,
    pub(crate) deadline: Option<Instant>,
    stopped: Option<Stop>,
    /// The total number of tokens across all results in the folder.
    tokens: u64,
    /// The total cost of all results in the folder, in dollars.
    cost: f64,
    /// The number of infrastructure failures in a row. Until an outage begins, a failure that the
    /// server did not cause counts only if it is the first one for its repository.
    failures: u32,
    /// Repositories for which `failures` already includes a failure that the server did not cause.
    failing: HashSet<&'t Path>,
    /// The number of probes during this outage.
    probes: u32,
    /// The total time spent waiting during this outage.
    waited: Duration,
    /// When the next probe may start.
    probe_at: Instant,
    load: Load,
}

/// Limits how many attempts run at a time. If the server refuses requests because it is getting too
/// many, the limit drops, and the next attempt that ends is not replaced. When the number of
/// attempts that have ended without another refusal exceeds the limit, the limit grows by one, up
/// to `jobs`.
struct Load {
    most: usize,
    /// The lowest value of `most` so far.
    lowest: usize,
    /// The number of refusals as of the last call to [`Schedule::adapt`].
    refusals: u64,
    /// The number of attempts that have ended since the last refusal, or since `most` last grew.
    calm: usize,
}

impl Load {
    fn ended(&mut self, jobs: usize) {
        self.calm += 1;
        if self.calm > self.most && self.most < jobs {
            self.calm = 0;
            self.most += 1;
        }
    }
}

impl<'t> Schedule<'t> {
    /// Creates the schedule for an invocation that starts now, given the results of earlier
    /// invocations.
    pub(crate) fn new(
        queue: VecDeque<Due<'t>>,
        options: &BatchOptions,
        earlier: &[Finished],
        now: Instant,
    ) -> Self {
        Self {
            queue,
            running: HashMap::new(),
            options: options.clone(),
            deadline: options.limits.time.map(|time| now + time),
            stopped: None,
            tokens: earlier.iter().map(tokens).fold(0, u64::saturating_add),
            cost: earlier.iter().filter_map(|result| result.totals.cost).sum(),
            failures: 0,
            failing: HashSet::new(),
            probes: 0,
            waited: Duration::ZERO,
            probe_at: now,
            load: Load { most: options.jobs.max(1), lowest: options.jobs.max(1), refusals: 0, calm: 0 },
        }
    }

    /// Adjusts the number of simultaneous attempts to what the server can handle. `running` is the
    /// number of running attempts. `refusals` is the number of requests that the server has refused
    /// so far because it was getting too many. Returns the new number if it is the lowest so far.
    pub(crate) fn adapt(&mut self, running: usize, refusals: u64) -> Option<usize> {
        let load = &mut self.load;
        if load.refusals == refusals {
            return None;
        }
        load.refusals = refusals;
        load.calm = 0;
        // During an outage, attempts run one at a time anyway.
        if self.failures >= OUTAGE || running == 0 {
            return None;
        }
        load.most = load.most.min(running.max(load.most - 1)).max(1);
        (load.most < load.lowest).then(|| {
            load.lowest = load.most;
            load.most
        })
    }

    /// Returns why the batch is stopping, if it is.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// Ensures that no more attempts start. A reason that interrupts the running attempts replaces
    /// one that does not. Otherwise, the first reason is kept.
    pub(crate) fn stop(&mut self, stop: Stop) {
        match self.stopped {
            Some(first) if first.interrupts() || !stop.interrupts() => {}
            _ => self.stopped = Some(stop),
        }
    }

    pub(crate) fn next(&mut self, now: Instant, running: usize) -> Next<'t> {
        if !self.queue.is_empty() || running > 0 {
            self.apply_limits(now);
        }
        let deadline = self.deadline.filter(|_| !self.stopped.is_some_and(Stop::interrupts));
        if self.stopped.is_some() || self.queue.is_empty() {
            return if running == 0 { Next::End } else { Next::Wait(deadline) };
        }
        let outage = self.failures >= OUTAGE;
        if running >= if outage { 1 } else { self.load.most } {
            return Next::Wait(deadline);
        }
        let start_at = |due: &Due<'_>| {
            let probe = outage.then_some(self.probe_at);
            due.not_before.max(probe).unwrap_or(now)
        };
        match self.queue.iter().map(start_at).enumerate().min_by_key(|(_, at)| (*at).max(now)) {
            Some((index, at)) if at <= now => self.queue.remove(index).map_or(Next::End, |due| {
                self.running.insert(&due.task.id, due.clone());
                Next::Start(due)
            }),
            Some((_, at)) => Next::Wait(Some(deadline.map_or(at, |deadline| deadline.min(at)))),
            None => Next::End,
        }
    }

    fn apply_limits(&mut self, now: Instant) {
        let limits = &self.options.limits;
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.stop(Stop::Deadline);
        } else if self.queue.is_empty() {
            // The other limits only prevent new attempts, and no attempts are queued.
        } else if limits.tokens.is_some_and(|most| self.tokens >= most) {
            self.stop(Stop::Tokens);
        } else if limits.cost.is_some_and(|most| self.cost >= most) {
            self.stop(Stop::Cost);
        }
    }

    /// Records a result. `may_help` is true if a retry could end differently.
    pub(crate) fn ended(&mut self, now: Instant, result: &Finished, may_help: bool) -> Verdict {
        let started = self.running.remove(result.id.as_str());
        self.tokens = self.tokens.saturating_add(tokens(result));
        self.cost += result.totals.cost.unwrap_or(0.0);
        if !result.infrastructure {
            (self.failures, self.probes, self.waited) = (0, 0, Duration::ZERO);
            self.failing.clear();
            self.load.ended(self.options.jobs);
            if self.options.fail_fast && result.ending != Ending::Verified {
                self.stop(Stop::FailFast);
            }
            return Verdict::default();
        }
        let Some(due) = started.filter(|_| may_help && self.stopped.is_none()) else {
            return Verdict::default();
        };
        // All tasks of one repository may fail, for example in their setup, while tasks of other
        // repositories succeed.
        let unavailable = result.ending == Ending::Unavailable;
        if self.failures >= OUTAGE || unavailable || self.failing.insert(&due.task.repo) {
            self.failures += 1;
        }
        let mut pause = None;
        // An attempt that started before the outage was detected is not a probe.
        if self.failures == OUTAGE || self.failures > OUTAGE && now >= self.probe_at {
            let wait = backoff(self.probes);
            if self.waited + wait > self.options.wait {
                self.stop(Stop::Infrastructure);
                return Verdict::default();
            }
            self.probes += 1;
            self.waited += wait;
            self.probe_at = now + wait;
            pause = Some(wait);
        }
        // Failures that the server did not cause may be due to the task, so limit their retries.
        let outage = self.failures >= OUTAGE && unavailable;
        let wait = if outage { Duration::ZERO } else { backoff(due.retried) };
        let again = outage || due.retried < self.options.retries && wait <= self.options.wait;
        if again {
            let retried = if outage { due.retried } else { due.retried + 1 };
            let not_before = Some(now + wait);
            self.queue.push_back(Due {
                attempt: result.attempt.saturating_add(1),
                retried,
                not_before,
                ..due
            });
        }
        Verdict { again, pause }
    }
}

/// Returns how long to wait before the next retry, given the number of retries so far. The wait
/// doubles each time, from two seconds up to a minute.
#[must_use]
pub fn backoff(retries: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let seconds: Vec<u64> = (0..7).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff(u32::MAX), LONGEST_WAIT);
    }
}
