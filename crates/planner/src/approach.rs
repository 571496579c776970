//! The whole-file approach for small models: show the file that the task is about, or up to three
//! files, ask for them corrected, verify, and try the places where the model was unsure.
//!
//! Measured on a 1.5B model: shown a file and asked for the whole of it, the model solves most
//! short repairs of one file. Asked to call tools it solves few, and feedback never helped. So the
//! first attempt is exactly the plain request that `scripts/floor` measures. If it fails, the
//! places where the model was unsure are tried ([`crate::branches`]). Then the same request is sent
//! again at a higher temperature. A change stays only if more tests pass with it, so the tree never
//! ends up worse than before.
//!
//! Pure: outcomes go in, and the next move comes out.

use std::collections::VecDeque;

use journal::{Check, Doubt};

use crate::blocks::Focus;
use crate::branches::{self, Branch};

/// Verification time that branches may take, in milliseconds. Each branch runs the verification up
/// to twice.
const BRANCH_CHECK_MS: u64 = 60_000;

/// Requests for the whole file.
const MAX_ATTEMPTS: u32 = 2;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Move {
    /// Ask for the whole file.
    Whole,
    /// Ask for the rest of a line.
    Line {
        /// The text that the model continues.
        prefix: String,
    },
    /// Write this and verify it.
    Try(String),
    /// The verification passes, or there is none and the file has changed.
    Done,
    /// Nothing is left to try.
    GiveUp,
}

/// The outcome of an answer to [`Move::Whole`].
pub(crate) struct Attempt<'a> {
    pub(crate) answer: &'a str,
    /// Where its fenced block begins, if it has one.
    pub(crate) block: Option<usize>,
    pub(crate) doubts: &'a [Doubt],
    /// The path and the new content of the files that were written.
    pub(crate) wrote: Vec<(&'a str, &'a str)>,
    pub(crate) check: Option<&'a Check>,
}

/// The attempts of a run.
#[derive(Debug)]
pub(crate) struct Attempts {
    /// The best version of the files so far. Attempts start from it.
    base: Vec<Focus>,
    /// Their content in the tree.
    in_tree: Vec<String>,
    number: u32,
    branched: bool,
    /// The result of the verification on `base`.
    best: Option<Check>,
    branches: VecDeque<Branch>,
    current: Option<Branch>,
    candidates: VecDeque<String>,
    /// Whether anything was written.
    wrote: bool,
}

impl Attempts {
    /// The attempts at these files; `None` if there are none. `before` is the result of the
    /// verification on them.
    pub(crate) fn new(files: Vec<Focus>, before: Option<Check>) -> Option<Self> {
        (!files.is_empty()).then(|| Self {
            in_tree: files.iter().map(|file| file.content.clone()).collect(),
            base: files,
            number: 1,
            branched: false,
            best: before,
            branches: VecDeque::new(),
            current: None,
            candidates: VecDeque::new(),
            wrote: false,
        })
    }

    /// The best version of the files so far.
    pub(crate) fn base(&self) -> &[Focus] {
        &self.base
    }

    /// The index of a file of which the tree holds another version than [`Attempts::base`].
    fn changed(&self) -> Option<usize> {
        self.base.iter().zip(&self.in_tree).position(|(base, in_tree)| base.content != *in_tree)
    }

    /// A file of which the tree holds another version than [`Attempts::base`].
    pub(crate) fn to_restore(&self) -> Option<&Focus> {
        self.changed().map(|index| &self.base[index])
    }

    /// Whether nothing has been written.
    pub(crate) fn untouched(&self) -> bool {
        !self.wrote
    }

    /// Whether the verification fails on the best version of the files.
    pub(crate) fn fails(&self) -> bool {
        self.best.as_ref().is_some_and(|check| !check.passed)
    }

    /// Records that the tree holds the base of [`Attempts::to_restore`] again.
    pub(crate) fn restored(&mut self) {
        if let Some(index) = self.changed() {
            self.in_tree[index].clone_from(&self.base[index].content);
        }
    }

    /// The number of the current request for the whole file, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Temperature and seed: as given for the first request, then warm. The same request at
    /// temperature 0 gives the same bytes.
    pub(crate) fn sampling(&self, base: f32, seed: Option<u64>) -> (f32, Option<u64>) {
        if self.number == 1 { (base, seed) } else { (1.0, seed.or(Some(u64::from(self.number - 1)))) }
    }

    /// The verification of the files as they are in the tree, if known.
    pub(crate) fn check_in_tree(&self) -> Option<&Check> {
        self.best.as_ref().filter(|_| self.changed().is_none())
    }

    /// The move after an answer with whole files.
    pub(crate) fn answered(&mut self, attempt: &Attempt<'_>) -> Move {
        let before = self.base.clone();
        if !attempt.wrote.is_empty() {
            for (path, content) in &attempt.wrote {
                if let Some(index) = self.base.iter().position(|file| file.path == *path) {
                    (*content).clone_into(&mut self.in_tree[index]);
                }
            }
            let Some(check) = attempt.check else { return Move::Done };
            if self.wrote(check) {
                return Move::Done;
            }
        }
        if self.base == before {
            self.find_branches(attempt);
        }
        self.next_branch()
    }

    /// The move after an answer with the rest of a line.
    pub(crate) fn line(&mut self, rest: &str) -> Move {
        if let Some(branch) = self.current.take() {
            self.candidates = branches::candidates(&self.base[0].content, &branch, rest).into();
        }
        self.next_candidate()
    }

    /// The move after [`Move::Try`].
    pub(crate) fn tried(&mut self, content: &str, check: &Check) -> Move {
        let before = self.base[0].content.clone();
        content.clone_into(&mut self.in_tree[0]);
        if self.wrote(check) {
            return Move::Done;
        }
        let base = &self.base[0].content;
        if *base != before {
            // Better but not good: the bug may be in two places. The other branches continue from
            // here.
            self.candidates.clear();
            self.branches = self.branches.iter().filter_map(|b| branches::moved(b, &before, base)).collect();
        }
        self.next_candidate()
    }

    /// Records the result of the verification on the files in the tree. Returns whether it passes.
    fn wrote(&mut self, check: &Check) -> bool {
        self.wrote = true;
        if check.passed || passing(check) > self.best.as_ref().and_then(passing) {
            for (base, in_tree) in self.base.iter_mut().zip(&self.in_tree) {
                base.content.clone_from(in_tree);
            }
            self.best = Some(check.clone());
        }
        check.passed
    }

    fn find_branches(&mut self, attempt: &Attempt<'_>) {
        let Some((block, best)) = attempt.block.zip(self.best.as_ref()) else { return };
        // A verification that passes cannot tell a good line from a bad one.
        if self.branched || best.passed {
            return;
        }
        let affordable = (BRANCH_CHECK_MS / (2 * best.ms).max(1)) as usize;
        self.branches = branches::find(attempt.answer, block, &self.base[0].content, attempt.doubts).into();
        self.branches.truncate(affordable);
        self.branched = !self.branches.is_empty();
    }

    fn next_candidate(&mut self) -> Move {
        match self.candidates.pop_front() {
            Some(content) => Move::Try(content),
            None => self.next_branch(),
        }
    }

    fn next_branch(&mut self) -> Move {
        if let Some(branch) = self.branches.pop_front() {
            let prefix = branch.prefix.clone();
            self.current = Some(branch);
            return Move::Line { prefix };
        }
        if self.number >= MAX_ATTEMPTS {
            return Move::GiveUp;
        }
        self.number += 1;
        Move::Whole
    }
}

/// How many tests pass, if the report says. Passing tests count, not failing ones, because a file
/// that does not compile fails once.
fn passing(check: &Check) -> Option<u64> {
    check.facts.get("passed").and_then(serde_json::Value::as_u64)
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
        Attempt { answer: "", block: None, doubts: &[], wrote: vec![("a.py", content)], check: Some(check) }
    }

    const NOTHING: Attempt<'static> =
        Attempt { answer: "", block: None, doubts: &[], wrote: Vec::new(), check: None };

    #[test]
    fn the_request_is_repeated_warm_and_then_attempts_end() {
        let mut attempts = attempts();
        assert_eq!(attempts.sampling(0.0, None), (0.0, None));
        assert_eq!(attempts.answered(&wrote("worse", &check(false, 1))), Move::Whole);
        assert_eq!(attempts.sampling(0.0, None), (1.0, Some(1)));
        assert_eq!(attempts.to_restore().unwrap().content, "a = 1\nb = 2\n");
        attempts.restored();
        assert_eq!(attempts.to_restore(), None);
        assert_eq!(attempts.answered(&NOTHING), Move::GiveUp);
    }

    #[test]
    fn the_next_attempt_starts_from_the_version_with_more_passing_tests() {
        let mut attempts = attempts();
        assert_eq!(attempts.answered(&wrote("better", &check(false, 3))), Move::Whole);
        assert_eq!((attempts.base()[0].content.as_str(), attempts.to_restore()), ("better", None));
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
        for path in ["a.py", "b.py"] {
            let file = attempts.to_restore().unwrap();
            assert_eq!((file.path.as_str(), file.content.as_str()), (path, "old"));
            attempts.restored();
        }
        assert_eq!(attempts.to_restore(), None);
        assert_eq!(attempts.answered(&both(&best)), Move::Done);
        assert_eq!(attempts.base()[1].content, "y");
    }

    #[test]
    fn branches_of_an_unchanged_answer_are_tried_line_by_line() {
        let mut attempts = attempts();
        let answer = "```\na = 1\nb = 2\n```";
        let doubt = |place: &str, other: &str, logprob| Doubt {
            at: answer.find(place).unwrap() as u64,
            chosen: String::new(),
            other: other.into(),
            logprob,
        };
        let doubts = [doubt("1", "3", -2.0), doubt("2", "4", -1.0)];
        let unchanged = Attempt { answer, block: Some(0), doubts: &doubts, wrote: Vec::new(), check: None };
        assert_eq!(attempts.answered(&unchanged), Move::Line { prefix: "```\na = 1\nb = 4".into() });
        assert_eq!(attempts.line(""), Move::Try("a = 1\nb = 4\n".into()));
        assert_eq!(
            attempts.tried("a = 1\nb = 4\n", &check(false, 2)),
            Move::Line { prefix: "```\na = 3".into() }
        );
        assert_eq!(attempts.line(""), Move::Try("a = 3\nb = 2\n".into()));
        assert_eq!(attempts.tried("a = 3\nb = 2\n", &check(true, 9)), Move::Done);
    }

    #[test]
    fn a_line_that_makes_more_tests_pass_is_kept_while_the_other_branches_are_tried() {
        let mut attempts = attempts();
        let answer = "```\na = 1\nb = 2\n```";
        let doubt =
            |at, other: &str, logprob| Doubt { at, chosen: String::new(), other: other.into(), logprob };
        let doubts = [doubt(8, "3", -2.0), doubt(14, "4", -1.0)];
        let unchanged = Attempt { answer, block: Some(0), doubts: &doubts, wrote: Vec::new(), check: None };
        assert_eq!(attempts.answered(&unchanged), Move::Line { prefix: "```\na = 1\nb = 4".into() });
        assert_eq!(attempts.line(""), Move::Try("a = 1\nb = 4\n".into()));
        assert_eq!(
            attempts.tried("a = 1\nb = 4\n", &check(false, 3)),
            Move::Line { prefix: "```\na = 3".into() }
        );
        assert_eq!(attempts.line(""), Move::Try("a = 3\nb = 4\n".into()), "from the better file");
    }

    #[test]
    fn slow_verifications_leave_fewer_branches() {
        let mut attempts = attempts();
        attempts.best = Some(Check { ms: 40_000, ..check(false, 2) });
        let answer = "```\na = 1\nb = 2\n```";
        let doubts = [Doubt { at: 8, chosen: "1".into(), other: "3".into(), logprob: -1.0 }];
        let unchanged = Attempt { answer, block: Some(0), doubts: &doubts, wrote: Vec::new(), check: None };
        assert_eq!(attempts.answered(&unchanged), Move::Whole);
    }
}
