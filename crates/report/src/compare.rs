//! Compares two batches: which tasks got better or worse, and whether that could be due to chance.

use std::collections::HashMap;
use std::fmt::Write as _;

use batch::{Folder, Row, State};
use preview::figures::{plural, thousands};
use preview::sanitize;
use serde::Serialize;

use crate::outcome::seconds;

/// A task-by-task comparison of two batches. A task is compared if both batches have a result for
/// it, that is, an attempt that did not end in an infrastructure failure. A compared task got
/// better or worse if it is verified in only one of the batches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Version of the format: 1.
    pub v: u32,
    /// The first batch.
    pub a: Side,
    /// The second batch.
    pub b: Side,
    /// Tasks verified only in B.
    pub better: Vec<String>,
    /// Tasks verified only in A.
    pub worse: Vec<String>,
    /// Tasks verified in both.
    pub both: usize,
    /// Tasks verified in neither.
    pub neither: usize,
    /// Tasks without a result in A or in B.
    pub no_result: Vec<String>,
    /// Tasks that are missing from A.
    pub only_b: Vec<String>,
    /// Tasks that are missing from B.
    pub only_a: Vec<String>,
    /// Compared tasks whose descriptions differ.
    pub changed: Vec<String>,
    /// The two-sided p-value of the sign test: the probability that, if neither batch is actually
    /// better, the numbers of better and worse tasks would differ by at least this much. Tasks that
    /// are neither better nor worse are left out.
    pub p: f64,
}

/// One of the two batches. The sums cover only the compared tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Side {
    /// The name of the batch, as shown in the comparison.
    pub name: String,
    /// The number of tasks in the batch.
    pub tasks: usize,
    /// The number of verified tasks in the batch.
    pub verified: usize,
    /// Tasks with both verified and unverified attempts.
    pub flaky: Vec<String>,
    /// Prompt and generated tokens.
    pub tokens: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Requests answered by the model.
    pub turns: u64,
    /// Cost in dollars, or `None` if a price is missing.
    pub cost: Option<f64>,
}

impl Side {
    fn new(name: &str, folder: &Folder) -> Self {
        let flaky = folder.tasks.iter().filter(|task| task.is_flaky());
        Self {
            name: name.to_owned(),
            tasks: folder.tasks.len(),
            verified: folder.tasks.iter().filter(|task| task.row.is_verified()).count(),
            flaky: flaky.map(|task| task.row.id.clone()).collect(),
            cost: Some(0.0),
            ..Self::default()
        }
    }

    fn add(&mut self, row: &Row) {
        self.tokens = self.tokens.saturating_add(row.tokens);
        self.seconds += row.seconds;
        self.turns += u64::from(row.turns);
        self.cost = self.cost.zip(row.cost).map(|(sum, cost)| sum + cost);
    }
}

impl Comparison {
    /// Compares two batches, each with its display name.
    #[must_use]
    pub fn new(a: (&str, &Folder), b: (&str, &Folder)) -> Self {
        let others: HashMap<&str, &State> = b.1.tasks.iter().map(|s| (s.row.id.as_str(), s)).collect();
        let known: HashMap<&str, &State> = a.1.tasks.iter().map(|s| (s.row.id.as_str(), s)).collect();
        let missing = |tasks: &[State], other: &HashMap<&str, &State>| {
            let ids = tasks.iter().map(|state| state.row.id.as_str());
            ids.filter(|id| !other.contains_key(id)).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut out = Self {
            v: 1,
            a: Side::new(a.0, a.1),
            b: Side::new(b.0, b.1),
            better: Vec::new(),
            worse: Vec::new(),
            both: 0,
            neither: 0,
            no_result: Vec::new(),
            only_b: missing(&b.1.tasks, &known),
            only_a: missing(&a.1.tasks, &others),
            changed: Vec::new(),
            p: 1.0,
        };
        for before in &a.1.tasks {
            let Some(after) = others.get(before.row.id.as_str()) else { continue };
            out.add(before, after);
        }
        if out.better.len() + out.worse.len() + out.both + out.neither == 0 {
            (out.a.cost, out.b.cost) = (None, None);
        }
        out.p = sign_test(out.better.len(), out.worse.len());
        out
    }

    fn add(&mut self, before: &State, after: &State) {
        let id = before.row.id.clone();
        if !before.row.has_result() || !after.row.has_result() {
            return self.no_result.push(id);
        }
        if before.digest != after.digest {
            self.changed.push(id.clone());
        }
        self.a.add(&before.row);
        self.b.add(&after.row);
        match (before.row.is_verified(), after.row.is_verified()) {
            (false, true) => self.better.push(id),
            (true, false) => self.worse.push(id),
            (true, true) => self.both += 1,
            (false, false) => self.neither += 1,
        }
    }

    /// Returns the comparison as human-readable text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        for (letter, side) in [("A", &self.a), ("B", &self.b)] {
            let tasks = plural(side.tasks as u64, "task");
            let _ = writeln!(
                out,
                "{letter}  {}: {tasks}, {} verified",
                sanitize::line(&side.name),
                side.verified
            );
        }
        out.push('\n');
        let flaky = |id: &&String| self.a.flaky.contains(id) || self.b.flaky.contains(id);
        let mut list = |what: &str, ids: &[String]| {
            let _ = writeln!(out, "{what:<19} {:>5}", ids.len());
            for id in ids {
                let note = if flaky(&id) { "  (flaky)" } else { "" };
                let _ = writeln!(out, "    {}{note}", sanitize::line(id));
            }
        };
        list("better in B", &self.better);
        list("worse in B", &self.worse);
        let _ = writeln!(out, "{:<19} {:>5}", "verified in both", self.both);
        let _ = writeln!(out, "{:<19} {:>5}", "verified in neither", self.neither);
        let lists = [
            ("no result in A or B", &self.no_result),
            ("only in A", &self.only_a),
            ("only in B", &self.only_b),
            ("flaky in A", &self.a.flaky),
            ("flaky in B", &self.b.flaky),
            ("changed description", &self.changed),
        ];
        for (what, ids) in lists.iter().filter(|(_, ids)| !ids.is_empty()) {
            let names: Vec<_> = ids.iter().take(10).map(|id| sanitize::line(id)).collect();
            let more = if ids.len() > 10 { ", …" } else { "" };
            let _ = writeln!(out, "{what:<19} {:>5}  {}{more}", ids.len(), names.join(", "));
        }
        let _ = writeln!(
            out,
            "\nsign test: p = {} ({} better, {} worse)",
            probability(self.p),
            self.better.len(),
            self.worse.len()
        );
        self.sums(&mut out);
        out
    }

    fn sums(&self, out: &mut String) {
        let (a, b) = (&self.a, &self.b);
        let compared = self.better.len() + self.worse.len() + self.both + self.neither;
        let _ = writeln!(
            out,
            "\n{:<19} {:>15} {:>15} {:>7}",
            plural(compared as u64, "compared task"),
            "A",
            "B",
            "B/A"
        );
        let mut line = |what: &str, a: (f64, String), b: (f64, String)| {
            let ratio = if a.0 > 0.0 { format!("{:.2}", b.0 / a.0) } else { "-".into() };
            let _ = writeln!(out, "{what:<19} {:>15} {:>15} {ratio:>7}", a.1, b.1);
        };
        let count = |n: u64| (n as f64, thousands(n));
        line("tokens", count(a.tokens), count(b.tokens));
        line("turns", count(a.turns), count(b.turns));
        line("time", (a.seconds, seconds(a.seconds)), (b.seconds, seconds(b.seconds)));
        if let (Some(a), Some(b)) = (a.cost, b.cost) {
            line("cost", (a, format!("${a:.4}")), (b, format!("${b:.4}")));
        }
    }
}

fn probability(p: f64) -> String {
    if p < 0.001 { "less than 0.001".into() } else { format!("{p:.3}") }
}

/// Returns the two-sided p-value of the sign test: the probability that a fair coin, tossed once
/// for each task that differs, produces a split at least this uneven.
fn sign_test(better: usize, worse: usize) -> f64 {
    let n = better + worse;
    // The logarithm of `(n choose i) / 2^n`, updated for each i. Computing 2^n directly would
    // overflow for thousands of tasks.
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for i in 0..=better.min(worse) {
        tail += log.exp();
        log += ((n - i) as f64).ln() - ((i + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::row;
    use batch::Finished;
    use journal::{Diff, Ending, Totals};

    fn state(id: &str, endings: &[Ending]) -> State {
        let attempt = |(n, ending): (usize, &Ending)| Finished {
            v: 1,
            id: id.into(),
            attempt: n as u32 + 1,
            digest: "x".into(),
            time_ms: 0,
            ending: ending.clone(),
            infrastructure: ending.is_infrastructure(),
            message: String::new(),
            diff: Diff::default(),
            models: Vec::new(),
            totals: Totals::default(),
            seconds: 1.0,
            session: None,
        };
        State {
            row: row(id, endings.last().cloned(), ""),
            digest: "x".into(),
            attempts: endings.iter().enumerate().map(attempt).collect(),
        }
    }

    fn compared(a: Vec<State>, b: Vec<State>) -> Comparison {
        Comparison::new(("before", &Folder { tasks: a }), ("after", &Folder { tasks: b }))
    }

    #[test]
    fn the_sign_test_gives_the_values_of_the_binomial_distribution() {
        let near = |p: f64, wanted: f64| assert!((p - wanted).abs() < 1e-9, "{p} is not {wanted}");
        near(sign_test(0, 0), 1.0);
        near(sign_test(1, 0), 1.0);
        near(sign_test(5, 0), 0.0625);
        near(sign_test(0, 6), 0.03125);
        near(sign_test(8, 2), 0.109375);
        near(sign_test(3, 3), 1.0);
        assert!(sign_test(3_000, 2_000) < 1e-40 && sign_test(2_500, 2_500) == 1.0);
    }

    #[test]
    fn each_task_is_counted_once() {
        use Ending::{GaveUp, Unavailable, Verified};
        let a = [
            ("up", GaveUp),
            ("down", Verified),
            ("good", Verified),
            ("bad", GaveUp),
            ("lost", Unavailable),
            ("a", GaveUp),
        ];
        let b = [
            ("b", GaveUp),
            ("lost", Verified),
            ("bad", GaveUp),
            ("good", Verified),
            ("down", GaveUp),
            ("up", Verified),
        ];
        let of =
            |rows: &[(&str, Ending)]| rows.iter().map(|(id, e)| state(id, std::slice::from_ref(e))).collect();
        let seen = compared(of(&a), of(&b));
        assert_eq!(
            (seen.better.as_slice(), seen.worse.as_slice()),
            (&["up".to_owned()][..], &["down".to_owned()][..])
        );
        assert_eq!((seen.both, seen.neither, seen.no_result.as_slice()), (1, 1, &["lost".to_owned()][..]));
        assert_eq!((seen.only_a, seen.only_b), (vec!["a".to_owned()], vec!["b".to_owned()]));
        assert_eq!(
            (seen.a.tokens, seen.b.turns, seen.a.cost),
            (4_000, 12, None),
            "the sums cover only compared tasks"
        );
    }

    #[test]
    fn flaky_tasks_are_marked_in_the_list_of_differences() {
        use Ending::{GaveUp, Verified};
        let seen = compared(vec![state("x", &[Verified, GaveUp])], vec![state("x", &[Verified])]);
        let text = seen.to_text();
        assert!(text.contains("better in B             1\n    x  (flaky)\n"), "{text}");
        assert!(text.contains("flaky in A              1  x\n"), "{text}");
        assert!(text.contains("sign test: p = 1.000 (1 better, 0 worse)\n"), "{text}");
        assert!(text.contains("tokens                        1,000           1,000    1.00\n"), "{text}");
    }
}
