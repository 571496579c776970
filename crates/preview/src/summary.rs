//! Draws the summary: one line per file, followed by the totals.

use unicode_width::UnicodeWidthStr;

use super::compare::Comparison;
use super::{FileChange, Image, Surface};
use crate::figures::{bytes, plural, thousands};
use crate::sanitize;
use crate::style::Style;

/// The width of the longest bar, in columns.
const BAR: usize = 24;

/// Draws the summary.
pub(super) fn draw(compared: &[(&FileChange, Comparison<'_>)], surface: Surface) -> String {
    if compared.is_empty() {
        return "no changes\n".into();
    }
    let paint = surface.paint;
    let names: Vec<_> = compared
        .iter()
        .map(|(change, _)| shortened(&name(change), surface.width.saturating_sub(40).max(20)))
        .collect();
    let widest = names.iter().map(|n| n.width()).max().unwrap_or(0);
    let most = compared.iter().map(|(_, c)| c.added + c.removed).max().unwrap_or(0).max(1);
    // The width of a count: a space, a sign, and the digits of the largest count.
    let column =
        compared.iter().map(|(_, c)| c.added.max(c.removed)).max().unwrap_or(0).to_string().len().max(4) + 2;
    let mut out = String::new();
    for ((change, comparison), name) in compared.iter().zip(names) {
        let pad = " ".repeat(widest - name.width());
        let verb = verb(change);
        let style = match verb {
            "created" => Style::Good,
            "deleted" => Style::Bad,
            _ => Style::Call,
        };
        out.push_str(&format!(" {}  {name}{pad}  ", paint.paint(style, format_args!("{verb:7}"))));
        if comparison.binary {
            let size = |image: &Option<Image>| image.as_ref().map(|i| bytes(i.bytes.len() as u64));
            let sizes: Vec<_> = [size(&change.before), size(&change.after)].into_iter().flatten().collect();
            out.push_str(&format!("binary, {}", sizes.join(" → ")));
        } else {
            let count = |sign, n: usize| {
                format!("{:>column$}", if n == 0 { String::new() } else { format!("{sign}{n}") })
            };
            let (added, removed) = (count('+', comparison.added), count('-', comparison.removed));
            let bar = |n: usize| if most <= BAR { n } else { (n * BAR).div_ceil(most) };
            out.push_str(&format!(
                "{}{}  {}{}",
                paint.paint(Style::Good, added),
                paint.paint(Style::Bad, removed),
                paint.paint(Style::Good, "+".repeat(bar(comparison.added))),
                paint.paint(Style::Bad, "-".repeat(bar(comparison.removed))),
            ));
        }
        if let Some(mode) = mode(change) {
            out.truncate(out.trim_end().len());
            out.push_str(&format!("  {mode}"));
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    let sum = |count: fn(&Comparison<'_>) -> usize| {
        thousands(compared.iter().map(|(_, c)| count(c)).sum::<usize>() as u64)
    };
    let total =
        format!(" {}, +{} -{}", plural(compared.len() as u64, "file"), sum(|c| c.added), sum(|c| c.removed));
    out.push_str(&paint.paint(Style::Dim, total));
    out.push('\n');
    out
}

/// Draws the line above a file's changes.
pub(super) fn heading(change: &FileChange, surface: Surface, out: &mut String) {
    let name = format!("─── {} ", shortened(&name(change), surface.width.saturating_sub(8).max(20)));
    let rule = "─".repeat(surface.width.saturating_sub(name.width()));
    out.push_str(&surface.paint.paint(Style::Bold, name));
    out.push_str(&surface.paint.paint(Style::Dim, rule));
    out.push('\n');
}

fn verb(change: &FileChange) -> &'static str {
    match (&change.before, &change.after, &change.from) {
        (None, ..) => "created",
        (_, None, _) => "deleted",
        (.., Some(_)) => "moved",
        _ => "changed",
    }
}

fn name(change: &FileChange) -> String {
    let path = sanitize::line(&change.path).into_owned();
    match &change.from {
        Some(from) => format!("{} → {path}", sanitize::line(from)),
        None => path,
    }
}

/// Describes a change to the file's type or mode.
fn mode(change: &FileChange) -> Option<&'static str> {
    let executable = |image: &Image| image.mode & 0o111 != 0;
    match (&change.before, &change.after) {
        (None, Some(after)) if after.link => Some("a link"),
        (Some(before), None) if before.link => Some("a link"),
        (Some(before), Some(after)) if before.link != after.link => {
            Some(if after.link { "now a link" } else { "no longer a link" })
        }
        (Some(before), Some(after)) if executable(before) != executable(after) => {
            Some(if executable(after) { "now executable" } else { "no longer executable" })
        }
        (None, Some(after)) if executable(after) => Some("executable"),
        _ => None,
    }
}

/// Cuts off the start of a name to fit a width, because paths usually differ at the end.
fn shortened(name: &str, columns: usize) -> String {
    if name.width() <= columns {
        return name.to_owned();
    }
    let (mut start, mut used) = (name.len(), 1);
    for (at, c) in name.char_indices().rev() {
        used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if used > columns {
            break;
        }
        start = at;
    }
    format!("…{}", &name[start..])
}

/// Returns the summary of one file as JSON.
pub(super) fn facts(change: &FileChange, comparison: &Comparison<'_>) -> serde_json::Value {
    let mut facts = serde_json::json!({"path": change.path, "change": verb(change), "added": comparison.added, "removed": comparison.removed});
    if comparison.binary {
        facts["binary"] = true.into();
    }
    if let Some(from) = &change.from {
        facts["from"] = from.as_str().into();
    }
    facts
}
