//! Patches that models wrap in a shell command: `apply_patch <<'EOF'`.

/// A heredoc that a line of shell opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heredoc<'a> {
    /// The word that stands alone on the line that ends it.
    pub(crate) word: &'a str,
    /// `<<-`: tabs before its lines are not part of them.
    pub(crate) strips_tabs: bool,
}

/// The heredoc that a line opens, if it does.
pub(crate) fn heredoc(line: &str) -> Option<Heredoc<'_>> {
    let (_, rest) = line.split_once("<<")?;
    let strips_tabs = rest.starts_with('-');
    let rest = rest.strip_prefix('-').unwrap_or(rest).trim_start_matches([' ', '\t', '\\']);
    let rest = rest.trim_start_matches(['\'', '"']);
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let word = &rest[..end];
    word.starts_with(char::is_alphabetic).then_some(Heredoc { word, strips_tabs })
}
