//! Chooses the next token from the logits.

use llama_cpp_2::token::LlamaToken;

/// The temperature to use if the request does not set one. It is low, because there are few ways to
/// write correct code.
const TEMPERATURE: f32 = 0.2;
/// How many of the likeliest tokens are considered. This limit and the two below are llama.cpp's
/// defaults.
const TOP_K: usize = 40;
/// Tokens are considered, likeliest first, until their total probability reaches this value.
const TOP_P: f32 = 0.95;
/// The lowest probability at which a token is considered, as a fraction of the likeliest token's
/// probability.
const MIN_P: f32 = 0.05;

/// A sampled token and its alternatives.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    /// The token.
    pub(crate) token: LlamaToken,
    /// The alternatives with their log probabilities, likeliest first.
    pub(crate) others: Vec<(LlamaToken, f32)>,
}

/// Samples the tokens of one answer.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    temperature: f32,
    random: fastrand::Rng,
    alternatives: usize,
}

impl Sampler {
    pub(crate) fn new(temperature: Option<f32>, seed: Option<u64>, alternatives: u8) -> Self {
        Self {
            temperature: temperature.unwrap_or(TEMPERATURE),
            random: seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            alternatives: usize::from(alternatives),
        }
    }

    /// Chooses the next token: the likeliest one at temperature 0, otherwise one drawn at random
    /// from the likeliest.
    pub(crate) fn choose(&mut self, logits: &[f32]) -> Choice {
        let count = if self.temperature > 0.0 { TOP_K } else { 1 }.max(self.alternatives + 1);
        let best = likeliest(logits, count);
        let chosen = if self.temperature > 0.0 { self.draw(&best) } else { 0 };
        let Some(&(token, _)) = best.get(chosen) else {
            return Choice { token: LlamaToken(0), others: Vec::new() };
        };
        let mut others = Vec::new();
        if self.alternatives > 0 {
            let total = log_sum(logits, best[0].1);
            let rest = best.iter().enumerate().filter(|(at, _)| *at != chosen);
            others.extend(
                rest.take(self.alternatives).map(|(_, (id, logit))| (LlamaToken(*id), logit - total)),
            );
        }
        Choice { token: LlamaToken(token), others }
    }

    /// Draws an index into `best`, which is sorted by decreasing logit.
    fn draw(&mut self, best: &[(i32, f32)]) -> usize {
        let Some(&(_, top)) = best.first() else { return 0 };
        // As in llama.cpp, the limits apply to the probabilities before the temperature is applied.
        let mut weights: Vec<f32> = best.iter().map(|(_, logit)| (logit - top).exp()).collect();
        let total: f32 = weights.iter().sum();
        let mut sum = 0.0;
        let enough = weights.iter().position(|weight| {
            sum += weight / total;
            sum >= TOP_P
        });
        let likely = weights.iter().take_while(|weight| **weight >= MIN_P).count();
        weights.truncate(enough.map_or(weights.len(), |at| at + 1).min(likely).max(1));
        for (weight, (_, logit)) in weights.iter_mut().zip(best) {
            *weight = ((logit - top) / self.temperature).exp();
        }
        let mut left = self.random.f32() * weights.iter().sum::<f32>();
        weights
            .iter()
            .position(|weight| {
                left -= weight;
                left <= 0.0
            })
            .unwrap_or(0)
    }
}

/// Returns the `count` largest logits with their indices, largest first. NaNs are left out.
fn likeliest(logits: &[f32], count: usize) -> Vec<(i32, f32)> {
    let mut best: Vec<(i32, f32)> = Vec::with_capacity(count + 1);
    let mut least = f32::NEG_INFINITY;
    for (id, &logit) in (0..).zip(logits) {
        if logit > least {
            let at = best.partition_point(|(_, other)| *other >= logit);
            best.insert(at, (id, logit));
            best.truncate(count);
            if best.len() == count {
                least = best[count - 1].1;
            }
        }
    }
    best
}

/// Returns the log-sum-exp of the logits. `top` is the largest logit.
fn log_sum(logits: &[f32], top: f32) -> f32 {
    top + logits.iter().map(|logit| (logit - top).exp()).sum::<f32>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_zero_chooses_the_likeliest_token_and_reports_the_next_likeliest() {
        let mut sampler = Sampler::new(Some(0.0), None, 2);
        let choice = sampler.choose(&[0.0, 2.0, f32::NAN, 1.0, 2.0]);
        assert_eq!(choice.token, LlamaToken(1));
        let ids: Vec<i32> = choice.others.iter().map(|(token, _)| token.0).collect();
        assert_eq!(ids, [4, 3]);
    }

    #[test]
    fn log_probabilities_are_normalized_over_the_whole_vocabulary() {
        let logits = [1.0_f32.ln(), 2.0_f32.ln(), 5.0_f32.ln()];
        let choice = Sampler::new(Some(0.0), None, 1).choose(&logits);
        let (token, logprob) = choice.others[0];
        assert_eq!(token, LlamaToken(1));
        assert!((logprob - 0.25_f32.ln()).abs() < 1e-5, "{logprob}");
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens_and_only_likely_ones() {
        let logits: Vec<f32> = (0..1000).map(|id| if id < 3 { 3.0 } else { -5.0 }).collect();
        let draw = |seed| {
            let mut sampler = Sampler::new(Some(1.0), Some(seed), 0);
            (0..50).map(|_| sampler.choose(&logits).token.0).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!(draw(7).iter().all(|id| *id < 3));
        assert_eq!([0, 1, 2].map(|id| draw(7).contains(&id)), [true; 3]);
    }

    #[test]
    fn an_empty_vocabulary_does_not_panic() {
        assert_eq!(Sampler::new(Some(1.0), Some(1), 1).choose(&[]).others, []);
    }
}
