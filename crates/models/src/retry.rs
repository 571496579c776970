//! Decides when to retry a request. The policy is pure: it only decides, and the caller does the
//! waiting.
//!
//! A retry sends the same request byte for byte. A changed request is a new turn, which this policy
//! does not cover.

use std::time::Duration;

use crate::{Error, Retry};

/// How many times to retry, and how long to wait each time. The pauses double, with up to 10 %
/// jitter (docs/servers.md#faults). A run uses the default policy with a random seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Maximum number of retries per request.
    pub retries: u32,
    /// Maximum number of retries while the server is loading its model. With the default pauses,
    /// they add up to about ten minutes.
    pub loading: u32,
    /// The first pause.
    pub first: Duration,
    /// The longest pause before jitter, unless the server asks for a longer one.
    pub longest: Duration,
    /// The longest pause that a server may ask for. If it asks for more, there are no more retries.
    pub patience: Duration,
    /// Seeds the jitter, so that clients do not all retry at the same moment. The same seed always
    /// produces the same pauses.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 5,
            loading: 60,
            first: Duration::from_millis(500),
            longest: Duration::from_secs(10),
            patience: Duration::from_secs(300),
            seed: 0,
        }
    }
}

/// What to do after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Wait this long, then send the same bytes.
    Wait(Duration),
    /// Compact the conversation, then send the result.
    Compact,
    /// Give up, for this reason.
    GiveUp(String),
}

impl Policy {
    /// Decides what to do after attempt number `attempt` (the first is 0) has failed. `left` is the
    /// time remaining for the run; `None` if it is unlimited.
    ///
    /// ```
    /// use models::{Error, retry::{Decision, Policy}};
    /// let busy = Error::Unavailable { message: "busy".into(), retry_after: Some(7) };
    /// assert!(matches!(Policy::default().decide(0, &busy, None), Decision::Wait(pause) if pause.as_secs() == 7));
    /// ```
    #[must_use]
    pub fn decide(&self, attempt: u32, error: &Error, left: Option<Duration>) -> Decision {
        let asked = match error.retry() {
            Retry::Never => return Decision::GiveUp(String::from("trying again would not help")),
            Retry::Compact => return Decision::Compact,
            Retry::After(asked) => asked.map(Duration::from_secs),
        };
        let times = if matches!(error, Error::Loading(_)) { self.loading } else { self.retries };
        if attempt >= times {
            return Decision::GiveUp(format!("it failed again after {times} retries"));
        }
        if let Some(asked) = asked.filter(|asked| *asked > self.patience) {
            return Decision::GiveUp(format!("the server asked for a delay of {} s", asked.as_secs()));
        }
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(attempt)).min(self.longest);
        // Jitter only lengthens the delay that the server asked for, because the server would
        // refuse the request again after a shorter one.
        let jitter = doubled.mul_f64(0.1 * unit(self.seed, attempt));
        let pause = doubled.max(asked.unwrap_or_default()) + jitter;
        if left.is_some_and(|left| pause >= left) {
            return Decision::GiveUp(String::from("there is no time left to wait for the server"));
        }
        Decision::Wait(pause)
    }
}

/// Returns a pseudorandom number between 0 and 1 (SplitMix64).
fn unit(seed: u64, attempt: u32) -> f64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(attempt) + 1));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry_after: Option<u64>) -> Error {
        Error::Unavailable { message: String::from("busy"), retry_after }
    }

    fn pause(policy: Policy, attempt: u32, error: &Error) -> Duration {
        match policy.decide(attempt, error, None) {
            Decision::Wait(pause) => pause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_differ_by_seed_only() {
        let seeded = |seed| Policy { seed, retries: 40, ..Policy::default() };
        for (attempt, least) in
            [(0, 500), (1, 1000), (2, 2000), (3, 4000), (4, 8000), (5, 10_000), (39, 10_000)]
        {
            let least = Duration::from_millis(least);
            let waited = pause(seeded(1), attempt, &busy(None));
            assert!(waited >= least && waited <= least.mul_f64(1.1), "{attempt}: {waited:?}");
            assert_eq!(waited, pause(seeded(1), attempt, &busy(None)));
            assert_ne!(waited, pause(seeded(2), attempt, &busy(None)));
        }
    }

    #[test]
    fn the_servers_own_delay_is_honored_up_to_a_limit() {
        let waited = pause(Policy::default(), 0, &busy(Some(60)));
        assert!(waited >= Duration::from_secs(60) && waited < Duration::from_secs(61));
        assert!(pause(Policy::default(), 0, &busy(Some(0))) >= Duration::from_millis(500));
        assert!(
            matches!(Policy::default().decide(0, &busy(Some(3600)), None), Decision::GiveUp(why) if why.contains("3600"))
        );
    }

    #[test]
    fn too_many_attempts_a_permanent_error_or_lack_of_time_ends_the_retries() {
        let policy = Policy::default();
        assert!(matches!(policy.decide(5, &busy(None), None), Decision::GiveUp(_)));
        assert!(matches!(
            policy.decide(0, &busy(None), Some(Duration::from_millis(400))),
            Decision::GiveUp(_)
        ));
        assert!(matches!(policy.decide(0, &Error::Refused(String::from("no")), None), Decision::GiveUp(_)));
        let loading = Error::Loading(String::from("loading"));
        assert!(matches!(policy.decide(59, &loading, None), Decision::Wait(pause) if pause.as_secs() >= 10));
        assert!(matches!(policy.decide(60, &loading, None), Decision::GiveUp(_)));
        let overflow = Error::Overflow { message: String::new(), prompt_tokens: None, window: None };
        assert_eq!(policy.decide(9, &overflow, None), Decision::Compact);
    }
}
