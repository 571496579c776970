//! Several tries at a task in one session (`--attempts`, `--escalate`): how they differ, and which
//! one is kept.
//!
//! A try is a conversation from its first message to an ending. Each try starts with the files as
//! they were at the start of the run. The first try that passes the verification ends the run. If
//! none passes, the best one is kept, provided its test counts are better than at the start.
//!
//! Another model may make the final try (`--escalate`). It is that model's first try, so the
//! request is not varied.
//!
//! Effect on the prompt cache: the system prompt stays cached from try to try.
//!
//! This module does no I/O: results go in, and decisions come out.

use journal::{Check, Ending};
use serde_json::Value;

/// The temperatures of the second and later tries. The values are guesses, not measurements.
const TEMPERATURES: [f32; 3] = [0.7, 0.9, 1.0];

/// The test counts used to compare tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) failing: u64,
    passing: u64,
}

impl Counts {
    /// Returns the counts of a verification, or `None` if the report has no counts.
    pub(crate) fn of(check: &Check) -> Option<Self> {
        let count = |name: &str| check.facts.get(name).and_then(Value::as_u64);
        let passing = count("passed");
        let failing = match check.passed {
            true => 0,
            // Tests that could not run at all count as one failure.
            false => (count("failed")? + count("errors").unwrap_or(0)).max(1),
        };
        Some(Self { failing, passing: passing? })
    }

    /// Whether fewer tests fail than in `other` while at least as many pass. It is not enough to
    /// compare failures, because a file that does not compile counts as a single failure.
    fn better_than(self, other: Self) -> bool {
        self.failing < other.failing && self.passing >= other.passing
    }
}

/// The best try so far. Its test counts are better than those of the original files.
#[derive(Debug, Clone, PartialEq)]
struct Best {
    number: u32,
    /// The record that reverted this try's changes. Reverting that record restores them.
    reverted: Option<u64>,
    counts: Counts,
    lines: u64,
    ended: (Ending, String),
}

/// The tries of a run.
#[derive(Debug)]
pub(crate) struct Tries {
    limit: u32,
    /// Whether another model makes the final try.
    escalates: bool,
    number: u32,
    start: Option<Counts>,
    best: Option<Best>,
    /// How the current try ended.
    ended: Option<(Ending, String)>,
}

/// What to do after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Revert this record of the tree's history and all later records. `None` reverts everything
    /// since the start.
    Revert(Option<u64>),
    /// Keep the changes of this try, and end the run.
    Keep,
}

impl Tries {
    /// Allows up to `attempts` tries, plus one more with another model if the run escalates.
    /// `before` is the result of the verification that ran before any change. If it is `None`,
    /// there is only one try, because there would be no way to compare several.
    pub(crate) fn new(attempts: u32, escalates: bool, before: Option<&Check>) -> Self {
        let escalates = escalates && before.is_some();
        let limit = if before.is_some() { attempts + u32::from(escalates) } else { 1 };
        Self { limit, escalates, number: 1, start: before.and_then(Counts::of), best: None, ended: None }
    }

    /// Returns the number of the current try and the maximum number of tries, if more than one is
    /// allowed.
    pub(crate) fn several(&self) -> Option<(u32, u32)> {
        (self.limit > 1).then_some((self.number, self.limit))
    }

    /// Whether this is the second or a later try.
    pub(crate) fn again(&self) -> bool {
        self.number > 1
    }

    /// Whether this is the try with the other model.
    pub(crate) fn escalated(&self) -> bool {
        self.escalates && self.number == self.limit
    }

    /// Returns the number of this try, counting only tries by the same model.
    fn of_model(&self) -> u32 {
        if self.escalated() { 1 } else { self.number }
    }

    /// Whether the model has made an earlier try. If so, the request of this try must differ from
    /// the earlier requests.
    pub(crate) fn varied(&self) -> bool {
        self.of_model() > 1
    }

    /// Whether this try words the request differently.
    pub(crate) fn reworded(&self) -> bool {
        self.of_model().is_multiple_of(2)
    }

    /// Whether this try shows the second-ranked file instead of the first.
    pub(crate) fn other_file(&self) -> bool {
        self.of_model().is_multiple_of(3)
    }

    /// Returns the temperature for this try: `set`, or a higher one in later tries.
    pub(crate) fn temperature(&self, set: f32) -> f32 {
        let warmer = self.of_model().checked_sub(2).map(|i| TEMPERATURES.get(i as usize).unwrap_or(&1.0));
        warmer.map_or(set, |warm| set.max(*warm))
    }

    /// Records how the current try ended. Returns `false`, and records nothing, if the run has only
    /// one try or if this kind of ending is not retried.
    pub(crate) fn end(&mut self, ending: &Ending, message: &str) -> bool {
        let retried = matches!(ending, Ending::Unverified | Ending::NoChange | Ending::GaveUp);
        if self.limit == 1 || !retried {
            return false;
        }
        self.ended = Some((ending.clone(), message.to_owned()));
        true
    }

    /// Returns how the current try ended, if it has ended.
    pub(crate) fn ended(&self) -> Option<&(Ending, String)> {
        self.ended.as_ref()
    }

    /// Rates the current try by its test counts and the number of lines it changed. Returns what to
    /// do with its changes.
    pub(crate) fn rate(&mut self, counts: Option<Counts>, lines: u64) -> After {
        let ended = self.ended.clone().unwrap_or((Ending::GaveUp, String::new()));
        let better = |counts: &Counts| match (&self.best, self.start) {
            (_, start) if !start.is_some_and(|start| counts.better_than(start)) => false,
            (Some(best), _) => (counts.failing, lines) < (best.counts.failing, best.lines),
            (None, _) => true,
        };
        if let Some(counts) = counts.filter(better) {
            self.best = Some(Best { number: self.number, reverted: None, counts, lines, ended });
        }
        match &self.best {
            _ if self.number < self.limit => After::Revert(None),
            Some(best) if best.number == self.number => After::Keep,
            best => After::Revert(best.as_ref().and_then(|best| best.reverted)),
        }
    }

    /// Stores the record that reverted the changes of the current try.
    pub(crate) fn reverted(&mut self, record: Option<u64>) {
        match &mut self.best {
            Some(best) if best.number == self.number => best.reverted = record,
            _ => {}
        }
        // A try without changes is no better than the start, regardless of its test results.
        self.best.take_if(|best| best.reverted.is_none());
    }

    /// Starts the next try. Returns `false` if this was the last one.
    pub(crate) fn next(&mut self) -> bool {
        let more = self.number < self.limit;
        if more {
            self.number += 1;
            self.ended = None;
        }
        more
    }

    /// Returns the run's ending and message after the final try.
    pub(crate) fn finish(&self) -> (Ending, String) {
        let ended = self.best.as_ref().map(|best| &best.ended).or(self.ended.as_ref());
        let (ending, message) = ended.cloned().unwrap_or((Ending::GaveUp, String::new()));
        (ending, format!("{message} ({} tries; {})", self.number, self.kept()))
    }

    /// Returns what to do if the run stops in the middle of a try: the record to revert from, as in
    /// [`After::Revert`], and a message that says which try is kept. `now` contains the test counts
    /// for the current files, if known. Returns `None` if the current files are the best so far or
    /// there is only one try.
    pub(crate) fn stop(&self, now: Option<Counts>) -> Option<(Option<u64>, String)> {
        let (number, limit) = self.several()?;
        let best = self.best.as_ref().map(|best| best.counts).or(self.start);
        if now.zip(best).is_some_and(|(now, best)| now.better_than(best)) {
            return None;
        }
        let reverted = self.best.as_ref().and_then(|best| best.reverted);
        Some((reverted, format!("stopped in try {number} of {limit}; {}", self.kept())))
    }

    fn kept(&self) -> String {
        match (&self.best, self.start) {
            (Some(best), Some(start)) => format!(
                "try {} is kept: {} failing, {} before",
                best.number, best.counts.failing, start.failing
            ),
            _ => "none was better than the start, so the original files were restored".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(failing: u64, passing: u64) -> Option<Counts> {
        Some(Counts { failing, passing })
    }

    fn tries(limit: u32) -> Tries {
        Tries { limit, escalates: false, number: 1, start: counts(3, 2), best: None, ended: None }
    }

    /// Runs one try for each pair of counts and lines. Each revert gets the number of its try as
    /// its record.
    fn run(tries: &mut Tries, results: &[(Option<Counts>, u64)]) -> After {
        let mut after = After::Keep;
        for (number, (counts, lines)) in (1..).zip(results) {
            assert!(tries.end(&Ending::GaveUp, "stuck"));
            after = tries.rate(*counts, *lines);
            if after != After::Keep {
                tries.reverted(Some(number));
            }
            tries.next();
        }
        after
    }

    #[test]
    fn the_try_with_the_fewest_failures_and_then_the_fewest_lines_is_kept() {
        let mut three = tries(3);
        let results = [(counts(2, 3), 1), (counts(1, 4), 9), (counts(1, 4), 5)];
        assert_eq!(run(&mut three, &results), After::Keep);
        let results = [(counts(2, 3), 1), (counts(1, 4), 5), (counts(1, 4), 9)];
        let mut three = tries(3);
        assert_eq!(run(&mut three, &results), After::Revert(Some(2)));
        let message = "stuck (3 tries; try 2 is kept: 1 failing, 3 before)";
        assert_eq!(three.finish(), (Ending::GaveUp, message.into()));
    }

    #[test]
    fn a_try_that_is_no_better_than_the_start_is_never_kept() {
        // As many failures as before, a file that no longer compiles, and a verification without
        // counts.
        for result in [counts(3, 9), counts(1, 0), None] {
            let mut two = tries(2);
            assert_eq!(run(&mut two, &[(result, 1), (result, 1)]), After::Revert(None));
            assert!(two.finish().1.contains("none was better than the start"));
        }
    }

    #[test]
    fn a_stopped_try_is_kept_only_if_it_is_the_best_so_far() {
        let mut tries = tries(3);
        assert_eq!(tries.stop(counts(2, 3)), None);
        assert_eq!(tries.stop(None).map(|(reverted, _)| reverted), Some(None));
        run(&mut tries, &[(counts(2, 3), 1)]);
        assert_eq!(tries.stop(counts(2, 3)).map(|(reverted, _)| reverted), Some(Some(1)));
        assert_eq!(tries.stop(counts(1, 4)), None);
    }

    #[test]
    fn later_tries_raise_the_temperature_and_never_go_below_the_setting() {
        let mut tries = tries(5);
        let mut seen = vec![tries.temperature(0.0)];
        while tries.next() {
            seen.push(tries.temperature(0.0));
        }
        assert_eq!(seen, [0.0, 0.7, 0.9, 1.0, 1.0]);
        assert_eq!(tries.temperature(1.5), 1.5);
    }

    #[test]
    fn the_other_model_makes_the_final_try_with_the_unvaried_request() {
        let check = Check {
            command: "t".into(),
            passed: false,
            text: String::new(),
            facts: serde_json::json!({ "passed": 2, "failed": 3 }),
            ms: 1,
        };
        let mut tries = Tries::new(2, true, Some(&check));
        assert_eq!((tries.several(), tries.escalated()), (Some((1, 3)), false));
        assert!(tries.next() && tries.varied() && tries.reworded() && !tries.escalated());
        assert!(tries.next() && tries.escalated());
        assert!(!tries.varied() && !tries.reworded() && !tries.other_file());
        assert_eq!(tries.temperature(0.0), 0.0);
        assert!(!tries.next());
        assert_eq!(Tries::new(1, true, None).several(), None, "tries need a verification");
    }

    #[test]
    fn no_try_follows_a_success_an_interrupt_or_the_only_try() {
        assert!(!tries(9).end(&Ending::Verified, "") && !tries(9).end(&Ending::Interrupted, ""));
        assert!(!tries(1).end(&Ending::GaveUp, ""));
    }
}
