//! Tests the corpus itself: it is deterministic, it contains many cases of every form and class,
//! and every patch that must apply changes something.

use std::{collections::BTreeSet, sync::LazyLock};

use patch_corpus::{Case, Class, Expected, Form, cases, generate_case};

static CASES: LazyLock<Vec<Case>> = LazyLock::new(cases);

#[test]
fn the_corpus_is_deterministic() {
    assert!(*CASES == cases());
    assert!((0..100).all(|n| generate_case(n) == generate_case(n)));
    assert_ne!(generate_case(1), generate_case(2));
}

#[test]
fn case_names_are_unique() {
    let cases = &*CASES;
    let names: BTreeSet<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
}

#[test]
fn applied_cases_change_something_and_refused_cases_say_why() {
    for case in CASES.iter().filter(|c| c.class != Class::Security) {
        match &case.expected {
            Expected::Tree(after) => assert_ne!(*after, case.before, "{}", case.name),
            Expected::Refused(_) => assert!(!case.deformations.is_empty(), "{}", case.name),
        }
    }
}

#[test]
fn each_class_has_hundreds_of_cases_in_each_form() {
    let cases = &*CASES;
    let count = |test: &dyn Fn(&&Case) -> bool| cases.iter().filter(test).count();
    for form in [Form::Unified, Form::Git, Form::Envelope, Form::Blocks, Form::Edits, Form::Whole] {
        assert!(count(&|c| c.form == form && c.class == Class::Clean) > 300, "{form:?}");
        assert!(count(&|c| c.form == form && c.class == Class::Deformed) > 300, "{form:?}");
        assert!(
            form == Form::Whole || count(&|c| c.form == form && c.class == Class::MustRefuse) > 300,
            "{form:?}"
        );
    }
    assert!(count(&|c| c.class == Class::Security) > 500);
    let deformations: BTreeSet<&str> = cases
        .iter()
        .filter(|c| c.class == Class::Deformed)
        .flat_map(|c| c.deformations.iter().copied())
        .collect();
    for name in &deformations {
        let of = count(&|c| c.class == Class::Deformed && c.deformations.contains(name));
        assert!(
            of >= 3 || cases.iter().any(|c| c.name.starts_with("found/") && c.deformations.contains(name)),
            "{name}: {of}"
        );
    }
    assert!(deformations.len() > 50, "{}", deformations.len());
}
