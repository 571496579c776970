//! Generates patches, in every form, for paths that the model must not write. The paths are spelled
//! in many different ways.

use crate::{Case, Class, Edit, Expected, Fixture, Form, Input, Tree};

const OLD: &str = "alpha = 1\nbravo = 2\ncharlie = 3\n";
const NEW: &str = "alpha = 1\nbravo = 22\ncharlie = 3\n";

/// Returns paths that must not be written, each with the reason.
fn forbidden() -> Vec<(&'static str, String)> {
    let long = "x".repeat(5000);
    let name = "y".repeat(300);
    let list: &[(&str, &str)] = &[
        ("leads outside", "../outside/new.txt"),
        ("leads outside", "../secret.txt"),
        ("leads outside", "src/../../secret.txt"),
        ("leads outside", "src/./../..//secret.txt"),
        ("leads outside", "./../secret.txt"),
        ("leads outside", "nowhere/../../secret.txt"),
        ("leads outside", "..\\secret.txt"),
        ("leads outside", "src\\..\\..\\secret.txt"),
        ("leads outside", ".."),
        ("leads outside", "../"),
        ("absolute", "/tmp/patch-corpus-was-here.txt"),
        ("absolute", "//tmp/patch-corpus-was-here.txt"),
        ("absolute", "/etc/patch-corpus-was-here"),
        ("absolute", "/"),
        ("absolute", "/proc/self/environ"),
        ("device", "/dev/full"),
        ("device", "/dev/tty"),
        ("git's own", ".git/config"),
        ("git's own", ".git/hooks/pre-commit"),
        ("git's own", ".GIT/config"),
        ("git's own", ".Git/hooks/pre-commit"),
        ("git's own", "./.git/config"),
        ("git's own", "src/../.git/config"),
        ("git's own", ".git//config"),
        ("git's own", ".git\\config"),
        ("git's own", ".g\u{200c}it/config"),
        ("git's own", "\u{feff}.git/config"),
        ("git's own", ".gi\u{200d}T/config"),
        ("git's own", "src/.git/config"),
        ("git's own", "vendor/lib/.git/hooks/post-checkout"),
        ("git's own", ".git"),
        ("the agent's own", ".agent-state/x.txt"),
        ("the agent's own", ".agent-state/kept.txt"),
        ("the agent's own", "src/../.agent-state/kept.txt"),
        ("through a link", "out/new.txt"),
        ("through a link", "out/deep/new.txt"),
        ("through a link", "secret-link.txt"),
        ("through a link", "dangling.txt"),
        ("through a link", "git-link/config"),
        ("through a link", "git-link/hooks/pre-commit"),
        ("through a link", "config-link"),
        ("through a link", "state-link/kept.txt"),
        ("through a file", "src/a.txt/b.txt"),
        ("a directory", "src"),
        ("a directory", "src/"),
        ("a directory", "."),
        ("no name", ""),
        ("no name", "  "),
        ("no name", "a\0b.txt"),
        ("no name", "a\u{7f}b.txt"),
        ("no name", "a\u{1b}[31mb.txt"),
    ];
    let mut out: Vec<(&str, String)> = list.iter().map(|(why, path)| (*why, (*path).to_owned())).collect();
    out.push(("too long", long));
    out.push(("too long", format!("fresh/{name}")));
    out.push(("too long", format!("src/{name}/z.txt")));
    out.push(("too long", name));
    out.push(("too long", "z/".repeat(3000) + "z.txt"));
    out
}

fn before() -> Tree {
    let files = [
        ("src/a.txt", OLD),
        ("src/b.txt", "other = 1\n"),
        (".git/config", OLD),
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".agent-state/kept.txt", OLD),
    ];
    files.into_iter().map(|(path, text)| (path.to_owned(), (text.into(), false))).collect()
}

fn fixtures() -> Vec<Fixture> {
    let link = |path: &str, target: &str| Fixture::Symlink { path: path.into(), target: target.into() };
    let outside = |path: &str| Fixture::Outside { path: path.into(), bytes: OLD.into() };
    vec![
        Fixture::State { path: ".agent-state".into() },
        outside("secret.txt"),
        outside("outside/kept.txt"),
        link("out", "../outside"),
        link("secret-link.txt", "../secret.txt"),
        link("dangling.txt", "../not-there.txt"),
        link("git-link", ".git"),
        link("config-link", ".git/config"),
        link("state-link", ".agent-state"),
        link("src/up", ".."),
        link("inner.txt", "src/a.txt"),
        Fixture::HardLink { path: "hard.txt".into(), target: "../secret.txt".into() },
        Fixture::HardLink { path: "hard-config".into(), target: ".git/config".into() },
    ]
}

/// The change that a patch makes to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Create,
    Change,
    Delete,
    MoveTo,
    MoveFrom,
}

const ACTS: &[Act] = &[Act::Create, Act::Change, Act::Delete, Act::MoveTo, Act::MoveFrom];
const FORMS: &[Form] = &[Form::Unified, Form::Git, Form::Envelope, Form::Blocks, Form::Edits, Form::Whole];

const HUNK: &str = "@@ -1,3 +1,3 @@\n alpha = 1\n-bravo = 2\n+bravo = 22\n charlie = 3\n";

/// Returns a patch that makes the change `act` to `path`; `None` if the form cannot express it.
fn input(form: Form, act: Act, path: &str) -> Option<Input> {
    // Names with control characters are quoted in diffs, because a line break in a name would
    // change the meaning of the patch.
    let quoted = |side: &str, path: &str| {
        if path.chars().any(char::is_control) {
            let name: String = path
                .bytes()
                .map(|b| if b.is_ascii_control() { format!("\\{b:03o}") } else { (b as char).to_string() })
                .collect();
            format!("\"{side}/{name}\"")
        } else {
            format!("{side}/{path}")
        }
    };
    let bare = |path: &str| path.starts_with('/') || path.is_empty();
    let name = |side: &str| if bare(path) { path.to_owned() } else { quoted(side, path) };
    let (a, b) = (name("a"), name("b"));
    let text = |text: String| Some(Input::Text(text));
    match (form, act) {
        (Form::Unified, Act::Create) => text(format!("--- /dev/null\n+++ {b}\n@@ -0,0 +1 @@\n+planted\n")),
        (Form::Unified, Act::Change) => text(format!("--- {a}\n+++ {b}\n{HUNK}")),
        (Form::Unified, Act::Delete) => {
            text(format!("--- {a}\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-alpha = 1\n-bravo = 2\n-charlie = 3\n"))
        }
        (Form::Git, Act::Create) => text(format!(
            "diff --git {a} {b}\nnew file mode 100755\nindex 0000000..1111111\n--- /dev/null\n+++ {b}\n@@ -0,0 +1 @@\n+planted\n"
        )),
        (Form::Git, Act::Change) => {
            text(format!("diff --git {a} {b}\nindex 1..2 100644\n--- {a}\n+++ {b}\n{HUNK}"))
        }
        (Form::Git, Act::Delete) => text(format!("diff --git {a} {b}\ndeleted file mode 100644\n")),
        (Form::Git, Act::MoveTo) if !path.is_empty() => text(format!(
            "diff --git a/src/a.txt {b}\nsimilarity index 100%\nrename from src/a.txt\nrename to {}\n",
            quoted("", path).replace("\"/", "\"").trim_start_matches('/')
        ))
        .filter(|_| !path.starts_with('/')),
        (Form::Git, Act::MoveFrom) if !path.is_empty() && !path.chars().any(char::is_control) => {
            text(format!(
                "diff --git {a} b/taken.txt\nsimilarity index 100%\nrename from {path}\nrename to taken.txt\n"
            ))
        }
        (Form::Envelope, _) if path.chars().any(char::is_control) => None,
        (Form::Envelope, Act::Create) => {
            text(format!("*** Begin Patch\n*** Add File: {path}\n+planted\n*** End Patch\n"))
        }
        (Form::Envelope, Act::Change) => text(format!(
            "*** Begin Patch\n*** Update File: {path}\n@@\n alpha = 1\n-bravo = 2\n+bravo = 22\n*** End Patch\n"
        )),
        (Form::Envelope, Act::Delete) => {
            text(format!("*** Begin Patch\n*** Delete File: {path}\n*** End Patch\n"))
        }
        (Form::Envelope, Act::MoveTo) if !path.trim().is_empty() => text(format!(
            "*** Begin Patch\n*** Update File: src/a.txt\n*** Move to: {path}\n@@\n alpha = 1\n-bravo = 2\n+bravo = 22\n*** End Patch\n"
        )),
        (Form::Envelope, Act::MoveFrom) => text(format!(
            "*** Begin Patch\n*** Update File: {path}\n*** Move to: taken.txt\n@@\n alpha = 1\n-bravo = 2\n+bravo = 22\n*** End Patch\n"
        )),
        (Form::Blocks, _) if path.chars().any(char::is_control) || path.trim().is_empty() => None,
        (Form::Blocks, Act::Create) => {
            text(format!("{path}\n<<<<<<< SEARCH\n=======\nplanted\n>>>>>>> REPLACE\n"))
        }
        (Form::Blocks, Act::Change) => {
            text(format!("{path}\n<<<<<<< SEARCH\nbravo = 2\n=======\nbravo = 22\n>>>>>>> REPLACE\n"))
        }
        (Form::Edits, Act::Create | Act::Change) => {
            let (search, replace) =
                if act == Act::Create { ("", "planted\n") } else { ("bravo = 2", "bravo = 22") };
            Some(Input::Edits(vec![Edit {
                path: path.into(),
                search: search.into(),
                replace: replace.into(),
            }]))
        }
        (Form::Whole, Act::Create) => Some(Input::Whole { path: path.into(), content: "planted\n".into() }),
        (Form::Whole, Act::Delete) => Some(Input::Delete { path: path.into() }),
        _ => None,
    }
}

/// Puts a valid change to another file before the forbidden change. Neither may be applied.
fn after_a_valid_change(form: Form, input: Input) -> Option<Input> {
    match (form, input) {
        (Form::Unified | Form::Git, Input::Text(text)) => {
            Some(Input::Text(format!("diff --git a/src/b.txt b/src/b.txt\n--- a/src/b.txt\n+++ b/src/b.txt\n@@ -1 +1 @@\n-other = 1\n+other = 2\n{text}")))
        }
        (Form::Envelope, Input::Text(text)) => Some(Input::Text(text.replacen(
            "*** Begin Patch\n",
            "*** Begin Patch\n*** Update File: src/b.txt\n@@\n-other = 1\n+other = 2\n*** Add File: src/fresh.txt\n+fresh\n",
            1,
        ))),
        (Form::Blocks, Input::Text(text)) => {
            Some(Input::Text(format!("src/b.txt\n<<<<<<< SEARCH\nother = 1\n=======\nother = 2\n>>>>>>> REPLACE\n\n{text}")))
        }
        (Form::Edits, Input::Edits(mut list)) => {
            list.insert(0, Edit { path: "src/b.txt".into(), search: "other = 1".into(), replace: "other = 2".into() });
            Some(Input::Edits(list))
        }
        _ => None,
    }
}

pub(crate) fn cases(out: &mut Vec<Case>) {
    let mut push = |why: &'static str, form: Form, input: Input, expected: Expected| {
        let name = format!("security/{why}/{form:?}/{}", out.len());
        out.push(Case {
            name,
            class: Class::Security,
            form,
            deformations: vec![why],
            before: before(),
            fixtures: fixtures(),
            input,
            expected,
        });
    };
    for (n, (why, path)) in forbidden().into_iter().enumerate() {
        for (f, form) in FORMS.iter().enumerate() {
            for (a, act) in ACTS.iter().enumerate() {
                let Some(input) = input(*form, *act, &path) else { continue };
                if (n + f + a).is_multiple_of(3)
                    && let Some(both) = after_a_valid_change(*form, input.clone())
                {
                    push(why, *form, both, Expected::Refused(None));
                }
                push(why, *form, input, Expected::Refused(None));
            }
        }
    }
    // The following paths are permitted, but patches to them must not change a forbidden file.
    let changed = |path: &str| {
        let mut tree = before();
        tree.insert(path.into(), (NEW.into(), false));
        tree
    };
    for form in FORMS {
        // `..` removes the component before it, even if that component is a link.
        for path in ["out/../new.txt", "src/up/../../secret.txt"] {
            let mut tree = before();
            let name = path.rsplit('/').next().unwrap_or(path);
            tree.insert(name.to_owned(), ("planted\n".into(), *form == Form::Git));
            let create = input(*form, Act::Create, path);
            create.into_iter().for_each(|i| push("parent of a link", *form, i, Expected::Tree(tree.clone())));
        }
        let change = |path: &str| input(*form, Act::Change, path);
        change("inner.txt")
            .into_iter()
            .for_each(|i| push("a link inside stays a link", *form, i, Expected::Tree(changed("src/a.txt"))));
        change("src/up/src/a.txt")
            .into_iter()
            .for_each(|i| push("a link inside stays a link", *form, i, Expected::Tree(changed("src/a.txt"))));
        change("hard.txt").into_iter().for_each(|i| {
            push("a hard link to an outside file", *form, i, Expected::Tree(changed("hard.txt")))
        });
        change("hard-config").into_iter().for_each(|i| {
            push("a hard link to a git file", *form, i, Expected::Tree(changed("hard-config")))
        });
    }
}
