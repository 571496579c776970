//! A batch as JUnit XML, which CI systems show as test results.

use std::time::Duration;

use batch::{Row, Summary};
use quick_junit::{NonSuccessKind, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

use crate::outcome::first_line;

/// The maximum number of characters in a message attribute.
const MESSAGE: usize = 300;

/// Writes the summary of a batch as JUnit XML, with one test case per task. A task that is not
/// verified is a failure, an infrastructure failure is an error, and a task that has not run is
/// skipped.
///
/// # Errors
/// Fails if the XML cannot be written.
pub fn junit(name: &str, summary: &Summary) -> Result<String, SerializeError> {
    let name = preview::sanitize::line(name);
    let mut suite = TestSuite::new(&*name);
    suite.add_test_cases(summary.rows.iter().map(|row| case(&name, row)));
    suite.set_time(duration(summary.seconds));
    let mut report = Report::new("agent batch");
    report.set_time(duration(summary.seconds));
    report.add_test_suite(suite);
    report.to_string()
}

fn case(name: &str, row: &Row) -> TestCase {
    let mut case = TestCase::new(row.id.as_str(), status(row));
    case.set_classname(name);
    case.set_time(duration(row.seconds));
    if row.ending.is_some() {
        let numbers = [
            ("turns", row.turns.to_string()),
            ("tokens", row.tokens.to_string()),
            ("lines_added", row.added.to_string()),
            ("lines_removed", row.removed.to_string()),
        ];
        let cost = row.cost.map(|cost| ("cost", format!("{cost:.4}")));
        let session = row.session.clone().map(|session| ("session", session));
        for property in numbers.iter().chain(&cost).chain(&session) {
            case.add_property((property.0, property.1.as_str()));
        }
    }
    case
}

fn status(row: &Row) -> TestCaseStatus {
    if row.is_verified() {
        return TestCaseStatus::success();
    }
    let mut status = match &row.ending {
        None => TestCaseStatus::skipped(),
        Some(_) if row.infrastructure => TestCaseStatus::non_success(NonSuccessKind::Error),
        Some(_) => TestCaseStatus::non_success(NonSuccessKind::Failure),
    };
    status.set_type(row.label());
    if row.ending.is_some() {
        status.set_message(first_line(&row.message, MESSAGE));
        status.set_description(preview::sanitize::text(&row.message).into_owned());
    }
    status
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{row, summary};
    use journal::Ending;

    #[test]
    fn each_kind_of_outcome_has_the_status_that_ci_systems_expect() {
        let rows = vec![
            row("done", Some(Ending::Verified), "passes"),
            row("wrong", Some(Ending::Unverified), "a <b> & \u{1b}[31m\"c\"\u{0}"),
            row("down", Some(Ending::Unavailable), "no server"),
            row("later", None, ""),
        ];
        let xml = junit("tasks", &summary(rows)).unwrap();
        assert!(xml.contains(r#"tests="4" skipped="1" errors="1" failures="1""#), "{xml}");
        assert!(xml.contains(r#"<testcase name="done" classname="tasks" time="1.500">"#), "{xml}");
        assert!(xml.contains(r#"<property name="tokens" value="1000"/>"#), "{xml}");
        assert!(
            xml.contains(r#"<failure message="a &lt;b&gt; &amp; ␛[31m&quot;c&quot;␀" type="unverified">"#),
            "{xml}"
        );
        assert!(xml.contains(r#"<error message="no server" type="model unavailable">"#), "{xml}");
        assert!(xml.contains(r#"<skipped type="not run"/>"#), "{xml}");
    }

    #[test]
    fn bug_a_message_with_a_noncharacter_was_not_well_formed_xml() {
        // The characters that XML allows (production `Char`).
        let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        for message in [all.as_str(), "x \u{ffff}"] {
            let rows = vec![row("a", Some(Ending::Unverified), message)];
            let xml = junit("tasks \u{fffe}", &summary(rows)).unwrap();
            assert_eq!(xml.chars().find(|c| !allowed(*c)), None);
        }
    }
}
