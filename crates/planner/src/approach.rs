//! The whole-file approach for small models: show one file, ask for it back corrected, verify, and begin afresh in other words.
//!
//! Measured on a 1.5B model: shown a file and asked for it whole it solves most one-file repairs; asked to work by tools it solves
//! few, and no answer to feedback ever helped, while another wording of the same request did. So the first attempt is the plain
//! request, and each further one starts from the head of the conversation with another wording. What an attempt wrote stays
//! only if it left fewer failures than before; the tree is never worse than it was found.

use journal::Check;

use crate::answer::Focus;

/// What to do after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Next {
    /// The verification passes, or there is none and the file was changed.
    Done,
    /// Another attempt, after putting back what was there, if the last one made things no better.
    Again { restore: Option<Focus> },
    /// No attempt is left.
    Enough { restore: Option<Focus> },
}

/// The attempts of a run.
#[derive(Debug)]
pub(crate) struct Attempts {
    focus: Focus,
    number: u32,
    most: u32,
    /// What fails now, where anything is known to.
    failing: Option<Check>,
}

impl Attempts {
    pub(crate) fn new(focus: Focus, most: u32) -> Self {
        Self { focus, number: 1, most: most.max(1), failing: None }
    }

    /// Notes what fails before the first attempt.
    pub(crate) fn begin(&mut self, failing: Option<&Check>) {
        self.failing = failing.cloned();
    }

    /// The file as it is now.
    pub(crate) fn focus(&self) -> &Focus {
        &self.focus
    }

    /// The attempt under way, from 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// What fails now.
    pub(crate) fn failing(&self) -> Option<&Check> {
        self.failing.as_ref()
    }

    /// Temperature and seed: as set for the first wordings, warm for the later ones, since a warm sample is what then still helps.
    pub(crate) fn sampling(&self, base: f32) -> (f32, Option<u64>) {
        if self.number <= WORDINGS { (base, None) } else { (base.max(0.7), Some(u64::from(self.number))) }
    }

    /// Judges an attempt by what it wrote and what the verification then says.
    pub(crate) fn judge(&mut self, wrote: Option<&str>, check: Option<&Check>) -> Next {
        let restore = match (wrote, check) {
            (None, _) => None,
            (Some(_), None) => return Next::Done,
            (Some(_), Some(check)) if check.passed => return Next::Done,
            (Some(content), Some(check)) => {
                if passing(check) > self.failing.as_ref().and_then(passing) {
                    content.clone_into(&mut self.focus.content);
                    self.failing = Some(check.clone());
                    None
                } else {
                    Some(self.focus.clone())
                }
            }
        };
        if self.number >= self.most {
            return Next::Enough { restore };
        }
        self.number += 1;
        Next::Again { restore }
    }
}

/// Attempts at the run's own temperature, each in words of its own (`prompts/whole_file/`).
pub(crate) const WORDINGS: u32 = 3;

/// How many tests pass, where the report says. Passing tests, not failing ones: a file that no longer compiles fails only once.
fn passing(check: &Check) -> Option<u64> {
    check.facts.get("passed").and_then(serde_json::Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(passed: bool, passing: u64) -> Check {
        let facts = serde_json::json!({ "passed": passing });
        Check { command: "t".into(), passed, text: String::new(), facts, ms: 0 }
    }

    fn focus(content: &str) -> Focus {
        Focus { path: "a.py".into(), content: content.into() }
    }

    #[test]
    fn an_attempt_that_makes_things_no_better_is_put_back() {
        let mut attempts = Attempts::new(focus("old"), 3);
        attempts.begin(Some(&check(false, 2)));
        assert_eq!(
            attempts.judge(Some("worse"), Some(&check(false, 2))),
            Next::Again { restore: Some(focus("old")) }
        );
        assert_eq!(attempts.judge(None, None), Next::Again { restore: None });
        assert_eq!(
            attempts.judge(Some("worse"), Some(&check(false, 0))),
            Next::Enough { restore: Some(focus("old")) }
        );
    }

    #[test]
    fn an_attempt_that_makes_more_tests_pass_is_what_the_next_one_starts_from() {
        let mut attempts = Attempts::new(focus("old"), 3);
        attempts.begin(Some(&check(false, 2)));
        assert_eq!(attempts.judge(Some("better"), Some(&check(false, 3))), Next::Again { restore: None });
        assert_eq!(attempts.focus().content, "better");
        assert_eq!(attempts.judge(Some("best"), Some(&check(true, 9))), Next::Done);
    }
}
