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

/// The longest time that one file may take, in milliseconds. Files of the largest size that is
/// parsed usually take less than a tenth of it.
const MAX_MS: u64 = 1_000;
/// The longest name that is kept, in bytes. Longer names are generated.
const MAX_NAME: usize = 80;
/// The maximum number of definitions of one file.
const MAX_DEFINITIONS: usize = 2_000;
/// The maximum number of distinct names that one file uses.
const MAX_USED: usize = 4_000;
/// The maximum number of matches that the query follows at the same time.
const MAX_MATCHES: u32 = 256;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A function or method.
    Function,
    /// A class, struct, enum, trait, interface or type alias.
    Type,
    /// A constant or a variable of a module.
    Constant,
    /// A macro.
    Macro,
}

/// The definitions and uses in one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tags<'a> {
    /// Name, kind and line (counted from 1) of each definition, in the order of the file.
    pub(crate) definitions: Vec<(&'a str, Kind, u32)>,
    /// The names that the file uses, and how often.
    pub(crate) uses: Vec<(&'a str, u32)>,
}

/// Finds the definitions and uses in a text. Incomplete if the text takes too long, and empty if it
/// cannot be parsed at all.
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

/// The lines, counted from 1, in which a text uses a name without defining it. Incomplete if `stop`
/// becomes true.
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

/// Calls `found` for each name, with its kind if it is defined and `None` if it is used, and with
/// its line.
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
    parser.reset(); // forgets a file that was stopped
    let bytes = text.as_bytes();
    let mut progress = |_: &ParseState| go_on();
    let options = ParseOptions::new().progress_callback(&mut progress);
    parser.parse_with_options(&mut |at, _| bytes.get(at..).unwrap_or_default(), None, Some(options))
}
