//! Extracts the words from tasks, names and paths.

/// Words that carry no information about code.
const STOP_WORDS: &[&str] = &[
    "a", "all", "also", "an", "and", "any", "are", "as", "at", "be", "by", "can", "do", "does", "each",
    "for", "from", "has", "have", "if", "in", "into", "is", "it", "its", "make", "must", "new", "no", "not",
    "of", "on", "one", "only", "or", "other", "return", "returns", "should", "so", "some", "that", "the",
    "their", "them", "then", "there", "these", "they", "this", "to", "use", "used", "uses", "using", "was",
    "we", "when", "where", "which", "will", "with", "you", "fix", "bug", "test", "tests", "pass", "code",
    "file", "function", "given",
];
/// Endings that are removed so that different forms of a word compare equal. Only the first one
/// that matches is removed.
const ENDINGS: &[&str] = &[
    "ations", "ation", "ings", "ing", "ions", "ion", "ers", "er", "ors", "or", "ies", "ed", "es", "s", "e",
    "y",
];
/// The minimum length of a word after its ending is removed.
const SHORTEST_STEM: usize = 3;

/// Calls `word` for each word of some text or of an identifier, in lowercase and without its
/// ending: `parseDurations` has the words `pars` and `dur`.
pub(crate) fn each(text: &str, mut word: impl FnMut(&str)) {
    let mut lower = String::new();
    for part in text.split(|c: char| !c.is_alphanumeric()).filter(|p| !p.is_empty()) {
        let mut start = 0;
        let chars: Vec<(usize, char)> = part.char_indices().collect();
        for (i, (at, c)) in chars.iter().enumerate() {
            let before = i.checked_sub(1).and_then(|b| chars.get(b)).map(|(_, c)| *c);
            let after = chars.get(i + 1).map(|(_, c)| *c);
            // `HTTPServer` is split before `Server`, and `parseJSON` before `JSON`.
            let begins = before.is_some_and(|before| {
                c.is_uppercase() && (!before.is_uppercase() || after.is_some_and(char::is_lowercase))
            });
            if begins {
                emit(&part[start..*at], &mut lower, &mut word);
                start = *at;
            }
        }
        emit(&part[start..], &mut lower, &mut word);
    }
}

fn emit(part: &str, lower: &mut String, word: &mut impl FnMut(&str)) {
    lower.clear();
    lower.extend(part.chars().flat_map(char::to_lowercase));
    word(stem(lower));
}

fn stem(word: &str) -> &str {
    let stemmed = ENDINGS.iter().find_map(|e| word.strip_suffix(e).filter(|s| s.len() >= SHORTEST_STEM));
    stemmed.unwrap_or(word)
}

/// Returns the distinct words of a task, excluding those in [`STOP_WORDS`].
pub(crate) fn of_task(task: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in task.split(|c: char| !c.is_alphanumeric() && c != '_') {
        if STOP_WORDS.contains(&part.to_lowercase().as_str()) {
            continue;
        }
        each(part, |word| {
            if word.len() > 1 && !words.iter().any(|w| w == word) {
                words.push(word.to_owned());
            }
        });
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        each(text, |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn an_identifier_is_split_into_its_words_without_their_endings() {
        assert_eq!(split("parse_durations"), ["pars", "dur"]);
        assert_eq!(split("HTTPServer parseJSON"), ["http", "serv", "pars", "json"]);
        assert_eq!(split("Straße_2x"), ["straß", "2x"]);
        assert_eq!(of_task("Fix the parser: it parses `no` durations"), ["pars", "dur"]);
    }
}
