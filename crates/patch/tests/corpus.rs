//! Every case of `patch_corpus` through the pure engine: what has to go in goes in byte for byte, what may not is refused, and never is
//! there a wrong result.
//!
//! `cargo test -p patch --test corpus -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "the table is what the test is for")]

use std::collections::BTreeMap;

use patch::{Action, Dialect, FilePatch, apply};
use patch_corpus::{Case, Class, Expected, Input, Tree};

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// As it has to be.
    Right,
    /// Refused, and it should have gone in.
    Refused,
    /// It went in, and the bytes are others than expected, or it should not have gone in at all.
    Wrong,
    /// Refused rightly, but for another reason than the right one.
    OtherKind,
}

fn patches(input: &Input) -> Result<Vec<FilePatch>, String> {
    let file = |path: &str, action| FilePatch {
        dialect: Dialect::WholeFile,
        path: path.into(),
        from: None,
        action,
        hunks: Vec::new(),
        executable: None,
    };
    match input {
        Input::Edits(edits) => {
            let edits = edits.iter().map(|e| (e.path.as_str(), e.search.as_str(), e.replace.as_str()));
            Ok(patch::edits(edits))
        }
        Input::Whole { path, content } => Ok(vec![patch::whole(path, content.as_bytes())]),
        Input::WholeLines { path, lines } => {
            Ok(vec![patch::whole(path, patch_corpus::joined(lines).as_bytes())])
        }
        Input::Delete { path } => Ok(vec![file(path, Action::Delete)]),
        Input::Text(_) | Input::Lines(_) => {
            patch::parse(&input.text().unwrap()).map_err(|e| format!("parse: {e}"))
        }
    }
}

/// The tree afterwards, or the kind of refusal and the feedback. What a workspace would see to is done here: no file is changed twice, or
/// renamed onto another.
fn run(case: &Case) -> Result<Tree, String> {
    let mut out = case.before.clone();
    let mut touched = Vec::new();
    for patch in patches(&case.input)? {
        let source = patch.from.as_ref().unwrap_or(&patch.path);
        let before = case.before.get(source);
        let applied = apply(before.map(|(bytes, _)| bytes.as_slice()), &patch)
            .map_err(|e| format!("{}: {e}", serde_json::to_value(e.kind).unwrap().as_str().unwrap()))?;
        if touched.contains(&patch.path) || patch.from.is_some() && case.before.contains_key(&patch.path) {
            return Err(format!("twice: {}", patch.path));
        }
        touched.push(patch.path.clone());
        if patch.from.is_some() {
            out.remove(source);
        }
        let executable = patch.executable.unwrap_or(before.is_some_and(|(_, x)| *x));
        match applied.bytes {
            Some(bytes) => out.insert(patch.path.clone(), (bytes, executable)),
            None => out.remove(&patch.path),
        };
    }
    Ok(out)
}

fn judge(case: &Case) -> (Verdict, String) {
    match (&case.expected, run(case)) {
        (Expected::Tree(tree), Ok(after)) if after == *tree => (Verdict::Right, String::new()),
        (Expected::Tree(tree), Ok(after)) => (Verdict::Wrong, difference(&after, tree)),
        (Expected::Tree(_), Err(_)) if case.class == Class::Either => (Verdict::Right, String::new()),
        (Expected::Tree(_), Err(why)) => (Verdict::Refused, why),
        (Expected::Refused(_), Ok(after)) => (Verdict::Wrong, difference(&after, &case.before)),
        (Expected::Refused(Some(kind)), Err(why)) if !why.starts_with(&format!("{kind}:")) => {
            (Verdict::OtherKind, format!("{kind} is right, not {why}"))
        }
        (Expected::Refused(_), Err(_)) => (Verdict::Right, String::new()),
    }
}

fn difference(got: &Tree, wanted: &Tree) -> String {
    for path in got.keys().chain(wanted.keys()) {
        let (got, wanted) = (got.get(path), wanted.get(path));
        if got == wanted {
            continue;
        }
        let (Some((got, x)), Some((wanted, y))) = (got, wanted) else {
            return format!("{path}: there {} instead of {}", got.is_some(), wanted.is_some());
        };
        let (got, wanted): (Vec<_>, Vec<_>) = (
            got.split_inclusive(|b| *b == b'\n').collect(),
            wanted.split_inclusive(|b| *b == b'\n').collect(),
        );
        let at = got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        let show = |lines: &[&[u8]]| {
            let lines = &lines[at.min(lines.len())..(at + 3).min(lines.len())];
            String::from_utf8_lossy(&lines.concat()).chars().take(200).collect::<String>()
        };
        let mode = if x == y { "" } else { "; the mode differs" };
        return format!("{path}: line {} is {:?} instead of {:?}{mode}", at + 1, show(&got), show(&wanted));
    }
    "nothing differs".into()
}

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
fn the_corpus_goes_in_or_is_refused_as_it_has_to_be() {
    let cases = patch_corpus::cases();
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
        "what must be refused\n{}",
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
