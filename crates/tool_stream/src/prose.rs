//! Decides whether a call in prose is an example.
//!
//! A call is executed as soon as its closing brace arrives, so the decision can be based only on
//! the text before it. An object is an example if words before it in the same sentence introduce an
//! example, if it comes directly after a quotation mark, a bracket or an equals sign, or if it is
//! on a quoted line (`> `, `12|`). It is a call if the previous sentence is complete, or if
//! the sentence announces a call. If the text implies neither ([`LeadIn::CallAtEnd`]), the object is
//! a call only if it ends the answer, because then no later text presents it as an example.

use std::sync::LazyLock;

/// Words that mark the rest of the sentence as an example, or as something that the model does not
/// actually send.
static CUES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "never do|don't:|do not:|one option|an alternative|alternative is|decided against|could run|\
        would call|such a call|has this shape|shows the form|hypothetical|mistake to|malicious|\
        grep found|found this in|möglichkeit|nicht ausführen|i considered|in this way|feeds this|\
        wire format|format a:|format b:|i executed|i ran|i have run|history of|for example|\
        for instance|e.g.|eg.|example:|example call|example of|example tool|example usage|\
        example object|example format|an example|such as|looks like|look like|looking like|\
        looked like|of the form|in the form|the format is|this format|the format:|the syntax|\
        the schema|something like|instead of|rather than|would write|would be written|could write|\
        could call|could use|could send|might call|might use|might send|you could|you would|\
        you might|one can|one could|one would|if i wanted|do not send|don't send|do not call|\
        don't call|not calling|never send|call would be|object would be|you can use|you can call|\
        you can send|you can write|you may use|you may call|zum beispiel|z. b.|z.b.|por ejemplo|\
        par exemple|例如|比如|例えば|например|the model writes|the model wrote|the model returns|\
        the model returned|the model sent|the model sends|the model answers|the model output|\
        the model emits|the model emitted|the model produced|the model generated|\
        convention it writes|agent sent|agent ran|it sent|earlier i|previously i|i previously|\
        i already ran|i already sent|will not run|will not send|will not call|will not use|\
        won't run|won't send|won't call|won't use|yourself, send|format was|format is:|format looks|\
        actual behavior|raw output|has to write|have to write|should be written|call format|\
        request body|response body|expects:|contains:|you wrote|you sent|previous call|earlier call|\
        run this yourself|yourself:|must not be|executed the following|is an object|never execute|\
        never run|imagine|suppose|call failed|already executed|格式如下|不要|たとえば|예를 들어|por exemplo|\
        ad esempio|got:|expected:|agent that emits|how a call looks"
        .split('|')
        .collect()
});

/// Words that work like [`CUES`], but only at the start of a sentence, where they begin a
/// condition, a question, an option or an instruction.
const OPENINGS: [&str; 7] =
    ["return ", "if ", "should i ", "shall i ", "do you want me to ", "would you like me to ", "option "];

/// The [`OPENINGS`] that begin a question. If the object is the first thing on its line, only these
/// are considered.
const QUESTIONS: &[&str] = &["should i ", "shall i ", "do you want me to ", "would you like me to "];

/// Words that announce what the model is about to do.
static INTENT: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "i'll|i’ll|i will|let me|let's|let’s|let us|i'm going to|i am going to|i need|i should|\
        i want to|i'd like to|i have to|i must|i now|now i|i start|i begin|i look|i read|i run|\
        i check|i use|i call|i open|i search|i apply|i fix|i edit|i can|we'll|we will|we need|\
        we should|reading|running|calling|using|checking|looking|searching|applying|opening|fixing|\
        here is|here's|here’s|next|first|now|then|step|我|让我|现在|首先"
        .split('|')
        .collect()
});

/// The role of an object, judged by the text before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeadIn {
    /// A call.
    Call,
    /// A call only if it ends the answer. If text follows, the object is an example that the text
    /// explains.
    CallAtEnd,
    /// An example, a quotation or a rejected plan.
    Example,
}

/// Decides the role of an object based on the text before it.
///
/// `same_line` means that the object is not the first thing on its line. `token` means that it
/// begins with a model family's token, which does not occur in ordinary sentences. `apart` means
/// that it is in a fence, or begins a line that is indented by at least four spaces or tabs.
pub(crate) fn lead_in(before: &[u8], same_line: bool, token: bool, apart: bool) -> LeadIn {
    let text = String::from_utf8_lossy(&before[before.len().saturating_sub(REACH)..]).to_lowercase();
    let line = if same_line { text.as_str() } else { text.trim_end() };
    let line = line.rsplit('\n').next().unwrap_or(line).trim_end_matches(['*', '_', ' ', '`']);
    let sentence = last_sentence(line);
    let intent = INTENT.iter().any(|word| contains_words(sentence, word));
    if is_example(before, same_line) {
        return LeadIn::Example;
    }
    let blank = |c: char| c.is_whitespace() || c.is_control();
    if token || line.chars().all(blank) || intent {
        return LeadIn::Call;
    }
    let label = line.trim_end_matches(':').trim_start_matches(|c: char| !c.is_alphanumeric());
    match line.chars().next_back() {
        Some(':') if LABELS.contains(&label) => LeadIn::Call,
        Some('.' | '!' | '?' | '…' | '。' | ')' | '>' | '}' | ']') if !apart => LeadIn::Call,
        _ if !same_line && line.split_whitespace().count() == 1 && LABELS.contains(&label) => LeadIn::Call,
        _ => LeadIn::CallAtEnd,
    }
}

/// How many bytes of the text before an object are taken into account.
pub(crate) const REACH: usize = 240;

/// Returns true if the text before an object marks it as an example. `same_line` has the same
/// meaning as in [`lead_in`].
pub(crate) fn is_example(before: &[u8], same_line: bool) -> bool {
    let tail = String::from_utf8_lossy(&before[before.len().saturating_sub(REACH)..]).to_lowercase();
    let line_start = tail.rfind('\n').map_or(0, |i| i + 1);
    if same_line {
        let line = &tail[line_start..];
        if line.trim_start().starts_with('>') {
            return true;
        }
        if is_file_listing(line) || is_list_or_log_line(line) {
            return true;
        }
        if ["output:", "input:", "data:", "before:"].contains(&line.trim()) {
            return true;
        }
        match line.chars().next_back() {
            Some('"' | '\'' | '(' | '“' | '‘' | '`') => return true,
            // `{` and `%` also cover the `{{` and `{%` of a template.
            _ if line.trim_end().ends_with(['=', '{', '%']) => return true,
            _ => {}
        }
    }
    // The last sentence before the object. If the object is the first thing on its line, this is
    // the last sentence of the text above it. If that sentence is complete, it does not make the
    // object an example.
    let line = if same_line {
        &tail[line_start..]
    } else {
        let text = tail.trim_end();
        // A ReAct `Thought:` line implies nothing, so look at the line above it.
        let text = match text.rsplit_once('\n') {
            Some((above, last)) if last.trim_start().starts_with("thought:") => above.trim_end(),
            _ => text,
        };
        let line = text.rsplit('\n').next().unwrap_or(text).trim_end_matches(['*', '_', ' ']);
        if line.ends_with("e.g.") || line.ends_with("z. b.") || line.ends_with("z.b.") {
            return true;
        }
        if line.ends_with(['.', '!', '?']) {
            return false;
        }
        // Words that made the previous object an example do not apply to this one.
        line.rsplit('}').next().unwrap_or(line)
    };
    let sentence = last_sentence(line);
    let opening = sentence.trim_start_matches(|c: char| !c.is_alphanumeric());
    let openings = if same_line { &OPENINGS[..] } else { QUESTIONS };
    openings.iter().any(|cue| opening.starts_with(cue))
        || CUES.iter().any(|cue| contains_words(sentence, cue))
}

/// Returns true if `line` begins like a line in a file listing: `12|`, `src/a.rs:12:`.
fn is_file_listing(line: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let line = line.trim();
    line.strip_suffix('|').is_some_and(number)
        || line
            .strip_suffix(':')
            .and_then(|l| l.rsplit_once(':'))
            .is_some_and(|(path, n)| !path.is_empty() && number(n))
}

/// Words that label a call when they are the only text before it.
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

/// Returns true if `line` begins a table row, a list item, an HTML comment, a footnote, a JSON
/// member, a line of a diff, a numbered line, or a log line with a date or a time.
fn is_list_or_log_line(line: &str) -> bool {
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

/// If the text before an object ends with ReAct's `Action: NAME` and `Action Input:` lines, returns
/// the tool's name and the number of bytes from the start of the `Action:` line to the end of the
/// text.
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

/// Returns the text after the last complete sentence. A sentence ends with punctuation followed by
/// a space.
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

/// If the last line consists of a single word, returns the word and the distance in bytes from its
/// start to the end of the text.
pub(crate) fn last_word(before: &[u8]) -> Option<(String, usize)> {
    let text = std::str::from_utf8(before).ok()?;
    let trimmed = text.trim_end();
    let word = trimmed[trimmed.rfind('\n').map_or(0, |at| at + 1)..].trim_start();
    // DeepSeek writes the kind of tool, `function`, before the tool's name.
    let word = word.strip_prefix("function ").unwrap_or(word);
    let one = !word.is_empty() && !word.contains(char::is_whitespace);
    one.then(|| (word.to_owned(), text.len() - trimmed.len() + word.len()))
}
