//! Runs every case from `patch_corpus` through the patch engine. Checks that clean patches and at
//! least 99% of the deformed patches produce the expected bytes, that patches that must be refused
//! are refused, and that no result is wrong.
//!
//! `cargo test -p patch --test corpus -- --nocapture` prints the table. `CORPUS_SEED=7` generates a
//! different corpus, and `CORPUS_FAILURES=FILE` writes all failed cases to a file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]
#![allow(clippy::print_stderr, reason = "the test prints a table")]

mod judge;

use std::collections::BTreeMap;

use judge::{Verdict, judge};
use patch_corpus::Class;

#[derive(Default)]
struct Count {
    all: usize,
    by: BTreeMap<Verdict, usize>,
}

impl Count {
    fn add(&mut self, verdict: Verdict) {
        self.all += 1;
        *self.by.entry(verdict).or_default() += 1;
    }

    fn of(&self, verdict: Verdict) -> usize {
        self.by.get(&verdict).copied().unwrap_or_default()
    }

    fn row(&self, name: &str) -> String {
        let of = |v| self.of(v);
        let right = of(Verdict::Right);
        format!(
            "{name:<36} {:>6} {:>6} {:>7} {:>6} {:>6} {:>8.2}%",
            self.all,
            right,
            of(Verdict::Refused),
            of(Verdict::OtherKind),
            of(Verdict::Wrong),
            right as f64 * 100.0 / self.all.max(1) as f64
        )
    }
}

#[test]
fn every_corpus_case_applies_or_is_refused_as_expected() {
    let seed = std::env::var("CORPUS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_default();
    let cases = patch_corpus::cases_for_seed(seed);
    let mut classes: BTreeMap<Class, Count> = BTreeMap::new();
    let mut alone: BTreeMap<String, Count> = BTreeMap::new();
    let mut at_once: BTreeMap<String, Count> = BTreeMap::new();
    let mut failures: Vec<String> = Vec::new();
    for case in cases.iter().filter(|c| c.class != Class::Security) {
        let (verdict, why) = judge(case);
        classes.entry(case.class).or_default().add(verdict);
        let table = if case.deformations.len() > 1 { &mut at_once } else { &mut alone };
        if case.class != Class::Either {
            for name in &case.deformations {
                table.entry((*name).to_owned()).or_default().add(verdict);
            }
            table.entry(format!("~ {:?}", case.form)).or_default().add(verdict);
        }
        if verdict != Verdict::Right {
            failures.push(format!(
                "{verdict:?} {:?} {}\n    {}",
                case.class,
                case.name,
                why.replace('\n', "\n    ")
            ));
        }
    }
    let mut table = format!(
        "{:<36} {:>6} {:>6} {:>7} {:>6} {:>6} {:>9}\n",
        "", "cases", "right", "refused", "kind", "WRONG", "right"
    );
    for (name, rows) in [("alone", &alone), ("several at once", &at_once)] {
        table += &format!("-- {name}\n");
        rows.iter().for_each(|(name, count)| table += &(count.row(name) + "\n"));
    }
    table += "-- by class\n";
    classes.iter().for_each(|(class, count)| table += &(count.row(&format!("{class:?}")) + "\n"));
    eprintln!("{table}");
    failures.sort();
    if let Ok(path) = std::env::var("CORPUS_FAILURES") {
        std::fs::write(path, failures.join("\n")).unwrap();
    }
    let of = |class, verdict| classes.get(&class).map_or(0, |c| c.of(verdict));
    let all = |class| classes.get(&class).map_or(0, |c: &Count| c.all);
    let shown = || failures.iter().take(40).map(String::as_str).collect::<Vec<_>>().join("\n");
    let wrong: usize = classes.values().map(|c| c.of(Verdict::Wrong)).sum();
    assert!(
        wrong == 0,
        "{wrong} wrong results\n{}",
        failures.iter().filter(|f| f.starts_with("Wrong")).take(40).cloned().collect::<Vec<_>>().join("\n")
    );
    assert_eq!(of(Class::Clean, Verdict::Right), all(Class::Clean), "clean patches\n{}", shown());
    assert_eq!(
        of(Class::MustRefuse, Verdict::Right),
        all(Class::MustRefuse),
        "patches that must be refused\n{}",
        shown()
    );
    let deformed = of(Class::Deformed, Verdict::Right);
    assert!(
        deformed * 100 >= all(Class::Deformed) * 99,
        "{deformed} of {} deformed patches\n{}",
        all(Class::Deformed),
        shown()
    );
    assert!(all(Class::Clean) >= 1000 && all(Class::Deformed) >= 2000);
}

#[test]
fn generated_cases_apply_correctly_or_are_refused() {
    let from: u64 = std::env::var("CORPUS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_default();
    let count = std::env::var("CORPUS_COUNT").ok().and_then(|s| s.parse().ok()).unwrap_or(3000);
    let cases = (from * count..(from + 1) * count).filter_map(patch_corpus::generate_case);
    let mut failures = Vec::new();
    for case in cases {
        match (case.class, judge(&case)) {
            (_, (Verdict::Right, _)) | (Class::Deformed, (Verdict::Refused, _)) => {}
            (class, (verdict, why)) => {
                failures.push(format!("{verdict:?} {class:?} {}\n    {why}", case.name))
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}
