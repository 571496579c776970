//! Chooses the line endings of a new file if the patch does not determine them.

use workspace::{CleanPath, WalkFilter, Workspace};

/// Maximum number of files examined.
const FILES: usize = 50;
/// Maximum size of an examined file, in bytes.
const LARGEST: u64 = 256 << 10;

/// Returns the content with `\r\n` endings if all examined files with the same extension as `path`
/// use them, and unchanged otherwise. If no file has this extension, the other files of the
/// repository are examined.
pub(crate) fn of_repository(workspace: &Workspace, path: &CleanPath, content: Vec<u8>) -> Vec<u8> {
    let extension = |path: &str| {
        path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ext)| ext.to_owned())
    };
    let mine = extension(path.as_str());
    let listing = workspace.walk(&WalkFilter::default());
    let (same, other): (Vec<_>, Vec<_>) = listing
        .entries
        .into_iter()
        .filter(|entry| (1..=LARGEST).contains(&entry.size))
        .partition(|entry| extension(entry.path.as_str()) == mine);
    let uses = |entry: &workspace::Entry| {
        let bytes = workspace.read_bytes(&entry.path, LARGEST).ok()?;
        let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let returns = bytes.windows(2).filter(|pair| pair == b"\r\n").count();
        (newlines > 0 && !bytes.contains(&0)).then_some(newlines == returns)
    };
    let all = |entries: &[workspace::Entry]| {
        let used: Vec<bool> = entries.iter().filter_map(uses).take(FILES).collect();
        (!used.is_empty()).then(|| used.iter().all(|returns| *returns))
    };
    if !all(&same).or_else(|| all(&other)).unwrap_or(false) {
        return content;
    }
    content.split_inclusive(|byte| *byte == b'\n').fold(Vec::with_capacity(content.len()), |mut out, line| {
        match line.strip_suffix(b"\n") {
            Some(line) => out.extend_from_slice(&[line, b"\r\n"].concat()),
            None => out.extend_from_slice(line),
        }
        out
    })
}
