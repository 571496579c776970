//! Branches: places where a small model was unsure about the token it wrote, each with an
//! alternative token.
//!
//! When asked for a corrected file, a small model usually sends the file back unchanged or with a
//! wrong change. But it is less sure in some places than in others: at the bug, the right token is
//! often a close second choice. The alternatives are therefore tried, most likely first. The model
//! continues from the alternative token until it writes one of the file's next lines (about twenty
//! tokens, with the prefix in the server's cache), and the verification decides whether the change
//! is kept.
//!
//! Measured with a 1.5B model on 26 small repairs, when branches had one line and were tried only
//! after unchanged answers: the plain request solves 10, and branches raise that to 18 at a cost of
//! 45 generated tokens per failed answer. Requesting the whole file again costs about 300 tokens.
//!
//! This module is pure: text goes in, and text comes out.

use std::sync::Arc;

use journal::Doubt;

use crate::blocks::Found;

/// Maximum number of branches to try. Only the most likely branches are worth trying.
pub(crate) const MOST: usize = 12;
/// Subtracted from the log probability of a token that starts a line, because few such tokens fix
/// anything. This divides the probability by ten.
const LINE_START_PENALTY: f32 = 2.3;
/// Maximum number of tokens that the model writes for a branch.
pub(crate) const MAX_TOKENS: u32 = 120;
/// Maximum number of lines that the model writes for a branch.
const MAX_LINES: usize = 12;
/// Maximum number of lines of the file that a branch may replace.
const MAX_REPLACED: usize = 30;
/// Minimum number of letters and digits that a line needs to identify a place in the file. Lines
/// such as `else:` or `}` have fewer.
const TELLING: usize = 6;

/// A place in an answer where the model could have written another token, along with that token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Branch {
    /// The contents of all requested files, without the change that the branch makes.
    files: Arc<Vec<String>>,
    /// The index of the file that the branch changes.
    index: usize,
    /// The byte offset of the other token in that file.
    at: usize,
    /// The answer up to that place, followed by the other token. The model continues this text.
    pub(crate) prefix: String,
    other: String,
    logprob: f32,
    /// Whether the other token begins a line. If so, the new line is also tried as an insertion
    /// before the old line, because it may be a line that was missing.
    new_line: bool,
}

/// Returns the branches of an answer, most likely first. `base` contains the files as they were
/// before the answer, and `written` contains them as they are after it. A branch before the first
/// change in its file starts from `base`, without the answer's changes. A later branch starts from
/// `written`.
pub(crate) fn find(
    answer: &str,
    blocks: &[Found],
    doubts: &[Doubt],
    base: &Arc<Vec<String>>,
    written: &Arc<Vec<String>>,
) -> Vec<Branch> {
    let branch = |doubt: &Doubt| {
        let place = doubt.at as usize;
        let block = blocks.iter().rfind(|block| block.content <= place)?;
        let (index, at) = (block.index, place - block.content);
        let text = answer.get(block.content..place)?;
        let starts_with =
            |files: &&Arc<Vec<String>>| files[index].len() > at && files[index].starts_with(text);
        let files = Some(base).filter(starts_with).or_else(|| Some(written).filter(starts_with))?;
        let new_line = starts_line(text);
        Some(Branch {
            files: Arc::clone(files),
            index,
            at,
            prefix: format!("{}{}", answer.get(..place)?, doubt.other),
            other: doubt.other.clone(),
            logprob: if new_line { doubt.logprob - LINE_START_PENALTY } else { doubt.logprob },
            new_line,
        })
    };
    let mut branches: Vec<Branch> =
        doubts.iter().filter(|doubt| is_worthwhile(&doubt.other)).filter_map(branch).collect();
    branches.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
    branches.truncate(MOST);
    branches
}

/// Whether another token could fix anything. Whitespace, a comment or the end of the block cannot.
fn is_worthwhile(other: &str) -> bool {
    let text = other.trim();
    !text.is_empty()
        && !other.contains('\n')
        && !["#", "//", "/*", "\"\"\"", "'''", "`"].iter().any(|start| text.starts_with(start))
}

/// Whether the last line of the text is empty or contains only whitespace.
fn starts_line(before: &str) -> bool {
    before.rsplit('\n').next().unwrap_or_default().trim().is_empty()
}

impl Branch {
    /// Splits the file at the line of the branch. Returns the text before that line, and the lines
    /// starting with that line.
    fn parts(&self) -> Option<(&str, Vec<&str>)> {
        let file = self.files.get(self.index)?;
        let start = file.get(..self.at)?.rfind('\n').map_or(0, |n| n + 1);
        Some((&file[..start], file[start..].split('\n').collect()))
    }

    /// Returns the lines of the file that the branch may replace, starting with the branch's own
    /// line.
    pub(crate) fn following(&self) -> Vec<String> {
        let lines = self.parts().map(|(_, lines)| lines).unwrap_or_default();
        lines.into_iter().take(MAX_REPLACED).map(str::to_owned).collect()
    }
}

/// The point where a branch's text rejoins the file by repeating one of the lines in
/// [`Branch::following`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejoined {
    /// How many new lines come before that line.
    new: usize,
    /// How many lines of the file the new lines replace.
    replaced: usize,
}

/// Finds the first complete line, not counting the first line of a branch's text, that is
/// distinctive and matches one of the `following` lines of the file.
pub(crate) fn rejoined(following: &[String], text: &str) -> Option<Rejoined> {
    let (complete, _) = text.rsplit_once('\n')?;
    complete.split('\n').enumerate().skip(1).find_map(|(new, line)| {
        let telling = line.chars().filter(|c| c.is_alphanumeric()).count() >= TELLING;
        let same = |other: &String| other.trim_end() == line.trim_end();
        let replaced = telling.then(|| following.iter().position(same)).flatten()?;
        Some(Rejoined { new, replaced })
    })
}

/// Whether the text of a branch is complete: it has reached one of the `following` lines, or it is
/// too long.
pub(crate) fn is_complete(following: &[String], text: &str) -> bool {
    text.matches('\n').count() >= MAX_LINES || rejoined(following, text).is_some()
}

/// Returns the versions of the files to try for a branch that the model continues with `rest`. If
/// the text rejoins the file ([`rejoined`]), its lines up to that point are the new lines.
/// Otherwise, only its first line is new, and it replaces the old line or is inserted before it.
pub(crate) fn candidates(branch: &Branch, rest: &str) -> Vec<Vec<String>> {
    // In sessions recorded by earlier versions, the text may start with a copy of the prefix, which
    // the server repeated.
    let rest = rest.strip_prefix(branch.prefix.as_str()).unwrap_or(rest);
    let Some((before, old)) = branch.parts() else { return Vec::new() };
    let start = before.len();
    let file = &branch.files[branch.index];
    let line = |rest: &str| format!("{}{}{}", &file[start..branch.at], branch.other, rest.trim_end());
    let with = |new: &[String], replaced: usize| {
        let lines = new.iter().map(String::as_str).chain(old[replaced..].iter().copied());
        let mut files = (*branch.files).clone();
        files[branch.index] = format!("{before}{}", lines.collect::<Vec<_>>().join("\n"));
        files
    };
    let mut new: Vec<String> = rest.split('\n').map(str::to_owned).collect();
    new[0] = line(&new[0]);
    if let Some(Rejoined { new: count, replaced }) = rejoined(&branch.following(), rest) {
        new.truncate(count);
        let files = with(&new, replaced);
        return if files == *branch.files { Vec::new() } else { vec![files] };
    }
    if new[0].contains("```") || new[0].trim_end() == old[0].trim_end() {
        return Vec::new();
    }
    let mut candidates = vec![with(&new[..1], 1)];
    if branch.new_line {
        candidates.push(with(&new[..1], 0));
    }
    candidates
}

/// Removes the text that some servers repeat when they continue a message, regardless of how that
/// text is split into pieces.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    /// The text that the server may repeat.
    expected: String,
    /// The part of `expected` that has arrived.
    held: String,
}

impl Echo {
    /// Creates the filter for an answer that continues `message`.
    pub(crate) fn of(message: &str) -> Self {
        Self { expected: message.to_owned(), held: String::new() }
    }

    /// Takes the next piece, and returns the text that is now known to be new.
    pub(crate) fn new_in(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if let Some(new) = self.held.strip_prefix(self.expected.as_str()) {
            let new = new.to_owned();
            *self = Self::default();
            return new;
        }
        if self.expected.starts_with(self.held.as_str()) { String::new() } else { self.rest() }
    }

    /// Returns the text that was held back but turned out not to be a repetition.
    pub(crate) fn rest(&mut self) -> String {
        std::mem::take(self).held
    }
}

/// Adapts a branch after its files have changed from `old` to `new`. Returns `None` if the change
/// is at the branch, or if the branch is not based on `old`.
pub(crate) fn moved(branch: &Branch, old: &[String], new: &Arc<Vec<String>>) -> Option<Branch> {
    if *branch.files != old {
        return None;
    }
    let (old, changed) = (&old[branch.index], &new[branch.index]);
    let head = old.bytes().zip(changed.bytes()).take_while(|(a, b)| a == b).count();
    let tail = old.bytes().rev().zip(changed.bytes().rev()).take_while(|(a, b)| a == b).count();
    let tail = tail.min(old.len() - head).min(changed.len() - head);
    let line = old.as_bytes()[..head].iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1);
    let after = head == old.len() || branch.at < line;
    let at = if after {
        branch.at
    } else if branch.at >= old.len() - tail {
        branch.at + changed.len() - old.len()
    } else {
        return None;
    };
    Some(Branch { files: Arc::clone(new), at, ..branch.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "def add(a, b):\n    return a - b\n\nx = 1\n";

    fn doubt(answer: &str, place: &str, other: &str, logprob: f32) -> Doubt {
        Doubt { at: answer.find(place).unwrap() as u64, chosen: String::new(), other: other.into(), logprob }
    }

    fn answer() -> String {
        format!("Here it is:\n```python\n{FILE}```\n")
    }

    /// Returns the branches of an answer that changes [`FILE`] into `written`.
    fn branches_of(answer: &str, written: &str, doubts: &[Doubt]) -> Vec<Branch> {
        let content = answer.find("python\n").unwrap() + 7;
        let [base, written] = [FILE, written].map(|content| Arc::new(vec![content.to_owned()]));
        find(answer, &[Found { index: 0, content }], doubts, &base, &written)
    }

    fn branches(doubts: &[Doubt]) -> Vec<Branch> {
        branches_of(&answer(), FILE, doubts)
    }

    fn contents(branch: &Branch, rest: &str) -> Vec<String> {
        candidates(branch, rest).into_iter().flatten().collect()
    }

    #[test]
    fn the_likeliest_doubt_comes_first_and_leads_to_a_changed_line() {
        let answer = answer();
        let branches = branches(&[doubt(&answer, "x = 1", "y", -3.0), doubt(&answer, "- b", "+", -0.8)]);
        assert_eq!(branches.len(), 2);
        assert!(branches[0].prefix.ends_with("return a +"));
        assert_eq!(contents(&branches[0], " b\nmore"), ["def add(a, b):\n    return a + b\n\nx = 1\n"]);
    }

    #[test]
    fn a_token_that_begins_a_line_comes_last_and_may_begin_a_missing_line() {
        let answer = answer();
        let branches = branches(&[doubt(&answer, "return", "print", -0.5), doubt(&answer, "- b", "+", -2.5)]);
        assert!(branches[0].prefix.ends_with('+'));
        assert_eq!(
            contents(&branches[1], "(a)"),
            [
                "def add(a, b):\n    print(a)\n\nx = 1\n",
                "def add(a, b):\n    print(a)\n    return a - b\n\nx = 1\n"
            ]
        );
    }

    #[test]
    fn a_branch_ends_where_it_reaches_a_line_of_the_file() {
        let answer = answer();
        let branch = &branches(&[doubt(&answer, "return", "if", -0.5)])[0];
        let following = branch.following();
        assert_eq!(following, ["    return a - b", "", "x = 1", ""]);
        let text = " a is None:\n        return 0 + b\n    return a - b\n";
        let inserted = "def add(a, b):\n    if a is None:\n        return 0 + b\n    return a - b\n\nx = 1\n";
        assert_eq!(contents(branch, text), [inserted]);
        for end in 0..text.len() {
            assert!(!is_complete(&following, &text[..end]), "{:?}", &text[..end]);
        }
        assert!(is_complete(&following, text));
        assert!(is_complete(&following, &"y\n".repeat(MAX_LINES)), "too long");
        // A short line does not identify a place: `x = 1` may occur again.
        assert_eq!(rejoined(&following, " c\nx = 1\n"), None);
        let branch = &branches(&[doubt(&answer, "- b", "*", -0.5)])[0];
        let unchanged = Branch { other: "-".into(), ..branch.clone() };
        for same in [" b", " b\n", " b\n\nx = 1\n"] {
            assert_eq!(contents(&unchanged, same), Vec::<String>::new(), "{same:?}");
        }
        let definition = &branches(&[doubt(&answer, "):", ")", -0.5)])[0];
        assert_eq!(contents(definition, ":\n    return a - b\n"), Vec::<String>::new());
    }

    #[test]
    fn a_prefix_that_the_server_repeats_is_ignored() {
        let branches = branches(&[doubt(&answer(), "- b", "+", -0.8)]);
        let repeated = format!("{} b", branches[0].prefix);
        assert_eq!(candidates(&branches[0], &repeated), candidates(&branches[0], " b"));
    }

    #[test]
    fn a_repeated_prefix_is_removed_however_it_is_split() {
        let (message, answer) = ("```\na = 1\nb", "```\na = 1\nb = 2");
        for size in 1..=answer.len() {
            let mut echo = Echo::of(message);
            let pieces = answer.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap());
            let new: String = pieces.map(|piece| echo.new_in(piece)).collect();
            assert_eq!((new.as_str(), echo.rest().as_str()), (" = 2", ""), "{size}");
        }
        let mut echo = Echo::of(message);
        assert_eq!(
            (echo.new_in("``"), echo.rest()),
            (String::new(), "``".into()),
            "a new answer, not an echo"
        );
        assert_eq!(Echo::of(message).new_in("b"), "b");
    }

    #[test]
    fn comments_white_space_and_places_outside_the_files_make_no_branches() {
        let answer = answer();
        for other in ["#", " ", "\n", "```", "\"\"\"", "// x"] {
            assert_eq!(branches(&[doubt(&answer, "- b", other, -0.8)]), []);
        }
        assert_eq!(branches(&[doubt(&answer, "it is", "we are", -0.8)]), []);
    }

    #[test]
    fn a_branch_before_the_first_change_starts_without_it_and_a_later_branch_keeps_it() {
        let answer = answer().replace("a - b", "a * b");
        let doubts = [
            doubt(&answer, "a, b", "c", -0.5),
            doubt(&answer, "* b", "+", -0.8),
            doubt(&answer, "1", "2", -0.9),
        ];
        let branches = branches_of(&answer, &FILE.replace("a - b", "a * b"), &doubts);
        let lines: Vec<_> = branches.iter().flat_map(|branch| contents(branch, " q")).collect();
        assert_eq!(
            lines,
            [
                FILE.replace("a, b):", "c q"),
                FILE.replace("a - b", "a + q"),
                FILE.replace("a - b", "a * b").replace("= 1", "= 2 q"),
            ]
        );
    }

    #[test]
    fn an_unchanged_line_is_no_candidate() {
        let branches = branches(&[doubt(&answer(), "a - b", "a", -0.8)]);
        assert_eq!(contents(&branches[0], " - b"), Vec::<String>::new());
    }

    #[test]
    fn branches_are_moved_when_the_file_changes_elsewhere() {
        let answer = answer();
        let find = |place| branches(&[doubt(&answer, place, "q", -1.0)]).remove(0);
        let old = [FILE.to_owned()];
        let new = Arc::new(vec![FILE.replace("a - b", "a + b + 1")]);
        assert_eq!(moved(&find("def"), &old, &new).unwrap().at, 0);
        assert_eq!(moved(&find("- b"), &old, &new), None);
        let last = moved(&find("x = 1"), &old, &new).unwrap();
        assert!(new[0][last.at..].starts_with("x = 1"));
        assert_eq!(moved(&last, &old, &new), None, "the branch is based on other files");
        let accents = Branch { files: Arc::new(vec!["q = \"é\"\n".into()]), at: 0, ..last };
        let new = Arc::new(vec!["q = \"è\"\n".into()]);
        assert_eq!(moved(&accents, &accents.files, &new), None, "a change inside a character");
    }
}
