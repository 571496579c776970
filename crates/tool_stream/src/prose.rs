//! Whether an object stands in prose as an example rather than as a call.
//!
//! Judged by what stands before it alone, because a call is acted on at its closing brace: words that offer an example
//! in the same sentence, a quote, a bracket or an equals sign directly before the brace, or a quoted line (`> `).

/// Words that make what follows them in the sentence an example.
const CUES: [&str; 34] = [
    "for example",
    "for instance",
    "e.g.",
    "eg.",
    "example:",
    "example call",
    "example of",
    "an example",
    "as an example",
    "example tool",
    "example usage",
    "example object",
    "example format",
    "such as",
    "looks like",
    "look like",
    "looking like",
    "of the form",
    "in the form",
    "the format is",
    "in the format",
    "this format",
    "the format:",
    "the syntax",
    "something like",
    "instead of",
    "rather than",
    "would write",
    "would be written",
    "would have to write",
    "could write",
    "could send",
    "do not send",
    "don't send",
];

/// Bytes of text before an object that are looked at.
pub(crate) const REACH: usize = 240;

/// True if the text before an object makes it an example. `same_line`: the object does not begin its line.
pub(crate) fn is_example(before: &[u8], same_line: bool) -> bool {
    let tail = String::from_utf8_lossy(&before[before.len().saturating_sub(REACH)..]).to_lowercase();
    let line_start = tail.rfind('\n').map_or(0, |i| i + 1);
    if same_line {
        let line = &tail[line_start..];
        if line.trim_start().starts_with('>') {
            return true;
        }
        match line.chars().next_back() {
            Some('"' | '\'' | '(' | '“' | '‘' | '`') => return true,
            _ if line.trim_end().ends_with('=') => return true,
            _ => {}
        }
    }
    // The sentence that leads to the object: the last one of its line or, where it begins a line, of the last line
    // before it, which then must point forward.
    let text = tail.trim_end();
    let line = text.rsplit('\n').next().unwrap_or(text);
    let leads_on = line.trim_end_matches(['*', '_']).ends_with(':');
    if !(same_line || leads_on) {
        return false;
    }
    let sentence = last_sentence(line);
    CUES.iter().any(|cue| contains_words(sentence, cue))
}

fn contains_words(text: &str, cue: &str) -> bool {
    text.match_indices(cue).any(|(i, _)| !text[..i].ends_with(char::is_alphanumeric))
}

/// What stands behind the last full stop, question or exclamation mark followed by a space.
fn last_sentence(line: &str) -> &str {
    let mut start = 0;
    for (i, c) in line.char_indices() {
        let ends = matches!(c, '.' | '!' | '?' | ';')
            && line[i + c.len_utf8()..].starts_with(' ')
            && !line[..i].ends_with("e.g")
            && !line[..i].ends_with("i.e")
            && !line[..i].ends_with("eg");
        if ends {
            start = i + c.len_utf8();
        }
    }
    &line[start..]
}
