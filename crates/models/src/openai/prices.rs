//! Prices of DeepSeek's platform.

/// Dollars per million tokens: prompt, cached prompt, generated. As of 2026-09
/// (docs/model-apis.md#deepseek-models). These are peak rates, because a budget must hold at any
/// hour; off-peak rates are half.
const DEEPSEEK: [(&str, (f64, f64, f64)); 3] = [
    ("deepseek-flash", (0.30, 0.006, 1.20)),
    ("deepseek-v4-flash", (0.30, 0.006, 1.20)), // an alias
    ("deepseek-v4-pro", (1.32, 0.044, 3.96)),
];

/// The price of a model on DeepSeek's platform; `None` for names that are not in the table.
#[must_use]
pub fn price(model: &str) -> Option<(f64, f64, f64)> {
    DEEPSEEK.iter().find(|(name, _)| *name == model).map(|(_, price)| *price)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Usage;
    use crate::replay::Replay;

    #[test]
    fn cached_tokens_are_cheaper_and_unknown_prices_stay_unknown() {
        let mut identity = Replay::identity_named("m");
        let usage = |cached| Usage {
            prompt_tokens: Some(1_000_000),
            cached_tokens: cached,
            generated_tokens: Some(1_000_000),
            ..Usage::default()
        };
        assert_eq!(identity.cost(&usage(None)), None);
        identity.price = price("deepseek-flash");
        assert_eq!(identity.cost(&usage(None)), Some(1.5));
        assert_eq!(identity.cost(&usage(Some(1_000_000))), Some(1.206));
        assert_eq!(identity.cost(&Usage::default()), None);
        assert_eq!(price("gpt"), None);
    }
}
