//! Code shared by several views of the report: the colors of outcomes, totals over attempts, and
//! one-line messages.

use batch::Finished;
use journal::{Date, Ending};
use preview::{figures, sanitize};
use serde::Serialize;

/// Totals over all attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Totals {
    pub(crate) attempts: u64,
    pub(crate) tokens: u64,
    pub(crate) seconds: f64,
    /// `None` if no price is known.
    pub(crate) cost: Option<f64>,
    /// The date of the prices, or the oldest date if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prices_of: Option<Date>,
}

pub(crate) fn totals<'a>(attempts: impl Iterator<Item = &'a Finished>) -> Totals {
    attempts.fold(Totals::default(), |sum, attempt| {
        let used = attempt.totals;
        let cost = used.cost.map_or(sum.cost, |cost| Some(sum.cost.unwrap_or(0.0) + cost));
        let tokens = sum.tokens.saturating_add(used.prompt_tokens).saturating_add(used.generated_tokens);
        let prices_of = [sum.prices_of, used.prices_of].into_iter().flatten().min();
        Totals { attempts: sum.attempts + 1, tokens, seconds: sum.seconds + attempt.seconds, cost, prices_of }
    })
}

/// Returns the name of the color that the page uses for an ending: `good`, `warn`, `bad`, or `none`
/// for a task that has not run.
pub(crate) fn tone(ending: Option<&Ending>) -> &'static str {
    match ending {
        None => "none",
        Some(Ending::Verified | Ending::Answered) => "good",
        Some(Ending::Unverified | Ending::NoChange | Ending::Interrupted | Ending::Budget { .. }) => "warn",
        Some(Ending::GaveUp | Ending::Unavailable | Ending::Refused) => "bad",
    }
}

/// Returns the first line of a message, shortened to at most `width` characters.
pub(crate) fn first_line(message: &str, width: usize) -> String {
    sanitize::short(message.trim().lines().next().unwrap_or_default(), width)
}

/// Formats a duration in human-readable form, such as `12.3 s` or `4 min 5 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    figures::duration((seconds * 1_000.0) as u64)
}
