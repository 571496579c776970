//! What a run uses up: token estimates calibrated by the server's own counts, sums, and limits. Fed with numbers; knows no clock.

use journal::{Budget, Counts, Event, Record, Totals};
use models::{Message, Usage};

use crate::settings::Limits;

/// Bytes of code and English per token, before the server has told better. On the low side, so that estimates err high
/// (research on a DeepSeek vocabulary: bytes ÷ 4 is up to half too low on JSON and dense code).
const BYTES_PER_TOKEN: f64 = 3.4;
/// What a chat template adds to each message, in tokens.
const TOKENS_PER_MESSAGE: f64 = 6.0;

/// Estimates prompt tokens, and learns from what the server counted.
#[derive(Debug, Clone)]
pub(crate) struct Estimator {
    bytes_per_token: f64,
}

impl Default for Estimator {
    fn default() -> Self {
        Self { bytes_per_token: BYTES_PER_TOKEN }
    }
}

impl Estimator {
    /// Tokens of a conversation.
    pub(crate) fn messages(&self, messages: &[Message]) -> u64 {
        let bytes: usize = messages.iter().map(bytes).sum();
        (bytes as f64 / self.bytes_per_token + messages.len() as f64 * TOKENS_PER_MESSAGE).ceil() as u64
    }

    /// Learns from a request whose prompt the server counted.
    pub(crate) fn learn(&mut self, messages: &[Message], prompt_tokens: u64) {
        let bytes: usize = messages.iter().map(bytes).sum();
        let tokens = prompt_tokens as f64 - messages.len() as f64 * TOKENS_PER_MESSAGE;
        // A count far off is not a count of this prompt (Ollama 0.30.0 counted uncached tokens only; docs/model-apis.md#ollama-streaming).
        if bytes > 400 && tokens > 0.0 && (1.5..8.0).contains(&(bytes as f64 / tokens)) {
            self.bytes_per_token = bytes as f64 / tokens;
        }
    }
}

fn bytes(message: &Message) -> usize {
    message.content.len() + message.thinking.as_ref().map_or(0, String::len)
}

/// Dollars per million tokens: (prompt, cached prompt, generated).
pub(crate) type Price = (f64, f64, f64);

/// Sums over the run, and whether a limit is reached.
#[derive(Debug, Clone)]
pub(crate) struct Accountant {
    limits: Limits,
    price: Option<Price>,
    totals: Totals,
    /// Prompt and generated tokens that count against the limit: without what is known to have come from a cache.
    spent: u64,
}

impl Accountant {
    pub(crate) fn new(limits: Limits, price: Option<Price>) -> Self {
        Self { limits, price, totals: Totals { cost: price.map(|_| 0.0), ..Totals::default() }, spent: 0 }
    }

    /// Adds an answered request.
    pub(crate) fn add(&mut self, counts: &Counts, estimated_prompt: u64) {
        let prompt = counts.prompt_tokens.unwrap_or(estimated_prompt);
        let evaluated = counts.evaluated_tokens.unwrap_or(prompt);
        let generated = counts.generated_tokens.unwrap_or(0);
        // What one request leaves unknown, the sum cannot know.
        let before = if self.totals.turns == 0 { Some(0) } else { self.totals.evaluated_tokens };
        self.totals.evaluated_tokens = before.zip(counts.evaluated_tokens).map(|(sum, n)| sum + n);
        self.totals.turns += 1;
        self.totals.prompt_tokens += prompt;
        self.spent += evaluated + generated;
        self.totals.generated_tokens += generated;
        if let (Some((new, cached, out)), Some(cost)) = (self.price, &mut self.totals.cost) {
            let hit = prompt.saturating_sub(evaluated) as f64;
            *cost += (evaluated as f64 * new + hit * cached + generated as f64 * out) / 1e6;
        }
    }

    /// Adds what a cut saved, in bytes; the tokens that are.
    pub(crate) fn save(&mut self, bytes: u64) -> u64 {
        let tokens = bytes / 4;
        self.totals.saved_bytes += bytes;
        self.totals.saved_tokens += tokens;
        tokens
    }

    /// The limit that is reached, if one is, `elapsed_ms` into the run.
    pub(crate) fn reached(&self, elapsed_ms: u64) -> Option<Budget> {
        let (limits, totals) = (&self.limits, &self.totals);
        if totals.turns >= limits.turns {
            return Some(Budget::Turns);
        }
        if limits.tokens.is_some_and(|max| self.spent >= max) {
            return Some(Budget::Tokens);
        }
        if limits.seconds.is_some_and(|max| elapsed_ms >= max.saturating_mul(1000)) {
            return Some(Budget::Time);
        }
        if let (Some(max), Some(cost)) = (limits.cost, totals.cost)
            && cost >= max
        {
            return Some(Budget::Cost);
        }
        None
    }

    /// The sums, `elapsed_ms` into the run.
    pub(crate) fn totals(&self, elapsed_ms: u64) -> Totals {
        Totals { ms: elapsed_ms, ..self.totals }
    }
}

/// The sums of a session by its journal, for whoever has no run at hand.
#[must_use]
pub fn totals(records: &[Record]) -> Totals {
    let price =
        records.iter().find_map(|r| if let Event::Model(model) = &r.event { model.price } else { None });
    let mut accountant = Accountant::new(Limits::default(), price);
    let mut estimated = 0;
    for record in records {
        match &record.event {
            Event::Request { estimated_tokens, .. } => estimated = *estimated_tokens,
            Event::Output { counts, .. } => accountant.add(counts, estimated),
            Event::Refused { saved_tokens, .. } => {
                accountant.save(saved_tokens * 4);
            }
            _ => {}
        }
    }
    accountant.totals(worked_ms(records))
}

/// Milliseconds that were worked on a run, pauses between processes left out.
pub(crate) fn worked_ms(records: &[Record]) -> u64 {
    let segments = records.split(|r| matches!(r.event, Event::Resumed { .. }));
    let span = |s: &[Record]| Some(s.last()?.time_ms.saturating_sub(s.first()?.time_ms));
    segments.filter_map(span).sum()
}

/// The journal's counts from a server's usage and what we saw ourselves. `pieces` is the number of chunks with text: most servers
/// send a token in each, so it stands in for a count that a cut kept the server from giving.
pub(crate) fn counts(usage: &Usage, pieces: u64, first_token_ms: Option<u64>, total_ms: u64) -> Counts {
    let evaluated = match (usage.prompt_tokens, usage.cached_tokens) {
        (Some(all), Some(cached)) => Some(all.saturating_sub(cached)),
        _ => None,
    };
    Counts {
        prompt_tokens: usage.prompt_tokens,
        evaluated_tokens: evaluated,
        generated_tokens: Some(usage.generated_tokens.unwrap_or(pieces)),
        first_token_ms,
        total_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::Role;

    fn message(n: usize) -> Message {
        Message { role: Role::User, content: "x".repeat(n), thinking: None }
    }

    #[test]
    fn estimates_follow_the_servers_counts() {
        let mut estimator = Estimator::default();
        let messages = [message(4000)];
        estimator.learn(&messages, 2006);
        assert_eq!(estimator.messages(&messages), 2006);
    }

    #[test]
    fn a_count_of_uncached_tokens_only_does_not_spoil_the_estimate() {
        let mut estimator = Estimator::default();
        let messages = [message(4000)];
        let before = estimator.messages(&messages);
        estimator.learn(&messages, 40);
        assert_eq!(estimator.messages(&messages), before);
    }

    #[test]
    fn each_limit_is_reached_by_its_own_sum() {
        let counts = Counts {
            prompt_tokens: Some(1_000_000),
            evaluated_tokens: Some(0),
            generated_tokens: Some(10),
            ..Counts::default()
        };
        let limits = Limits { turns: 2, tokens: Some(15), seconds: Some(9), cost: Some(0.5) };
        let mut accountant = Accountant::new(limits, Some((1.0, 0.1, 2.0)));
        assert_eq!(accountant.reached(0), None);
        assert_eq!(accountant.reached(9_000), Some(Budget::Time));
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), None);
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), Some(Budget::Turns));
        let mut accountant = Accountant::new(Limits { turns: 99, ..limits }, Some((1.0, 0.6, 2.0)));
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), Some(Budget::Cost));
        let mut accountant = Accountant::new(Limits { turns: 99, cost: None, ..limits }, None);
        accountant.add(&counts, 0);
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), Some(Budget::Tokens));
        assert_eq!(accountant.totals(5).cost, None);
    }

    #[test]
    fn evaluated_tokens_are_unknown_as_soon_as_one_request_does_not_tell() {
        let told = Counts { prompt_tokens: Some(100), evaluated_tokens: Some(7), ..Counts::default() };
        let untold = Counts { evaluated_tokens: None, ..told };
        let mut accountant = Accountant::new(Limits { tokens: Some(114), ..Limits::default() }, None);
        accountant.add(&told, 0);
        accountant.add(&told, 0);
        assert_eq!(accountant.totals(0).evaluated_tokens, Some(14));
        accountant.add(&untold, 0);
        assert_eq!(accountant.totals(0).evaluated_tokens, None);
        assert_eq!(accountant.reached(0), Some(Budget::Tokens), "what is unknown is paid in full");
        accountant.add(&told, 0);
        assert_eq!(accountant.totals(0).evaluated_tokens, None);
    }
}
