//! A line split as a shell would split it: simple commands with their words, and the lines within it that would run as well.

/// What a line consists of.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Simple commands in order; the words as the program would get them, with `$` where something unknown stands.
    pub(super) commands: Vec<Vec<String>>,
    /// Lines that run within it: substitutions, and what is fed to a shell.
    pub(super) nested: Vec<String>,
    /// The next word names the file of a redirection and is no argument.
    redirection: Option<Redirection>,
    /// Documents that follow the next end of a line.
    awaited: Vec<String>,
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
                Some(command) => command.extend(unbraced(word)),
                None => self.commands.push(unbraced(word)),
            },
            Some(Redirection::File) => {}
            Some(Redirection::Document) => self.awaited.push(word),
            Some(Redirection::Text) => self.feed(word),
        }
    }

    fn end_command(&mut self, word: &mut Option<String>) {
        self.end_word(word);
        self.commands.push(Vec::new());
    }

    /// Text goes to the standard input of the command so far: a shell runs it.
    fn feed(&mut self, text: String) {
        let program = self.commands.iter().rev().find_map(|words| words.first());
        if program.is_some_and(|p| super::is_shell(p)) {
            self.nested.push(text);
        }
    }
}

/// `{rm,-rf,src}` is three words.
fn unbraced(word: String) -> Vec<String> {
    match word.strip_prefix('{').and_then(|w| w.strip_suffix('}')).filter(|w| w.contains(',')) {
        Some(inside) => inside.split(',').map(str::to_owned).collect(),
        None => vec![word],
    }
}

/// Splits a line. Nothing is an error: what a shell would refuse is read as far as it goes.
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
                word.get_or_insert_default().push('$'); // something unknown
            }
            '$' if chars.peek() == Some(&'(') => {
                chars.next();
                line.nested.push(balanced(&mut chars));
                word.get_or_insert_default().push('$');
            }
            '$' if !double && matches!(chars.peek(), Some('\'' | '"')) => {} // the quotation follows
            _ if double => word.get_or_insert_default().push(c),
            ' ' | '\t' => line.end_word(&mut word),
            '#' if word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '<' | '>' => {
                if word.as_ref().is_some_and(|w| w.chars().all(|c| c.is_ascii_digit())) {
                    word = None; // the descriptor, as in 2>
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
                for end in std::mem::take(&mut line.awaited) {
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

/// Everything up to the parenthesis that closes.
fn balanced(chars: &mut impl Iterator<Item = char>) -> String {
    let mut open = 1;
    chars
        .take_while(|c| {
            open += i32::from(*c == '(') - i32::from(*c == ')');
            open > 0
        })
        .collect()
}

/// A document up to the line that ends it.
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
