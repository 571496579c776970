//! Detects an answer that consists of prose followed by one complete patch.
//!
//! The check is strict because the caller applies the patch without an explicit tool call. It
//! rejects a patch that may have been cut off, a patch followed by more prose, and separate diffs
//! or envelopes for the same file, since those may be alternatives.

use std::collections::HashSet;

use crate::{
    Dialect, FilePatch, ParseError, blocks,
    envelope::{self, Directive},
    fence::Fence,
    parse, unified,
};

/// Returns the patch at the end of an answer, both as text and in parsed form. The patch can be an
/// envelope, a unified diff or SEARCH/REPLACE blocks. It must be complete, and only a closing fence
/// may follow it.
///
/// Returns `None` for anything else, and for a patch without a clear end: an envelope without
/// `*** End Patch`, a block without `>>>>>>> REPLACE`, an unclosed fence, or an unfenced diff whose
/// last hunk is shorter than its header says.
///
/// Strip the model's thoughts before calling this, because a patch inside them must not be applied.
///
/// ```
/// let answer = "I will fix it.\n\n*** Begin Patch\n*** Update File: a.py\n@@\n-    return 1\n+    return 2\n*** End Patch\n";
/// assert_eq!(patch::patch_in_answer(answer).unwrap().0, &answer[16..]);
/// assert_eq!(patch::patch_in_answer(&answer[..answer.len() - 4]), None);
/// ```
#[must_use]
pub fn patch_in_answer(text: &str) -> Option<(&str, Vec<FilePatch>)> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let pieces = pieces(&lines)?;
    let (first, last) = (pieces.first()?, pieces.last()?);
    if pieces.iter().any(|piece| piece.dialect != first.dialect) {
        return None;
    }
    let byte = |line: usize| lines[..line].iter().map(|line| line.len()).sum::<usize>();
    let found = &text[byte(first.from)..byte(last.to)];
    let read = parse(found).ok()?;
    if first.dialect != Dialect::SearchReplace && pieces.len() > 1 {
        // Several diffs in one answer count as a single patch only if no file appears twice.
        let paths = |piece: &Piece| -> Result<Vec<String>, ParseError> {
            let patches = parse(&text[byte(piece.from)..byte(piece.to)])?;
            Ok(patches.into_iter().map(|patch| patch.path).collect())
        };
        let paths: Vec<String> =
            pieces.iter().map(paths).collect::<Result<Vec<_>, _>>().ok()?.into_iter().flatten().collect();
        let apart = paths.iter().collect::<HashSet<_>>().len() == paths.len();
        if !apart || read.len() != paths.len() {
            return None;
        }
    }
    Some((found, read))
}

/// The lines of a patch, or of one SEARCH/REPLACE block.
struct Piece {
    dialect: Dialect,
    from: usize,
    to: usize,
}

/// Finds the patches and blocks in an answer. Returns `None` if the answer does not end with one of
/// them, or if a patch, a block or a fence is left open.
fn pieces(lines: &[&str]) -> Option<Vec<Piece>> {
    let mut out: Vec<Piece> = Vec::new();
    let mut fence: Option<Fence> = None;
    let mut heredoc: Option<&str> = None;
    let mut tail = true; // only blank lines and fences since the last piece
    let mut i = 0;
    while i < lines.len() {
        let line = lines[i].trim_end();
        let bare: Vec<&str> = lines[i..lines.len().min(i + 2)].iter().map(|line| line.trim_end()).collect();
        let found = if matches!(envelope::directive(line), Some((Directive::Begin, _))) {
            let ends = |line: &&str| line.trim() == "*** End Patch";
            let to = i + 1 + lines[i..].iter().position(ends)?;
            Some(Piece { dialect: Dialect::Envelope, from: i, to })
        } else if envelope::is_directive(line) {
            return None; // an envelope without its first line
        } else if blocks::is_search(line) {
            let to = i + 1 + blocks::close(&lines[i..])?;
            Some(Piece { dialect: Dialect::SearchReplace, from: path_line(lines, &out, i), to })
        } else if line.starts_with("diff --git ") || unified::is_header(&bare, 0) {
            let to = match &fence {
                Some(fence) => i + lines[i..].iter().position(|line| fence.closes(line))?,
                None => lines.len(),
            };
            if fence.is_none() && !is_complete_diff(&lines[i..to]) {
                return None;
            }
            Some(Piece { dialect: Dialect::Unified, from: i, to })
        } else {
            None
        };
        if let Some(piece) = found {
            (i, tail) = (piece.to, true);
            out.push(piece);
            continue;
        }
        i += 1;
        match &fence {
            Some(open) if open.closes(line) => fence = None,
            None if Fence::opens(line).is_some() => (fence, tail) = (Fence::opens(line), false),
            _ if line.trim().is_empty() => {}
            _ if heredoc.is_some_and(|word| line.trim_end_matches(['\'', '"', ')']) == word) => {}
            _ => {
                heredoc = crate::shell::heredoc(line).map(|heredoc| heredoc.word).or(heredoc);
                tail = false;
            }
        }
    }
    (tail && fence.is_none() && !out.is_empty()).then_some(out)
}

/// Returns the index of the line that names a block's file: the nearest line above the block that
/// is neither blank nor a fence. Returns `block` if there is none.
fn path_line(lines: &[&str], before: &[Piece], block: usize) -> usize {
    let after = before.last().map_or(0, |piece| piece.to);
    let layout = |line: &str| line.trim().is_empty() || Fence::opens(line).is_some();
    (after..block).rev().find(|i| !layout(lines[*i])).unwrap_or(block)
}

/// Returns whether an unfenced diff is complete: every line belongs to it, and its last hunk has as
/// many lines as its header says.
fn is_complete_diff(lines: &[&str]) -> bool {
    let mut left = (0_usize, 0_usize);
    let mut hunks = 0;
    for line in lines {
        let text = line.trim_end_matches(['\n', '\r']);
        if let Some(header) = text.strip_prefix("@@") {
            let Some((_, Some(counts))) = unified::ranges(header) else { return false };
            (left, hunks) = (counts, hunks + 1);
            continue;
        }
        if left == (0, 0) {
            let header = [
                "diff --git ",
                "index ",
                "--- ",
                "+++ ",
                "new file mode ",
                "deleted file mode ",
                "old mode ",
                "new mode ",
                "rename ",
                "similarity ",
            ];
            if text.trim().is_empty() || text.starts_with('\\') || header.iter().any(|h| text.starts_with(h))
            {
                continue;
            }
            return false;
        }
        let Some(rest) = unified::count_down(left, text) else { return false };
        left = rest;
    }
    // An added line without a newline may have been cut off.
    let cut = lines.last().is_some_and(|line| line.starts_with('+') && !line.ends_with('\n'));
    hunks > 0 && left == (0, 0) && !cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: &str =
        "*** Begin Patch\n*** Update File: a.py\n@@\n-    return 1\n+    return 2\n*** End Patch\n";
    const BLOCK: &str =
        "a.py\n```python\n<<<<<<< SEARCH\n    return 1\n=======\n    return 2\n>>>>>>> REPLACE\n```\n";
    const DIFF: &str = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n";

    fn patch_in_answer(text: &str) -> Option<&str> {
        super::patch_in_answer(text).map(|(patch, _)| patch)
    }

    fn fenced(patch: &str) -> String {
        format!("```diff\n{patch}```\n")
    }

    #[test]
    fn prose_followed_by_a_complete_patch_gives_the_patch() {
        for patch in [ENVELOPE, DIFF] {
            assert_eq!(patch_in_answer(patch), Some(patch));
            assert_eq!(patch_in_answer(&format!("I will fix it.\n\n{patch}")), Some(patch));
            assert_eq!(patch_in_answer(&format!("Here it is:\n\n{}\n\n", fenced(patch))), Some(patch));
        }
        let bare = "a.py\n<<<<<<< SEARCH\n    return 1\n=======\n    return 2\n>>>>>>> REPLACE";
        assert_eq!(patch_in_answer(&format!("Now:\n\n{bare}")), Some(bare));
        assert_eq!(patch_in_answer(&format!("Now:\n\n{BLOCK}")), Some(BLOCK.trim_end_matches("```\n")));
        let two = format!("First:\n\n{BLOCK}\nThen the other:\n\n{}", BLOCK.replace("a.py", "b.py"));
        let patches = parse(patch_in_answer(&two).unwrap()).unwrap();
        assert_eq!(patches.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["a.py", "b.py"]);
        let two = format!("First:\n\n{}\nThen:\n\n{}", fenced(DIFF), fenced(&DIFF.replace("a.py", "b.py")));
        assert_eq!(parse(patch_in_answer(&two).unwrap()).unwrap().len(), 2);
        let shell = format!("```bash\napply_patch <<'EOF'\n{ENVELOPE}EOF\n```\n");
        assert_eq!(patch_in_answer(&shell), Some(ENVELOPE));
    }

    #[test]
    fn a_truncated_patch_gives_none() {
        for answer in [ENVELOPE.to_owned(), format!("Now:\n\n{BLOCK}"), fenced(DIFF), DIFF.to_owned()] {
            let cuts = answer.char_indices().map(|(at, _)| &answer[..at]);
            for cut in cuts.filter(|cut| cut.trim_end() != answer.trim_end()) {
                assert_eq!(patch_in_answer(cut), None, "{cut}");
            }
        }
    }

    #[test]
    fn anything_but_one_patch_at_the_end_gives_none() {
        for answer in [
            "I changed nothing.".to_owned(),
            String::new(),
            format!("{ENVELOPE}\nThat should do."),
            format!("{}\nShall I go on?\n", fenced(DIFF)),
            format!("Either\n\n{}\nor\n\n{}", fenced(DIFF), fenced(&DIFF.replace('2', "3"))),
            format!("{ENVELOPE}\n{BLOCK}"),
            BLOCK.replace("a.py\n", ""),
            DIFF.replace("-1,2 +1,2", "").clone(),
            "```python\nprint(1)\n```\n".into(),
            ENVELOPE.replace("*** Begin Patch\n", ""),
        ] {
            assert_eq!(patch_in_answer(&answer), None, "{answer}");
        }
    }
}
