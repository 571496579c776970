//! Commands that consist only of a patch: `apply_patch 'PATCH'`, `apply_patch <<'EOF'`, and either
//! one inside `bash -lc`.
//!
//! Models that were trained with an agent whose shell has an `apply_patch` program send their
//! patches this way. This module accepts only text that the shell would pass on unchanged.
//! `sandbox::guard` refuses every other use of the program before anything runs.

/// Returns the patch that a command consists of; `None` for any other command.
pub(crate) fn read(line: &str) -> Option<String> {
    let (program, rest) = word(line.trim())?;
    let patch = match program.as_str() {
        "apply_patch" | "applypatch" => match rest.strip_prefix("<<") {
            Some(rest) => document(rest)?,
            None => only(rest)?,
        },
        "sh" | "bash" | "zsh" | "/bin/sh" | "/bin/bash" | "/usr/bin/bash" => {
            let (option, rest) = word(rest)?;
            let letters = option.strip_prefix('-').filter(|letters| letters.ends_with('c'))?;
            return letters.chars().all(|c| "lc".contains(c)).then(|| read(&only(rest)?))?;
        }
        _ => return None,
    };
    patch.trim_start().starts_with("*** Begin Patch").then_some(patch)
}

/// Returns the only word in the text; `None` if there are several, or if the shell would change the
/// word.
fn only(text: &str) -> Option<String> {
    word(text).filter(|(_, rest)| rest.trim().is_empty()).map(|(word, _)| word)
}

/// Returns the first word and the text after the blanks that follow it; `None` if the shell would
/// change the word.
fn word(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            ' ' | '\t' => return Some((out, rest.trim_start_matches([' ', '\t']))),
            '\'' => {
                let (quoted, after) = rest.split_once('\'')?;
                out.push_str(quoted);
                rest = after;
            }
            '"' => rest = double_quoted(rest, &mut out)?,
            '\\' => {
                let escaped = rest.chars().next().filter(|c| *c != '\n')?;
                out.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
            c if c.is_alphanumeric() || "_-./,:@%+".contains(c) => out.push(c),
            _ => return None,
        }
    }
    (!text.is_empty()).then_some((out, rest))
}

/// Appends the text before the closing quote to `out` and returns the text after it; `None` if
/// the shell would substitute anything.
fn double_quoted<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return text.get(at + 1..),
            '$' | '`' => return None,
            '\\' => match chars.next()?.1 {
                '\n' => {}
                c @ ('$' | '`' | '"' | '\\') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    None
}

/// Returns the lines of a heredoc. `text` starts after `<<`. Returns `None` if the first line
/// contains more than the delimiter, if the shell would change the lines, or if anything follows
/// the heredoc.
fn document(text: &str) -> Option<String> {
    let (strips_tabs, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (opener, body) = text.split_once('\n')?;
    let opener = opener.trim();
    let end = only(opener)?;
    let mut out = String::new();
    let mut lines = body.split_inclusive('\n');
    let closed = lines.by_ref().any(|line| {
        let line = if strips_tabs { line.trim_start_matches('\t') } else { line };
        let ends = line.trim_end_matches('\n') == end;
        if !ends {
            out.push_str(line);
        }
        ends
    });
    // In an unquoted heredoc, the shell expands variables and commands.
    let literal = opener != end || !out.contains(['$', '`', '\\']);
    (closed && literal && lines.all(|line| line.trim().is_empty())).then_some(out)
}
