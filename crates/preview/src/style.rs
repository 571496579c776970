//! Terminal styles, and whether to use them.

/// Terminal styles, named by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Less important text.
    Dim,
    /// Headings.
    Bold,
    /// Success, or an added line.
    Good,
    /// Failure, or a removed line.
    Bad,
    /// A warning.
    Warn,
    /// A tool call or a hint.
    Call,
    /// The words that differ in an added line.
    GoodStrong,
    /// The words that differ in a removed line.
    BadStrong,
}

impl Style {
    const fn start(self) -> &'static str {
        match self {
            Style::Dim => "\x1b[2m",
            Style::Bold => "\x1b[1m",
            Style::Good => "\x1b[32m",
            Style::Bad => "\x1b[31m",
            Style::Warn => "\x1b[33m",
            Style::Call => "\x1b[36m",
            Style::GoodStrong => "\x1b[32;7m",
            Style::BadStrong => "\x1b[31;7m",
        }
    }
}

/// Whether to apply styles to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(pub bool);

impl Paint {
    /// Returns the text, styled if color is enabled. The caller must sanitize the text.
    pub fn paint(self, style: Style, text: impl std::fmt::Display) -> String {
        if self.0 { format!("{}{text}\x1b[0m", style.start()) } else { text.to_string() }
    }

    /// Returns the sequence that starts a style, for text that is written in pieces. [`Paint::end`]
    /// ends it.
    pub fn begin(self, style: Style) -> &'static str {
        if self.0 { style.start() } else { "" }
    }

    /// Returns the sequence that ends a style.
    pub fn end(self) -> &'static str {
        if self.0 { "\x1b[0m" } else { "" }
    }
}

/// Sanitizes a unified diff and colors it.
pub fn diff(patch: &str, paint: Paint) -> String {
    let mut out = String::with_capacity(patch.len() + patch.len() / 8);
    for line in patch.split_inclusive('\n') {
        let (body, newline) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
        let clean = crate::sanitize::text(body);
        let style = match body.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] | [b'd', b'i', b'f', b'f', ..] => {
                Some(Style::Bold)
            }
            [b'+', ..] => Some(Style::Good),
            [b'-', ..] => Some(Style::Bad),
            [b'@', ..] => Some(Style::Call),
            _ => None,
        };
        out += &style.map_or_else(|| clean.to_string(), |style| paint.paint(style, &clean));
        out.push_str(newline);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_colored_and_its_text_cannot_add_colors() {
        let patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+\x1b[32mnew\n";
        assert_eq!(diff(patch, Paint(false)), "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+␛[32mnew\n");
        assert_eq!(
            diff("-a\n b", Paint(true)),
            "\x1b[31m-a\x1b[0m\n b",
            "a missing last newline stays missing"
        );
    }
}
