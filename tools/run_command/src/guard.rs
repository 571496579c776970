//! Commands that are refused by rule, because what they destroy cannot be brought back.

/// Judges a shell line; `Err` is a sentence for the model.
pub(crate) fn check(line: &str) -> Result<(), String> {
    if line.trim().is_empty() {
        return Err("\"command\" is empty".into());
    }
    Ok(())
}
