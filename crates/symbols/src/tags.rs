//! Finds the definitions and uses of names in one file.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use streaming_iterator::StreamingIterator as _;
use tree_sitter::{
    ParseOptions, ParseState, Parser, QueryCursor, QueryCursorOptions, QueryCursorState, Tree,
};

use crate::Language;
use crate::language::Tagger;

/// The time limit for one file, in milliseconds. Even the largest files usually take less than a
/// tenth of that.
const MAX_MS: u64 = 1_000;
/// The maximum length of a name to keep, in bytes. Longer names are probably generated.
const MAX_NAME: usize = 80;
/// The maximum number of definitions in one file.
const MAX_DEFINITIONS: usize = 2_000;
/// The maximum number of distinct names to record as used by one file.
const MAX_USED: usize = 4_000;
/// The maximum number of matches that the query tracks at a time.
const MAX_MATCHES: u32 = 256;

/// What a name refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A function or method.
    Function,
    /// A class, struct, enum, trait, interface or type alias.
    Type,
    /// A constant or a module-level variable.
    Constant,
    /// A macro.
    Macro,
}

/// The definitions and uses in one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags<'a> {
    /// The name, kind and 1-based line number of each definition, in the order they occur in the
    /// file.
    pub(crate) definitions: Vec<(&'a str, Kind, u32)>,
    /// The names that the file uses, and how often.
    pub(crate) uses: Vec<(&'a str, u32)>,
}

/// Finds the definitions and uses in source text. The result is incomplete if parsing takes too
/// long, and empty if the text cannot be parsed at all.
pub(crate) fn tags<'a>(
    parser: &mut Parser,
    language: Language,
    text: &'a str,
    stop: &AtomicBool,
) -> Tags<'a> {
    let mut definitions = Vec::new();
    let mut uses: HashMap<&str, u32> = HashMap::new();
    walk(parser, language, text, stop, |name, kind, line| match kind {
        Some(kind) if definitions.len() < MAX_DEFINITIONS => definitions.push((name, kind, line)),
        Some(_) => {}
        None if uses.len() < MAX_USED || uses.contains_key(name) => *uses.entry(name).or_default() += 1,
        None => {}
    });
    // Several patterns can match one definition.
    definitions.sort_by_key(|(name, _, line)| (*line, *name));
    definitions.dedup_by_key(|(name, _, line)| (*line, *name));
    let mut uses: Vec<_> = uses.into_iter().collect();
    uses.sort_unstable();
    Tags { definitions, uses }
}

/// Returns the 1-based numbers of the lines that use a name without defining it. The list is
/// incomplete if parsing takes too long or `stop` becomes true.
#[must_use]
pub fn lines_with(path: &str, text: &str, name: &str, stop: &AtomicBool) -> Vec<u32> {
    let Some(language) = Language::of(path) else { return Vec::new() };
    let mut lines = Vec::new();
    walk(&mut Parser::new(), language, text, stop, |found, kind, line| {
        if found == name && kind.is_none() {
            lines.push(line);
        }
    });
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Calls `found` for each definition or use of a name, with the name, its kind (`None` for a use)
/// and its line.
fn walk<'a>(
    parser: &mut Parser,
    language: Language,
    text: &'a str,
    stop: &AtomicBool,
    mut found: impl FnMut(&'a str, Option<Kind>, u32),
) {
    let Some(tagger) = language.tagger() else { return };
    let deadline = Instant::now() + Duration::from_millis(MAX_MS);
    let go_on = || match stop.load(Ordering::Relaxed) || Instant::now() > deadline {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let Some(tree) = parse(parser, tagger, text, &go_on) else { return };
    let names = tagger.query.capture_names();
    let mut cursor = QueryCursor::new();
    cursor.set_match_limit(MAX_MATCHES);
    let mut progress = |_: &QueryCursorState| go_on();
    let options = QueryCursorOptions::new().progress_callback(&mut progress);
    let mut matches = cursor.matches_with_options(&tagger.query, tree.root_node(), text.as_bytes(), options);
    while let Some(one) = matches.next() {
        let (mut name, mut kind) = (None, None);
        for capture in one.captures {
            match names.get(capture.index as usize).copied() {
                Some("name") => name = Some(capture.node),
                Some("definition.function") => kind = Some(Kind::Function),
                Some("definition.type") => kind = Some(Kind::Type),
                Some("definition.constant") => kind = Some(Kind::Constant),
                Some("definition.macro") => kind = Some(Kind::Macro),
                _ => {}
            }
        }
        let Some(node) = name else { continue };
        let Some(name) = text.get(node.byte_range()) else { continue };
        if name.len() <= MAX_NAME && !name.contains(|c: char| c.is_control()) {
            found(name, kind, node.start_position().row as u32 + 1);
        }
    }
}

fn parse(
    parser: &mut Parser,
    tagger: &Tagger,
    text: &str,
    go_on: &dyn Fn() -> ControlFlow<()>,
) -> Option<Tree> {
    parser.set_language(&tagger.language).ok()?;
    parser.reset(); // discards a file whose parsing was stopped
    let bytes = text.as_bytes();
    let mut progress = |_: &ParseState| go_on();
    let options = ParseOptions::new().progress_callback(&mut progress);
    parser.parse_with_options(&mut |at, _| bytes.get(at..).unwrap_or_default(), None, Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the definitions as `line name`, and the names that are used.
    fn found(language: Language, text: &str) -> (String, String) {
        let tags = tags(&mut Parser::new(), language, text, &AtomicBool::new(false));
        let definitions: Vec<_> =
            tags.definitions.iter().map(|(name, _, line)| format!("{line} {name}")).collect();
        let uses: Vec<_> = tags.uses.iter().map(|(name, _)| *name).collect();
        (definitions.join(", "), uses.join(", "))
    }

    #[test]
    fn definitions_and_uses_are_found_in_every_language() {
        let cases = [
            (
                Language::Rust,
                "struct A;\nimpl A {\n    fn b(&self) -> C { d(); self.e(); F::g(); h!() }\n}\nconst I: u8 = 1;\n",
                "1 A, 3 b, 5 I",
                "A, C, F, d, e, g, h",
            ),
            (
                Language::Python,
                "from x import y\n\nclass A(B):\n    @c\n    def d(self):\n        return e(f.g())\n\nH = 1\n",
                "3 A, 5 d, 8 H",
                "B, c, e, g, y",
            ),
            (
                Language::JavaScript,
                "import { a } from 'x';\nclass B { c() { return d(); } }\nconst e = () => new F();\nmodule.g = function () {};\n",
                "2 B, 2 c, 3 e, 4 g",
                "F, a, d",
            ),
            (
                Language::TypeScript,
                "interface A { b(): void }\ntype C = string;\nenum D { X }\nexport function e(f: A): void { g(<C>f); }\n",
                "1 A, 1 b, 2 C, 3 D, 4 e",
                "A, C, g",
            ),
            (Language::Tsx, "export const A = (p: B) => <C x={d()} />;\n", "1 A", "B, C, d"),
            (
                Language::Go,
                "package p\n\ntype A struct{ b C }\n\nfunc (a A) D() { e(); f.G() }\n\nconst H = 1\n",
                "3 A, 5 D, 7 H",
                "A, C, G, e",
            ),
        ];
        for (language, text, definitions, uses) in cases {
            assert_eq!(found(language, text), (definitions.into(), uses.into()), "{language:?}");
        }
    }

    #[test]
    fn a_file_with_a_syntax_error_is_searched_around_it() {
        let (definitions, _) =
            found(Language::Python, "def a():\n    return (\n\ndef b(:\n\ndef c():\n    pass\n");
        assert!(definitions.contains("1 a") && definitions.contains("6 c"), "{definitions}");
    }

    #[test]
    fn deep_nesting_needs_no_deep_stack() {
        let texts = [
            (Language::Python, format!("x = {}", "[".repeat(500_000))),
            (Language::Rust, format!("fn f() {{ {}{} }}", "(".repeat(200_000), ")".repeat(200_000))),
            (Language::JavaScript, "a(".repeat(200_000)),
            (Language::TypeScript, "type A = B<".repeat(40_000)),
            (Language::Tsx, "<a>".repeat(150_000)),
            (Language::Go, "func() {".repeat(60_000)),
        ];
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let worker = small.spawn(move || {
            for (language, text) in texts {
                found(language, &text);
            }
        });
        worker.unwrap().join().unwrap();
    }

    #[test]
    fn a_stopped_search_ends_at_once() {
        let text = "f(); ".repeat(100_000);
        let tags = tags(&mut Parser::new(), Language::JavaScript, &text, &AtomicBool::new(true));
        assert_eq!(tags, Tags::default());
    }
}
