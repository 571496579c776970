//! Wraps text in a Markdown code fence that the text cannot close.

/// Wraps `text` in a code fence with the info string `info`.
pub(crate) fn fenced(info: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.ends_with('\n') { "" } else { "\n" };
    format!("{fence}{info}\n{text}{end}{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_close_its_fence() {
        assert_eq!(fenced("rs", "a"), "```rs\na\n```\n");
        assert_eq!(fenced("", "```\nb\n````\n"), "`````\n```\nb\n````\n`````\n");
    }
}
