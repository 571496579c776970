//! Splits a shell line into simple commands, and collects the nested lines that a shell would also
//! run.

/// A shell line that has been split.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The simple commands in order, each as a list of words. Inside a word, `$` stands in for the
    /// output of a command substitution.
    pub(super) commands: Vec<Vec<String>>,
    /// Nested lines that a shell would also run: command and process substitutions, and text that a
    /// shell in this line reads from stdin.
    pub(super) nested: Vec<String>,
    /// The redirection whose target is the next word; `None` if the next word is an argument.
    redirection: Option<Redirection>,
    /// Delimiters of the here-documents that follow the current line.
    here_documents: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redirection {
    File,
    Document,
    Text,
}

impl Line {
    fn end_word(&mut self, word: &mut Option<String>) {
        let Some(word) = word.take() else { return };
        match self.redirection.take() {
            None => match self.commands.last_mut() {
                Some(command) => command.extend(expand_braces(word)),
                None => self.commands.push(expand_braces(word)),
            },
            Some(Redirection::File) => {}
            Some(Redirection::Document) => self.here_documents.push(word),
            Some(Redirection::Text) => self.feed(word),
        }
    }

    fn end_command(&mut self, word: &mut Option<String>) {
        self.end_word(word);
        self.commands.push(Vec::new());
    }

    /// Handles text that the current command reads from stdin. A shell would execute the text, so
    /// if the command is a shell, adds the text to the nested lines.
    fn feed(&mut self, text: String) {
        let program = self.commands.iter().rev().find_map(|words| words.first());
        if program.is_some_and(|p| super::is_shell(p)) {
            self.nested.push(text);
        }
    }
}

/// Expands `{rm,-rf,src}` into three words.
fn expand_braces(word: String) -> Vec<String> {
    match word.strip_prefix('{').and_then(|w| w.strip_suffix('}')).filter(|w| w.contains(',')) {
        Some(inside) => inside.split(',').map(str::to_owned).collect(),
        None => vec![word],
    }
}

/// Splits a line. Never fails: invalid syntax is parsed as far as possible.
pub(super) fn split(text: &str) -> Line {
    let mut line = Line::default();
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    let mut double = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(next) => word.get_or_insert_default().push(next),
            },
            '\'' if !double => word.get_or_insert_default().extend(chars.by_ref().take_while(|c| *c != '\'')),
            '"' => {
                double = !double;
                word.get_or_insert_default();
            }
            '`' => {
                line.nested.push(chars.by_ref().take_while(|c| *c != '`').collect());
                word.get_or_insert_default().push('$'); // an unknown part
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                line.nested.push(balanced(&mut chars));
                word.get_or_insert_default().push('$');
            }
            // skip the `$` of `$'…'` and `$"…"`; the quoted text comes next
            '$' if !double && matches!(chars.peek(), Some('\'' | '"')) => {}
            _ if double => word.get_or_insert_default().push(c),
            ' ' | '\t' => line.end_word(&mut word),
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '<' | '>' => {
                if word.as_ref().is_some_and(|w| w.chars().all(|c| c.is_ascii_digit())) {
                    word = None; // the word is a descriptor, as in `2>`
                }
                line.end_word(&mut word);
                let mut sign = String::from(c);
                sign.extend(std::iter::from_fn(|| {
                    chars.next_if(|c| matches!(c, '<' | '>' | '&' | '|' | '-'))
                }));
                if chars.next_if_eq(&'(').is_some() {
                    line.nested.push(balanced(&mut chars));
                } else {
                    line.redirection = Some(match sign.as_str() {
                        "<<" | "<<-" => Redirection::Document,
                        "<<<" => Redirection::Text,
                        _ => Redirection::File,
                    });
                }
            }
            '\n' => {
                line.end_word(&mut word);
                for end in std::mem::take(&mut line.here_documents) {
                    let document = document(&mut chars, &end);
                    line.feed(document);
                }
                line.commands.push(Vec::new());
            }
            ';' | '&' | '|' | '(' | ')' => line.end_command(&mut word),
            '{' | '}' if word.is_none() && chars.peek().is_none_or(|c| c.is_whitespace() || *c == ';') => {
                line.end_command(&mut word);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    line.end_word(&mut word);
    line
}

/// Reads past the closing parenthesis and returns the text before it.
fn balanced(chars: &mut impl Iterator<Item = char>) -> String {
    let mut open = 1;
    chars
        .take_while(|c| {
            open += i32::from(*c == '(') - i32::from(*c == ')');
            open > 0
        })
        .collect()
}

/// Reads past the delimiter of a here-document and returns the text before it.
fn document(chars: &mut impl Iterator<Item = char>, end: &str) -> String {
    let mut text = String::new();
    loop {
        let mut ended = false;
        let line: String =
            chars.by_ref().take_while(|c| !std::mem::replace(&mut ended, *c == '\n') && *c != '\n').collect();
        if line.trim_start_matches('\t') == end || (line.is_empty() && !ended) {
            return text;
        }
        text.push_str(&line);
        text.push('\n');
    }
}
