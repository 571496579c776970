//! Writes changes as a patch for `git apply`.

use similar::DiffTag;

use super::compare::{self, Comparison};
use super::{FileChange, Image};

/// Returns the changes as a patch that preserves every byte. Binary files are mentioned but not
/// included.
pub fn patch(changes: &[FileChange]) -> Vec<u8> {
    let compared: Vec<_> = changes.iter().map(|change| (change, compare::compare(change))).collect();
    patch_of(&compared)
}

pub(super) fn patch_of(compared: &[(&FileChange, Comparison<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (change, comparison) in compared {
        match (&change.before, &change.after) {
            // Like git, describe a change from a file to a link, or vice versa, as a deletion and a
            // creation.
            (Some(before), Some(after)) if before.link != after.link => {
                let half =
                    |before, after| FileChange { path: change.path.clone(), from: None, before, after };
                let gone = half(change.before.clone(), None);
                let new = half(None, change.after.clone());
                file(&gone, &compare::compare(&gone), &mut out);
                file(&new, &compare::compare(&new), &mut out);
            }
            _ => file(change, comparison, &mut out),
        }
    }
    out
}

fn file(change: &FileChange, comparison: &Comparison<'_>, out: &mut Vec<u8>) {
    let (old, new) = (change.from.as_ref().unwrap_or(&change.path), &change.path);
    let (old, new) = (quoted(&format!("a/{old}")), quoted(&format!("b/{new}")));
    let mut head = format!("diff --git {old} {new}\n");
    match (&change.before, &change.after) {
        (None, Some(after)) => head.push_str(&format!("new file mode {}\n", mode(after))),
        (Some(before), None) => head.push_str(&format!("deleted file mode {}\n", mode(before))),
        (Some(before), Some(after)) if mode(before) != mode(after) => {
            head.push_str(&format!("old mode {}\nnew mode {}\n", mode(before), mode(after)));
        }
        _ => {}
    }
    if let Some(from) = &change.from {
        head.push_str(&format!("rename from {}\nrename to {}\n", quoted(from), quoted(&change.path)));
    }
    let side = |there: bool, name: &str| match there {
        false => "/dev/null".to_owned(),
        // Like git, add a tab after a name that contains a space, so that parsers do not end the
        // name at the space.
        true if name.contains(' ') => format!("{name}\t"),
        true => name.to_owned(),
    };
    let (old, new) = (side(change.before.is_some(), &old), side(change.after.is_some(), &new));
    if comparison.binary {
        head.push_str(&format!("Binary files {} and {} differ\n", old.trim_end(), new.trim_end()));
    } else if comparison.has_lines() {
        head.push_str(&format!("--- {old}\n+++ {new}\n"));
    }
    out.extend_from_slice(head.as_bytes());
    for ops in &comparison.hunks {
        hunk(ops, comparison, out);
    }
}

fn hunk(ops: &[similar::DiffOp], comparison: &Comparison<'_>, out: &mut Vec<u8>) {
    let (Some(first), Some(last)) = (ops.first(), ops.last()) else { return };
    let range = |start: usize, end: usize| match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        n => format!("{},{n}", start + 1),
    };
    let old = range(first.old_range().start, last.old_range().end);
    let new = range(first.new_range().start, last.new_range().end);
    out.extend_from_slice(format!("@@ -{old} +{new} @@\n").as_bytes());
    let mut put = |sign: u8, lines: &[&[u8]]| {
        for line in lines {
            out.push(sign);
            out.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                out.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    };
    for op in ops {
        if op.tag() == DiffTag::Equal {
            put(b' ', &comparison.new[op.new_range()]);
        } else {
            put(b'-', &comparison.old[op.old_range()]);
            put(b'+', &comparison.new[op.new_range()]);
        }
    }
}

fn mode(image: &Image) -> &'static str {
    match (image.link, image.mode & 0o111 != 0) {
        (true, _) => "120000",
        (false, true) => "100755",
        (false, false) => "100644",
    }
}

/// Quotes a name the way git does if it contains control characters, double quotes or backslashes.
fn quoted(name: &str) -> String {
    if !name.chars().any(|c| c.is_control() || c == '"' || c == '\\') {
        return name.to_owned();
    }
    let mut out = String::from("\"");
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', byte as char]),
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            0x20..0x7f => out.push(byte as char),
            _ => out.push_str(&format!("\\{byte:03o}")),
        }
    }
    out.push('"');
    out
}
