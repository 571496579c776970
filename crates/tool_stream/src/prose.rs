//! Whether an object stands in prose as an example rather than as a call.
//!
//! Judged by what stands before it alone, because a call is acted on at its closing brace: words that offer an example
//! in the same sentence, a quote, a bracket or an equals sign directly before the brace, or a quoted line (`> `, `12|`).

/// Words that make what follows them in the sentence an example, or say that it is not being sent.
const CUES: [&str; 143] = [
    "i executed",
    "i ran",
    "i have run",
    "history of",
    "for example",
    "for instance",
    "e.g.",
    "eg.",
    "example:",
    "example call",
    "example of",
    "example tool",
    "example usage",
    "example object",
    "example format",
    "an example",
    "as an example",
    "such as",
    "looks like",
    "look like",
    "looking like",
    "looked like",
    "of the form",
    "in the form",
    "the format is",
    "in the format",
    "this format",
    "the format:",
    "the syntax",
    "the schema",
    "something like",
    "instead of",
    "rather than",
    "would write",
    "would be written",
    "could write",
    "could call",
    "could use",
    "could send",
    "might call",
    "might use",
    "might send",
    "you could",
    "you would",
    "you might",
    "one can",
    "one could",
    "one would",
    "if i wanted",
    "do not send",
    "don't send",
    "do not call",
    "don't call",
    "not calling",
    "never send",
    "call would be",
    "object would be",
    "you can use",
    "you can call",
    "you can send",
    "you can write",
    "you may use",
    "you may call",
    "zum beispiel",
    "z. b.",
    "z.b.",
    "por ejemplo",
    "par exemple",
    "例如",
    "比如",
    "例えば",
    "например",
    "the model writes",
    "the model wrote",
    "the model returns",
    "the model returned",
    "the model sent",
    "the model sends",
    "the model answers",
    "the model outputs",
    "the model output",
    "the model emits",
    "the model emitted",
    "the model produced",
    "the model generated",
    "convention it writes",
    "agent sent",
    "agent ran",
    "it sent",
    "earlier i",
    "previously i",
    "i previously",
    "i already ran",
    "i already sent",
    "will not run",
    "will not send",
    "will not call",
    "will not use",
    "won't run",
    "won't send",
    "won't call",
    "won't use",
    "yourself, send",
    "format was",
    "format is:",
    "format looks",
    "in this format",
    "actual behavior",
    "raw output",
    "has to write",
    "have to write",
    "should be written",
    "call format",
    "request body",
    "response body",
    "expects:",
    "contains:",
    "you wrote",
    "you sent",
    "previous call",
    "earlier call",
    "run this yourself",
    "yourself:",
    "must not be",
    "executed the following",
    "history of",
    "is an object",
    "never execute",
    "never run",
    "imagine",
    "suppose",
    "call failed",
    "already executed",
    "格式如下",
    "不要",
    "たとえば",
    "예를 들어",
    "por exemplo",
    "ad esempio",
    "got:",
    "expected:",
    "agent that emits",
    "how a call looks",
];

/// Words that say so where they begin the sentence that the object stands in: a condition, or a
/// question.
const OPENINGS: [&str; 6] =
    ["if ", "should i ", "shall i ", "do you want me to ", "would you like me to ", "option "];

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
        if is_of_a_file(line) || is_of_a_record(line) {
            return true;
        }
        if ["output:", "input:", "data:", "before:"].contains(&line.trim()) {
            return true;
        }
        match line.chars().next_back() {
            Some('"' | '\'' | '(' | '“' | '‘' | '`') => return true,
            // Behind `{{` and `{%` of a template as well.
            _ if line.trim_end().ends_with(['=', '{', '%']) => return true,
            _ => {}
        }
    }
    // The sentence that leads to the object: on its own line, or, where it begins a line, the one before it if that
    // has not come to its end.
    let line = if same_line {
        &tail[line_start..]
    } else {
        let text = tail.trim_end();
        // ReAct's first line says nothing of the call.
        let text = match text.rsplit_once('\n') {
            Some((above, last)) if last.trim_start().starts_with("thought:") => above.trim_end(),
            _ => text,
        };
        let line = text.rsplit('\n').next().unwrap_or(text).trim_end_matches(['*', '_', ' ']);
        if line.ends_with(['.', '!', '?']) {
            return false;
        }
        // What an example before this one was is not said again.
        line.rsplit('}').next().unwrap_or(line)
    };
    let sentence = last_sentence(line);
    let opening = sentence.trim_start_matches(|c: char| !c.is_alphanumeric());
    same_line && OPENINGS.iter().any(|cue| opening.starts_with(cue))
        || CUES.iter().any(|cue| contains_words(sentence, cue))
}

/// `12|` and `src/a.rs:12:`, as lines of a file are shown: what stands behind is repeated, not said.
fn is_of_a_file(line: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let line = line.trim();
    line.strip_suffix('|').is_some_and(number)
        || line
            .strip_suffix(':')
            .and_then(|l| l.rsplit_once(':'))
            .is_some_and(|(path, n)| !path.is_empty() && number(n))
}

/// Words that stand before a call as its label, where they are all that stands there.
const LABELS: [&str; 9] = [
    "json",
    "tool",
    "tool call",
    "tool_call",
    "call",
    "action",
    "function call",
    "assistant",
    "calling tool",
];

/// A sentence that has not come to its end and does not announce anything: the object is a word in it.
pub(crate) fn is_mid_sentence(before: &[u8]) -> bool {
    let line = before.rsplit(|b| *b == b'\n').next().unwrap_or(before);
    let line = String::from_utf8_lossy(line).to_lowercase();
    let said = line.trim_end();
    let goes_on = said.ends_with(|c: char| c.is_alphanumeric() || c == ',');
    let label = LABELS.contains(&said.trim_start());
    line.ends_with(' ') && goes_on && !label && !said.ends_with("},")
}

/// The row of a table, an item of a list, a comment of HTML, a footnote, and a line of a log, which
/// begins with the time.
fn is_of_a_record(line: &str) -> bool {
    let line = line.trim_start();
    let digits = |text: &str, n: usize| text.len() >= n && text.bytes().take(n).all(|b| b.is_ascii_digit());
    let bare = line.trim_start_matches(['[', '(']);
    let date = digits(bare, 4) && bare[4..].starts_with('-') && digits(&bare[5..], 2);
    let time = digits(bare, 2) && bare[2..].starts_with(':') && digits(&bare[3..], 2);
    let comment = line.rfind("<!--").is_some_and(|at| !line[at..].contains("-->"));
    let item = line.strip_prefix(['-', '*', '•']).and_then(|rest| rest.strip_prefix(' '));
    let item = item.is_some_and(|rest| !rest.trim().is_empty());
    let member = line.starts_with('"') && line.trim_end().ends_with("\":");
    let changed = matches!(line.trim_end(), "+" | "-") && !line.ends_with(' ');
    let numbered = line.ends_with('\t') && line.trim_end().bytes().all(|b| b.is_ascii_digit());
    date || time
        || comment
        || item
        || member
        || changed
        || numbered && !line.trim_end().is_empty()
        || line.starts_with("[^")
        || line.starts_with('|')
}

/// The tool that ReAct's lines `Action: NAME` and `Action Input:` announce at the end of the text before an object, and
/// how far before the end of the text the first of them begins.
pub(crate) fn react(before: &[u8]) -> Option<(String, usize)> {
    let plain = |b: &u8| b.is_ascii_whitespace() || *b == b'*';
    let end = before.iter().rposition(|b| !plain(b))?;
    if !before[..=end].ends_with(b"Action Input:") {
        return None;
    }
    let text = std::str::from_utf8(before).ok()?;
    let marks = |c: char| c.is_whitespace() || c == '*';
    let trimmed = text.trim_end_matches(marks);
    let lead = trimmed.strip_suffix("Action Input:")?.trim_end_matches(marks);
    let line_start = lead.rfind('\n').map_or(0, |i| i + 1);
    let name = lead[line_start..].trim_matches(marks).strip_prefix("Action:")?;
    let name = name.trim_matches(|c: char| marks(c) || matches!(c, '`' | '"' | '\''));
    let one_word = !name.is_empty() && !name.contains(char::is_whitespace);
    let indent = lead[line_start..].len() - lead[line_start..].trim_start().len();
    one_word.then(|| (name.to_owned(), text.len() - line_start - indent))
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

/// The only word on the last line, and how far before the end of the text it begins.
pub(crate) fn last_word(before: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(before).ok()?;
    let trimmed = text.trim_end();
    let word = trimmed[trimmed.rfind('\n').map_or(0, |at| at + 1)..].trim_start();
    // DeepSeek writes the kind of the tool before its name.
    let word = word.strip_prefix("function ").unwrap_or(word);
    let one = !word.is_empty() && !word.contains(char::is_whitespace);
    one.then(|| (word.to_owned(), text.len() - trimmed.len() + word.len()))
}
