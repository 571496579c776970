//! What DeepSeek's platform charges.

/// When the table was taken from the vendor's price page.
pub const PRICES_AS_OF: &str = "2026-09";

/// Dollars per million tokens: prompt, cached prompt, generated. The peak rates, since a budget must hold at any hour; outside peak hours
/// half of it is charged.
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
