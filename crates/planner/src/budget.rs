//! Adds up the turns, tokens, time and dollars that a run uses, and compares them with the limits.
//! Estimates token counts, and calibrates the estimates with the server's counts. This module works
//! only with numbers and does not read the clock.

use journal::{Budget, Counts, Date, Event, ModelInfo, ModelTotals, Record, Totals};
use models::{Message, Usage};
use std::borrow::Borrow;

use crate::settings::Limits;

/// The assumed number of bytes per token in code and English, used until a server reports a count.
/// It is deliberately low, so that token counts are overestimated rather than underestimated: with
/// a DeepSeek vocabulary, bytes ÷ 4 underestimates JSON and dense code by up to half.
const BYTES_PER_TOKEN: f64 = 3.4;
/// The number of tokens that a chat template adds to each message.
const TOKENS_PER_MESSAGE: f64 = 6.0;
/// The assumed number of tokens per image. This is a guess: an image takes a few hundred to a few
/// thousand tokens, depending on the model and the size of the image.
const TOKENS_PER_IMAGE: f64 = 1_000.0;

/// Estimates the number of tokens in this many bytes of prompt text.
#[must_use]
pub fn estimated_tokens(bytes: usize) -> u64 {
    (bytes as f64 / BYTES_PER_TOKEN).ceil() as u64
}

/// Estimates prompt tokens, and learns from the server's counts.
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
    /// Estimates the number of tokens in a conversation.
    pub(crate) fn messages(&self, messages: &[impl Borrow<Message>]) -> u64 {
        let bytes: usize = messages.iter().map(bytes).sum();
        (bytes as f64 / self.bytes_per_token + fixed(messages)).ceil() as u64
    }

    /// Learns from a request whose prompt the server counted.
    pub(crate) fn learn(&mut self, messages: &[impl Borrow<Message>], prompt_tokens: u64) {
        let bytes: usize = messages.iter().map(bytes).sum();
        let tokens = prompt_tokens as f64 - fixed(messages);
        // Ignore implausible counts. Ollama 0.30.0 counted only uncached tokens
        // (docs/model-apis.md#ollama-streaming).
        if bytes > 400 && tokens > 0.0 && (1.5..8.0).contains(&(bytes as f64 / tokens)) {
            self.bytes_per_token = bytes as f64 / tokens;
        }
    }
}

/// Estimates the tokens that do not depend on the length of the text.
fn fixed(messages: &[impl Borrow<Message>]) -> f64 {
    let images: usize = messages.iter().map(|message| message.borrow().images.len()).sum();
    messages.len() as f64 * TOKENS_PER_MESSAGE + images as f64 * TOKENS_PER_IMAGE
}

fn bytes(message: &impl Borrow<Message>) -> usize {
    let message = message.borrow();
    message.content.len() + message.thinking.as_ref().map_or(0, String::len)
}

/// What tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Price {
    /// Dollars per million tokens: (prompt, cached prompt, generated).
    rates: (f64, f64, f64),
    /// The multiplier for the rates at peak times.
    peak_factor: f64,
    of: Option<Date>,
}

impl Price {
    pub(crate) fn new(price: &models::Price) -> Self {
        Self { rates: price.rates, peak_factor: price.peak_factor().unwrap_or(1.0), of: price.as_of }
    }

    fn recorded(model: &ModelInfo) -> Option<Self> {
        let rates = model.price?;
        Some(Self { rates, peak_factor: model.peak_factor.unwrap_or(1.0), of: model.prices_of })
    }
}

/// Adds up the usage of a session, and compares it with the limits.
#[derive(Debug, Clone)]
pub(crate) struct Accountant {
    limits: Limits,
    price: Option<Price>,
    /// Whether the last request was sent at a peak time.
    peak: bool,
    totals: Totals,
    /// The totals for each model, in order of use. The last entry is for the current model.
    models: Vec<ModelTotals>,
    /// Whether the usage of any request has been added.
    counted: bool,
    /// The prompt and generated tokens that count toward the limit: all except those known to have
    /// come from a cache.
    spent: u64,
    /// The turns, tokens and dollars that had been used when the limits were last reset: at the
    /// start, at the user's last message, or at the start of a try with another model.
    since: (u32, u64, f64),
}

impl Accountant {
    pub(crate) fn new(limits: Limits, price: Option<Price>) -> Self {
        let mut accountant = Self {
            limits,
            price: None,
            peak: false,
            totals: Totals::default(),
            models: Vec::new(),
            counted: false,
            spent: 0,
            since: (0, 0, 0.0),
        };
        accountant.set_price(price);
        accountant
    }

    /// Adds up the usage recorded in a journal. `price` is the current model's price, which applies
    /// from now on.
    pub(crate) fn of(records: &[Record], limits: Limits, price: Option<Price>) -> Self {
        // Earlier versions did not record the price, so their sessions get the current price.
        let mut accountant = Self::new(limits, price);
        let mut estimated = 0;
        for record in records {
            match &record.event {
                Event::Request { estimated_tokens, peak, .. } => {
                    estimated = *estimated_tokens;
                    accountant.sends(*peak);
                }
                Event::Output { counts, .. } => accountant.add(counts, estimated),
                Event::AnswerLost { counts, .. } => accountant.spend(counts, estimated),
                Event::Refused { saved_tokens, .. } => {
                    accountant.save(saved_tokens * 4);
                }
                Event::Model(model) => accountant.start_model(model),
                Event::ModelChanged { model, new_try, .. } => {
                    accountant.start_model(model);
                    if *new_try {
                        accountant.renew();
                    }
                }
                Event::UserMessage { .. } => accountant.renew(),
                _ => {}
            }
        }
        accountant.set_price(price);
        accountant
    }

    /// Starts new totals for a model. Subsequent usage is added to these totals.
    pub(crate) fn start_model(&mut self, info: &ModelInfo) {
        let first = self.models.is_empty();
        let price = Price::recorded(info);
        self.set_price(if first { price.or(self.price) } else { price });
        self.models.push(ModelTotals {
            server: info.server.clone(),
            model: info.model.clone(),
            role: info.role,
            turns: 0,
            prompt_tokens: 0,
            generated_tokens: 0,
            cost: self.price.map(|_| 0.0),
        });
    }

    fn set_price(&mut self, price: Option<Price>) {
        self.price = price;
        if let Some(price) = price {
            self.totals.cost.get_or_insert_default();
            self.totals.prices_of = [self.totals.prices_of, price.of].into_iter().flatten().min();
        }
    }

    /// Returns the totals for each model, or an empty list if only one model was used.
    pub(crate) fn models(&self) -> Vec<ModelTotals> {
        let used = |model: &&ModelTotals| model.prompt_tokens + model.generated_tokens > 0;
        let used: Vec<_> = self.models.iter().filter(used).cloned().collect();
        if used.len() > 1 { used } else { Vec::new() }
    }

    /// Resets the limits, so that they apply only to subsequent usage.
    pub(crate) fn renew(&mut self) {
        self.since = (self.totals.turns, self.spent, self.totals.cost.unwrap_or_default());
    }

    /// Sets whether the next request is sent at a peak time.
    pub(crate) fn sends(&mut self, peak: bool) {
        self.peak = peak;
    }

    /// Adds the usage of an answered request.
    pub(crate) fn add(&mut self, counts: &Counts, estimated_prompt: u64) {
        self.totals.turns += 1;
        if let Some(model) = self.models.last_mut() {
            model.turns += 1;
        }
        self.spend(counts, estimated_prompt);
    }

    /// Adds the tokens and the cost of a request, answered or not.
    pub(crate) fn spend(&mut self, counts: &Counts, estimated_prompt: u64) {
        let prompt = counts.prompt_tokens.unwrap_or(estimated_prompt);
        let evaluated = counts.evaluated_tokens.unwrap_or(prompt);
        let generated = counts.generated_tokens.unwrap_or(0);
        // If the server does not report the evaluated tokens of a request, the total is unknown
        // from then on.
        let before = if self.counted { self.totals.evaluated_tokens } else { Some(0) };
        self.counted = true;
        self.totals.evaluated_tokens = before.zip(counts.evaluated_tokens).map(|(sum, n)| sum + n);
        self.totals.prompt_tokens += prompt;
        self.spent += evaluated + generated;
        self.totals.generated_tokens += generated;
        let dollars = self.price.map(|Price { rates: (new, cached, out), peak_factor, .. }| {
            let hit = prompt.saturating_sub(evaluated) as f64;
            let factor = if self.peak { peak_factor } else { 1.0 };
            (evaluated as f64 * new + hit * cached + generated as f64 * out) / 1e6 * factor
        });
        let add = |cost: &mut Option<f64>| *cost = cost.zip(dollars).map(|(sum, more)| sum + more).or(*cost);
        add(&mut self.totals.cost);
        if let Some(model) = self.models.last_mut() {
            model.prompt_tokens += prompt;
            model.generated_tokens += generated;
            add(&mut model.cost);
        }
    }

    /// Adds the bytes that were saved by cutting an answer short, and returns the approximate
    /// number of tokens that they represent.
    pub(crate) fn save(&mut self, bytes: u64) -> u64 {
        let tokens = bytes / 4;
        self.totals.saved_bytes += bytes;
        self.totals.saved_tokens += tokens;
        tokens
    }

    /// Returns the limit that has been reached, if any. `elapsed_ms` is the time since the limits
    /// were last reset.
    pub(crate) fn reached(&self, elapsed_ms: u64) -> Option<Budget> {
        let (limits, totals) = (&self.limits, &self.totals);
        let (turns, spent, dollars) = self.since;
        if totals.turns - turns >= limits.turns {
            return Some(Budget::Turns);
        }
        if limits.tokens.is_some_and(|max| self.spent - spent >= max) {
            return Some(Budget::Tokens);
        }
        if limits.seconds.is_some_and(|max| elapsed_ms >= max.saturating_mul(1000)) {
            return Some(Budget::Time);
        }
        if let (Some(max), Some(cost)) = (limits.cost, totals.cost)
            && cost - dollars >= max
        {
            return Some(Budget::Cost);
        }
        None
    }

    /// Returns the totals so far. `elapsed_ms` is the time spent working on the session.
    pub(crate) fn totals(&self, elapsed_ms: u64) -> Totals {
        Totals { ms: elapsed_ms, ..self.totals }
    }
}

/// Computes a session's totals (turns, tokens, cost, time) and the usage of each model from the
/// session's journal.
#[must_use]
pub fn totals(records: &[Record]) -> (Totals, Vec<ModelTotals>) {
    let accountant = Accountant::of(records, Limits::default(), None);
    (accountant.totals(worked_ms(records)), accountant.models())
}

/// Returns the time spent working on a run, in milliseconds. Does not include the time between an
/// interruption and the resumption of the run.
pub(crate) fn worked_ms(records: &[Record]) -> u64 {
    let segments = records.split(|r| matches!(r.event, Event::Resumed { .. }));
    let span = |s: &[Record]| Some(s.last()?.time_ms.saturating_sub(s.first()?.time_ms));
    segments.filter_map(span).sum()
}

/// Combines the usage that the server reported for an answer with the times measured here. `pieces`
/// is the number of chunks with text. It stands in for the number of generated tokens if the server
/// did not report that number, for example because the answer was cut off. Most servers send one
/// token per chunk.
pub(crate) fn counts(usage: &Usage, pieces: u64, first_token_ms: Option<u64>, total_ms: u64) -> Counts {
    let cached = usage.prompt_tokens.zip(usage.cached_tokens);
    Counts {
        prompt_tokens: usage.prompt_tokens,
        evaluated_tokens: cached.map(|(all, cached)| all.saturating_sub(cached)),
        generated_tokens: Some(usage.generated_tokens.unwrap_or(pieces)),
        first_token_ms,
        total_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use models::Role;

    fn price(new: f64, cached: f64, out: f64) -> Option<Price> {
        Some(Price::new(&(new, cached, out).into()))
    }

    fn message(n: usize) -> Message {
        Message::new(Role::User, "x".repeat(n))
    }

    #[test]
    fn estimates_follow_the_servers_counts() {
        let mut estimator = Estimator::default();
        let messages = [message(4000)];
        estimator.learn(&messages, 2006);
        assert_eq!(estimator.messages(&messages), 2006);
    }

    #[test]
    fn a_count_of_only_uncached_tokens_does_not_change_the_estimate() {
        let mut estimator = Estimator::default();
        let messages = [message(4000)];
        let before = estimator.messages(&messages);
        estimator.learn(&messages, 40);
        assert_eq!(estimator.messages(&messages), before);
    }

    #[test]
    fn each_limit_is_compared_with_its_own_sum() {
        let counts = Counts {
            prompt_tokens: Some(1_000_000),
            evaluated_tokens: Some(0),
            generated_tokens: Some(10),
            ..Counts::default()
        };
        let limits = Limits { turns: 2, tokens: Some(15), seconds: Some(9), cost: Some(0.5) };
        let mut accountant = Accountant::new(limits, price(1.0, 0.1, 2.0));
        assert_eq!(accountant.reached(0), None);
        assert_eq!(accountant.reached(9_000), Some(Budget::Time));
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), None);
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), Some(Budget::Turns));
        let mut accountant = Accountant::new(Limits { turns: 99, ..limits }, price(1.0, 0.6, 2.0));
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), Some(Budget::Cost));
        let mut accountant = Accountant::new(Limits { turns: 99, cost: None, ..limits }, None);
        accountant.add(&counts, 0);
        accountant.add(&counts, 0);
        assert_eq!(accountant.reached(0), Some(Budget::Tokens));
        assert_eq!(accountant.totals(5).cost, None);
    }

    #[test]
    fn each_model_has_its_own_sums_and_price_and_a_new_try_restarts_the_limits() {
        let model = |name: &str, price| ModelInfo {
            server: "s".into(),
            server_version: None,
            model: name.into(),
            window: None,
            thinking: false,
            approach: "tools".into(),
            why: String::new(),
            family: None,
            parameters_b: None,
            local: None,
            price,
            peak_factor: None,
            prices_of: None,
            edit_format: None,
            constrained: false,
            role: None,
        };
        let counts =
            Counts { prompt_tokens: Some(1_000_000), generated_tokens: Some(10), ..Counts::default() };
        let mut accountant = Accountant::new(Limits { turns: 1, ..Limits::default() }, None);
        accountant.start_model(&model("small", None));
        accountant.add(&counts, 0);
        assert_eq!((accountant.reached(0), accountant.models()), (Some(Budget::Turns), vec![]));
        accountant.start_model(&model("large", Some((1.0, 0.1, 0.0))));
        accountant.renew();
        assert_eq!(accountant.reached(0), None);
        accountant.add(&counts, 0);
        let sums = accountant.models().into_iter().map(|m| (m.model, m.turns, m.prompt_tokens, m.cost));
        let wanted = [("small".into(), 1, 1_000_000, None), ("large".into(), 1, 1_000_000, Some(1.0))];
        assert_eq!(sums.collect::<Vec<_>>(), wanted);
        assert_eq!((accountant.totals(0).turns, accountant.totals(0).cost), (2, Some(1.0)));
    }

    #[test]
    fn a_request_has_the_price_of_the_time_at_which_it_is_sent() {
        // Prompt tokens, how many of them were cached, and generated tokens.
        let million = (2_000_000, 1_000_000, 1_000_000);
        for (sent, model, (prompt, cached, generated), cost) in [
            ("2026-11-16T00:59:59Z", "deepseek-flash", million, 0.753),
            ("2026-11-16T01:00:00Z", "deepseek-flash", million, 1.506),
            ("2026-11-16T12:00:00Z", "deepseek-v4-pro", million, 2.662),
            ("2026-11-16T09:59:59Z", "deepseek-v4-pro", million, 5.324),
            ("2026-11-21T02:00:00Z", "deepseek-v4-flash", (1_000_000, 0, 0), 0.15), // a Saturday
            ("2026-10-01T02:00:00Z", "deepseek-v4-flash", (1_000_000, 0, 0), 0.15), // a holiday
            ("2028-10-02T02:00:00Z", "deepseek-v4-flash", (1_000_000, 0, 0), 0.30), // unknown holidays
        ] {
            let at: jiff::Timestamp = sent.parse().unwrap();
            let known = models::price::Prices::default().find("deepseek", model).unwrap().price;
            let mut accountant = Accountant::new(Limits::default(), Some(Price::new(&known)));
            accountant.sends(known.is_peak(at.into()));
            let usage = Counts {
                prompt_tokens: Some(prompt),
                evaluated_tokens: Some(prompt - cached),
                generated_tokens: Some(generated),
                ..Counts::default()
            };
            accountant.add(&usage, 0);
            let Totals { cost: came, prices_of, .. } = accountant.totals(0);
            assert!((came.unwrap() - cost).abs() < 1e-9, "{sent} {model}: {came:?}");
            assert_eq!(prices_of.unwrap().to_string(), "2026-11-15");
        }
    }

    #[test]
    fn the_sum_of_evaluated_tokens_is_unknown_once_one_count_is_missing() {
        let reported = Counts { prompt_tokens: Some(100), evaluated_tokens: Some(7), ..Counts::default() };
        let unreported = Counts { evaluated_tokens: None, ..reported };
        let mut accountant = Accountant::new(Limits { tokens: Some(114), ..Limits::default() }, None);
        accountant.add(&reported, 0);
        accountant.add(&reported, 0);
        assert_eq!(accountant.totals(0).evaluated_tokens, Some(14));
        accountant.add(&unreported, 0);
        assert_eq!(accountant.totals(0).evaluated_tokens, None);
        assert_eq!(accountant.reached(0), Some(Budget::Tokens), "without a report, the whole prompt counts");
        accountant.add(&reported, 0);
        assert_eq!(accountant.totals(0).evaluated_tokens, None);
    }
}
