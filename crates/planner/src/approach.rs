//! The whole-file approach for small models: show the file that the task is about (or up to three
//! files), ask for corrected versions, verify them, and try alternatives at the places where the
//! model was unsure.
//!
//! Measured with a 1.5B model: when shown a file and asked to output it in full, the model solves
//! most tasks that need only a small fix in a single file. When asked to call tools, it solves few
//! of them, and feedback never helped. The first attempt is therefore exactly the plain request
//! that `scripts/floor` measures. If it fails, alternatives are tried at the places where the model
//! was unsure ([`crate::branches`]). Then the same request is sent again at a higher temperature,
//! or with files that a branch has improved. A change is kept only if it makes more tests pass, so
//! the tree does not end up worse than before.
//!
//! This module is pure: outcomes go in, and the next move comes out.

use std::collections::VecDeque;
use std::sync::Arc;

use journal::{Check, Doubt};

use crate::blocks::{Focus, Found};
use crate::branches::{self, Branch};

/// Maximum total time, in milliseconds, to spend on verifications for the branches of one answer.
/// Each branch runs the verification up to twice.
const BRANCH_CHECK_MS: u64 = 60_000;

/// Maximum number of requests for the same version of the files.
const MAX_ATTEMPTS: u32 = 2;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Move {
    /// Ask for the whole file.
    Whole,
    /// Ask for the rest of a line and further lines, until the model writes one of `following`.
    Line {
        /// The text that the model continues.
        prefix: String,
        following: Vec<String>,
    },
    /// Write the files with these contents, and verify them.
    Try(Vec<String>),
    /// The verification passes, or there is none and the file has changed.
    Done,
    /// Nothing is left to try.
    GiveUp,
}

/// The outcome of an answer to [`Move::Whole`].
pub(crate) struct Attempt<'a> {
    pub(crate) answer: &'a str,
    /// The files in the answer.
    pub(crate) blocks: &'a [Found],
    pub(crate) doubts: &'a [Doubt],
    /// The path and the new content of each file that was written.
    pub(crate) wrote: Vec<(&'a str, &'a str)>,
    pub(crate) check: Option<&'a Check>,
}

/// The attempts of a run.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// The best version of the files so far. Attempts start from it.
    base: Vec<Focus>,
    /// For each file in `base`, its content in the tree.
    in_tree: Vec<String>,
    /// The number of requests so far.
    number: u32,
    /// The number of requests that started from `base`.
    on_base: u32,
    /// The result of the verification on `base`.
    best: Option<Check>,
    branches: VecDeque<Branch>,
    current: Option<Branch>,
    candidates: VecDeque<Vec<String>>,
    /// Time spent verifying candidates since the last answer that contained whole files, in
    /// milliseconds.
    branch_ms: u64,
    /// Whether anything has been written.
    wrote: bool,
}

impl Attempts {
    /// Prepares to correct these files. Returns `None` if there are no files. `before` is the
    /// result of the verification that ran before any change.
    pub(crate) fn new(files: Vec<Focus>, before: Option<Check>) -> Option<Self> {
        (!files.is_empty()).then(|| Self {
            in_tree: files.iter().map(|file| file.content.clone()).collect(),
            base: files,
            number: 1,
            on_base: 1,
            best: before,
            branches: VecDeque::new(),
            current: None,
            candidates: VecDeque::new(),
            branch_ms: 0,
            wrote: false,
        })
    }

    /// Returns the best version of the files so far.
    pub(crate) fn base(&self) -> &[Focus] {
        &self.base
    }

    /// Returns the best version of each file that has a different version in the tree.
    pub(crate) fn to_restore(&self) -> Vec<Focus> {
        let files = self.base.iter().zip(&self.in_tree);
        files.filter(|(base, in_tree)| base.content != **in_tree).map(|(base, _)| base.clone()).collect()
    }

    /// Whether nothing has been written.
    pub(crate) fn untouched(&self) -> bool {
        !self.wrote
    }

    /// Whether the verification fails on the best version of the files.
    pub(crate) fn fails(&self) -> bool {
        self.best.as_ref().is_some_and(|check| !check.passed)
    }

    /// Returns the 1-based number of the current request for the whole file.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Returns the temperature and the seed for the current request. The first request for a
    /// version of the files uses `base` and `seed` unchanged. A repeated request is sampled at a
    /// high temperature, because the same request at temperature 0 produces the same bytes.
    pub(crate) fn sampling(&self, base: f32, seed: Option<u64>) -> (f32, Option<u64>) {
        if self.on_base == 1 { (base, seed) } else { (1.0, seed.or(Some(u64::from(self.number - 1)))) }
    }

    /// Returns the result of verifying the files as they are in the tree, if known.
    pub(crate) fn check_in_tree(&self) -> Option<&Check> {
        self.best.as_ref().filter(|_| self.to_restore().is_empty())
    }

    /// Returns the move after an answer with whole files.
    pub(crate) fn answered(&mut self, attempt: &Attempt<'_>) -> Move {
        if !attempt.wrote.is_empty() {
            for (path, content) in &attempt.wrote {
                self.wrote_file(&Focus { path: (*path).to_owned(), content: (*content).to_owned() });
            }
            let Some(check) = attempt.check else { return Move::Done };
            if self.wrote(check) {
                return Move::Done;
            }
        }
        self.find_branches(attempt);
        self.next_branch()
    }

    /// Returns the move after an answer with the rest of a line.
    pub(crate) fn line(&mut self, rest: &str) -> Move {
        if let Some(branch) = self.current.take() {
            self.candidates = branches::candidates(&branch, rest).into();
        }
        self.next_candidate()
    }

    /// Returns the move after a [`Move::Try`] has been verified.
    pub(crate) fn tried(&mut self, check: &Check) -> Move {
        let before = self.contents();
        if self.wrote(check) {
            return Move::Done;
        }
        self.branch_ms += check.ms;
        if self.branch_ms > BRANCH_CHECK_MS {
            self.branches.clear();
            self.candidates.clear();
        }
        let base = self.contents();
        if base != before {
            // More tests pass, but the verification still fails: the bug may be in two places. The
            // other branches continue from this version.
            self.candidates.clear();
            self.branches = self.branches.iter().filter_map(|b| branches::moved(b, &before, &base)).collect();
        }
        self.next_candidate()
    }

    /// Returns the content of the best version of the files.
    fn contents(&self) -> Arc<Vec<String>> {
        Arc::new(self.base.iter().map(|file| file.content.clone()).collect())
    }

    /// Returns the files whose content in the tree differs from `contents`, each with its content
    /// from `contents`.
    pub(crate) fn differing(&self, contents: Vec<String>) -> Vec<Focus> {
        let files = self.base.iter().zip(&self.in_tree).zip(contents);
        files
            .filter(|((_, in_tree), content)| *in_tree != content)
            .map(|((file, _), content)| Focus { path: file.path.clone(), content })
            .collect()
    }

    /// Records that a file was written.
    pub(crate) fn wrote_file(&mut self, file: &Focus) {
        if let Some(index) = self.base.iter().position(|base| base.path == file.path) {
            self.in_tree[index].clone_from(&file.content);
        }
    }

    /// Records the result of verifying the files in the tree. Returns whether the verification
    /// passes.
    fn wrote(&mut self, check: &Check) -> bool {
        self.wrote = true;
        // A version that fails never replaces one that passes, no matter how many of its tests
        // pass.
        if check.passed || self.fails() && passing(check) > self.best.as_ref().map_or(0, passing) {
            for (base, in_tree) in self.base.iter_mut().zip(&self.in_tree) {
                base.content.clone_from(in_tree);
            }
            self.on_base = 0;
            self.best = Some(check.clone());
        }
        check.passed
    }

    fn find_branches(&mut self, attempt: &Attempt<'_>) {
        let Some(best) = &self.best else { return };
        // A verification that passes cannot tell a good line from a bad one.
        if best.passed {
            return;
        }
        self.branch_ms = 0;
        let affordable = (BRANCH_CHECK_MS / (2 * best.ms).max(1)) as usize;
        let written = Arc::new(self.in_tree.clone());
        let found =
            branches::find(attempt.answer, attempt.blocks, attempt.doubts, &self.contents(), &written);
        self.branches = found.into();
        self.branches.truncate(affordable);
    }

    /// Returns the move after a candidate that cannot be tried or did not help.
    pub(crate) fn next_candidate(&mut self) -> Move {
        // Skip a candidate that matches the version in the tree, which has already been verified.
        while let Some(contents) = self.candidates.pop_front() {
            if contents != self.in_tree {
                return Move::Try(contents);
            }
        }
        self.next_branch()
    }

    /// Returns the next move if the model cannot continue an unfinished answer.
    pub(crate) fn without_branches(&mut self) -> Move {
        self.branches.clear();
        self.candidates.clear();
        self.current = None;
        self.next_branch()
    }

    fn next_branch(&mut self) -> Move {
        if let Some(branch) = self.branches.pop_front() {
            let (prefix, following) = (branch.prefix.clone(), branch.following());
            self.current = Some(branch);
            return Move::Line { prefix, following };
        }
        if self.on_base >= MAX_ATTEMPTS {
            return Move::GiveUp;
        }
        self.number += 1;
        self.on_base += 1;
        Move::Whole
    }
}

/// Returns the number of passing tests according to the report. Attempts are compared by how many
/// tests pass rather than how many fail, because a file that does not compile counts as a single
/// failure.
fn passing(check: &Check) -> u64 {
    check.facts.get("passed").and_then(serde_json::Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passed: bool, passing: u64) -> Check {
        let facts = serde_json::json!({ "passed": passing });
        Check { command: "t".into(), passed, text: String::new(), facts, ms: 1 }
    }

    fn attempts() -> Attempts {
        let focus = Focus { path: "a.py".into(), content: "a = 1\nb = 2\n".into() };
        Attempts::new(vec![focus], Some(check(false, 2))).unwrap()
    }

    fn wrote<'a>(content: &'a str, check: &'a Check) -> Attempt<'a> {
        Attempt { answer: "", blocks: &[], doubts: &[], wrote: vec![("a.py", content)], check: Some(check) }
    }

    const NOTHING: Attempt<'static> =
        Attempt { answer: "", blocks: &[], doubts: &[], wrote: Vec::new(), check: None };

    /// Writes the files that must be restored.
    fn restore(attempts: &mut Attempts, expected: &[(&str, &str)]) {
        let files = attempts.to_restore();
        let found: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.content.as_str())).collect();
        assert_eq!(found, expected);
        files.iter().for_each(|file| attempts.wrote_file(file));
        assert_eq!(attempts.to_restore(), []);
    }

    /// Asserts that the move tries exactly one file, writes that file, reports `check` as its
    /// verification result, and returns the move that follows.
    fn tried(attempts: &mut Attempts, next: &Move, expected: &str, check: &Check) -> Move {
        assert_eq!(*next, Move::Try(vec![expected.into()]));
        attempts.wrote_file(&Focus { path: "a.py".into(), content: expected.into() });
        attempts.tried(check)
    }

    const COPY: &str = "```\na = 1\nb = 2\n```";
    const BLOCK: [Found; 1] = [Found { index: 0, content: 4 }];

    /// Returns an answer that contains the unchanged file. `doubts` are the places where the model
    /// was unsure.
    fn unchanged(doubts: &[Doubt]) -> Attempt<'_> {
        Attempt { answer: COPY, blocks: &BLOCK, doubts, wrote: Vec::new(), check: None }
    }

    fn doubt(place: &str, other: &str, logprob: f32) -> Doubt {
        let at = COPY.find(place).unwrap() as u64;
        Doubt { at, chosen: String::new(), other: other.into(), logprob }
    }

    /// Returns the text that the model continues.
    fn prefix(next: &Move) -> &str {
        let Move::Line { prefix, .. } = next else { panic!("{next:?}") };
        prefix.strip_prefix("```\n").unwrap()
    }

    #[test]
    fn the_request_is_repeated_at_a_higher_temperature_and_then_attempts_end() {
        let mut attempts = attempts();
        assert_eq!(attempts.sampling(0.0, None), (0.0, None));
        assert_eq!(attempts.answered(&wrote("worse", &check(false, 1))), Move::Whole);
        assert_eq!(attempts.sampling(0.0, None), (1.0, Some(1)));
        restore(&mut attempts, &[("a.py", "a = 1\nb = 2\n")]);
        assert_eq!(attempts.answered(&NOTHING), Move::GiveUp);
    }

    #[test]
    fn the_next_attempt_starts_from_the_version_with_more_passing_tests() {
        let mut attempts = attempts();
        assert_eq!(attempts.answered(&NOTHING), Move::Whole);
        assert_eq!(attempts.answered(&wrote("better", &check(false, 3))), Move::Whole);
        assert_eq!(attempts.sampling(0.0, None), (0.0, None), "this request is new");
        assert_eq!(attempts.answered(&NOTHING), Move::Whole);
        assert_eq!(attempts.sampling(0.0, None), (1.0, Some(3)));
        assert_eq!((attempts.base()[0].content.as_str(), attempts.to_restore()), ("better", vec![]));
        assert_eq!(attempts.answered(&wrote("best", &check(true, 9))), Move::Done);
    }

    #[test]
    fn several_files_are_kept_or_reverted_together() {
        let files = ["a.py", "b.py"].map(|path| Focus { path: path.into(), content: "old".into() });
        let mut attempts = Attempts::new(files.to_vec(), Some(check(false, 2))).unwrap();
        let (worse, best) = (check(false, 1), check(true, 9));
        let both =
            |check| Attempt { wrote: vec![("a.py", "x"), ("b.py", "y")], check: Some(check), ..NOTHING };
        assert_eq!(attempts.answered(&both(&worse)), Move::Whole);
        restore(&mut attempts, &[("a.py", "old"), ("b.py", "old")]);
        assert_eq!(attempts.answered(&both(&best)), Move::Done);
        assert_eq!(attempts.base()[1].content, "y");
    }

    #[test]
    fn branches_of_an_unchanged_answer_are_tried_line_by_line() {
        let mut attempts = attempts();
        let doubts = [doubt("1", "3", -2.0), doubt("2", "4", -1.0)];
        assert_eq!(prefix(&attempts.answered(&unchanged(&doubts))), "a = 1\nb = 4");
        let next = attempts.line("");
        let next = tried(&mut attempts, &next, "a = 1\nb = 4\n", &check(false, 2));
        assert_eq!(prefix(&next), "a = 3");
        let next = attempts.line("");
        assert_eq!(tried(&mut attempts, &next, "a = 3\nb = 2\n", &check(true, 9)), Move::Done);
    }

    #[test]
    fn a_branch_after_the_change_keeps_it_and_a_branch_before_the_change_drops_it() {
        let mut attempts = attempts();
        let answer = "```\na = 1\nb = 7\n```";
        let doubts = [doubt("1", "3", -2.0), doubt("\n```", " + a", -1.0)];
        let worse = check(false, 2);
        let wrote = vec![("a.py", "a = 1\nb = 7\n")];
        let attempt = Attempt { answer, blocks: &BLOCK, doubts: &doubts, wrote, check: Some(&worse) };
        assert_eq!(prefix(&attempts.answered(&attempt)), "a = 1\nb = 7 + a");
        let next = attempts.line("");
        assert_eq!(prefix(&tried(&mut attempts, &next, "a = 1\nb = 7 + a\n", &worse)), "a = 3");
        let next = attempts.line("");
        assert_eq!(tried(&mut attempts, &next, "a = 3\nb = 2\n", &check(true, 9)), Move::Done);
    }

    #[test]
    fn a_line_that_makes_more_tests_pass_is_kept_while_the_other_branches_are_tried() {
        let mut attempts = attempts();
        let doubts = [doubt("1", "3", -2.0), doubt("2", "4", -1.0)];
        assert_eq!(prefix(&attempts.answered(&unchanged(&doubts))), "a = 1\nb = 4");
        let next = attempts.line("");
        let next = tried(&mut attempts, &next, "a = 1\nb = 4\n", &check(false, 3));
        assert_eq!(prefix(&next), "a = 3");
        assert_eq!(
            attempts.line(""),
            Move::Try(vec!["a = 3\nb = 4\n".into()]),
            "should start from the better file"
        );
    }

    #[test]
    fn a_report_without_counts_is_no_worse_than_one_without_passing_tests() {
        let mut attempts = attempts();
        let without = Check { facts: serde_json::Value::Null, ..check(false, 0) };
        attempts.best = Some(without);
        assert_eq!(attempts.answered(&wrote("other", &check(false, 0))), Move::Whole);
        assert_eq!(attempts.base()[0].content, "a = 1\nb = 2\n");
    }

    #[test]
    fn a_candidate_that_is_in_the_tree_already_is_not_verified_again() {
        let mut attempts = attempts();
        let answer = "```\na = 1\nb = 4\n```";
        let doubts = [doubt("1", "3", -1.0), doubt("1", "1", -2.0)];
        let worse = check(false, 2);
        let wrote = vec![("a.py", "a = 3\nb = 2\n")];
        let attempt = Attempt { answer, blocks: &BLOCK, doubts: &doubts, wrote, check: Some(&worse) };
        assert_eq!(prefix(&attempts.answered(&attempt)), "a = 3");
        assert_eq!(prefix(&attempts.line("")), "a = 1", "the next branch");
    }

    #[test]
    fn a_version_that_fails_never_replaces_one_that_passes() {
        let mut attempts = attempts();
        attempts.best = Some(check(true, 5));
        assert_eq!(attempts.answered(&wrote("more tests", &check(false, 7))), Move::Whole);
        assert_eq!(attempts.base()[0].content, "a = 1\nb = 2\n");
    }

    #[test]
    fn branches_end_when_their_verifications_have_taken_too_long() {
        let mut attempts = attempts();
        let doubts = [doubt("1", "3", -2.0), doubt("2", "4", -1.0)];
        assert_eq!(prefix(&attempts.answered(&unchanged(&doubts))), "a = 1\nb = 4");
        let next = attempts.line("");
        let hung = Check { ms: BRANCH_CHECK_MS + 1, ..check(false, 2) };
        assert_eq!(tried(&mut attempts, &next, "a = 1\nb = 4\n", &hung), Move::Whole);
    }

    #[test]
    fn slow_verifications_reduce_the_number_of_branches() {
        let mut attempts = attempts();
        attempts.best = Some(Check { ms: 40_000, ..check(false, 2) });
        assert_eq!(attempts.answered(&unchanged(&[doubt("1", "3", -1.0)])), Move::Whole);
    }
}
