//! Formats durations, counts and sizes in human-readable form, and counts the lines that a patch
//! changes.

/// Formats a duration given in milliseconds.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        _ => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

/// Formats a count: `12,345`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Formats a count of things: `1 turn`, `2 turns`.
pub fn plural(n: u64, word: &str) -> String {
    format!("{} {word}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// Counts the lines added and removed in each file of a git-style patch.
pub fn counts_by_file(patch: &str) -> Vec<(String, u64, u64)> {
    let mut counts: Vec<(String, u64, u64)> = Vec::new();
    let mut old = "";
    let (mut old_left, mut new_left) = (0u64, 0u64); // lines left in the hunk, where "--- x" is content
    for line in patch.lines() {
        if old_left + new_left > 0 {
            let last = counts.last_mut();
            match (line.as_bytes().first(), last) {
                (Some(b'+'), Some(c)) => (c.1, new_left) = (c.1 + 1, new_left.saturating_sub(1)),
                (Some(b'-'), Some(c)) => (c.2, old_left) = (c.2 + 1, old_left.saturating_sub(1)),
                (Some(b'\\'), _) => {}
                _ => (old_left, new_left) = (old_left.saturating_sub(1), new_left.saturating_sub(1)),
            }
        } else if let Some(path) = line.strip_prefix("--- ") {
            old = path;
        } else if let Some(path) = line.strip_prefix("+++ ") {
            let path = if path == "/dev/null" { old } else { path };
            let path = path.split('\t').next().unwrap_or(path);
            let path = path.strip_prefix("a/").or_else(|| path.strip_prefix("b/")).unwrap_or(path);
            counts.push((path.to_owned(), 0, 0));
        } else if let Some(header) = line.strip_prefix("@@ -") {
            let mut ranges = header.split(' ').map(|range| {
                let range = range.trim_start_matches('+');
                range.split_once(',').map_or(Some(1), |(_, n)| n.parse().ok()).unwrap_or(0)
            });
            (old_left, new_left) = (ranges.next().unwrap_or(0), ranges.next().unwrap_or(0));
        }
    }
    counts
}

/// Formats a size in decimal units: `1.1 GB`.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.0} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.0} MB", n as f64 / 1e6),
        _ => format!("{:.1} GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_counts_under_its_old_name() {
        let patch =
            "--- a/x y\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n--- b\n--- a/z\n+++ b/z\n@@ -1 +1 @@\n-a\n+b\n";
        assert_eq!(counts_by_file(patch), [("x y".into(), 0, 2), ("z".into(), 1, 1)]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            (thousands(0), thousands(999), thousands(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (duration(999), duration(1_500), duration(61_000)),
            ("999 ms".into(), "1.5 s".into(), "1 min 1 s".into())
        );
    }
}
