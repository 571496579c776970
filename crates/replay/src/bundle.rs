//! A session and the files that its replay needs, in one file. `docs/replay.md` describes the
//! format. Bundles are untrusted: every line is validated here, and reading a bundle does not write
//! any files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use journal::Record;
use secrets::Secrets;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use workspace::{CleanPath, FileImage, READ_LIMIT, Seed};

use crate::script::Changes;
use crate::{Error, Result};

/// The version of the format. Incremented whenever an old reader would misread new files.
const VERSION: u32 = 1;
/// Maximum size of a bundle, in bytes.
const FILE_LIMIT: u64 = 512 << 20;
/// Maximum total size of the file contents in a bundle, in bytes. The limit is low because bundles
/// are intended to be committed along with tests.
pub const CONTENTS_LIMIT: u64 = 64 << 20;
/// Maximum number of files in a bundle, which is one more than the tools can list.
pub(crate) const FILES_LIMIT: usize = 50_001;
/// Maximum size, in bytes, of a file whose contents are not in the bundle: 1 TiB.
const SIZE_LIMIT: u64 = 1 << 40;
/// The number of bytes examined to distinguish text from binary files, as the tools do.
const SNIFF: usize = 8_000;

/// A session and its files.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Whether the bundle contains files from the repository.
    pub contents: bool,
    /// The files at the start of the session. For a file that no tool read, the bundle contains
    /// only the size.
    pub files: BTreeMap<CleanPath, Seed>,
    /// File changes made by commands and reverts.
    pub changes: Changes,
    /// The files that the session changed, as they were at its end.
    pub end: BTreeMap<CleanPath, Option<Seed>>,
    /// Human-readable notes on the limitations of the bundle.
    pub notes: Vec<String>,
    /// The session's journal.
    pub records: Vec<Record>,
}

/// The first line, which describes the bundle.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    version: u32,
    /// The version of the agent that wrote the file.
    agent: String,
    session: String,
    contents: bool,
    /// The number of lines of each kind, to detect a truncated file.
    files: usize,
    changes: usize,
    end: usize,
    records: usize,
    /// The total size of the contents, in bytes.
    bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// A line other than a record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Export(Head),
    File(Entry),
    Change(Change),
    End(Entry),
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: CleanPath,
    /// Whether the file is absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Permission bits in octal; absent for 644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// The content, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The content in hexadecimal digits, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// The target of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<String>,
}

/// A file that a command or a revert changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// The number of the record that contains the command's result or the revert.
    by: u64,
    file: Entry,
}

impl Entry {
    fn of(path: &CleanPath, seed: Option<&Seed>) -> Self {
        let mut entry = Self {
            path: path.clone(),
            gone: seed.is_none(),
            size: None,
            mode: None,
            text: None,
            hex: None,
            link: None,
        };
        match seed {
            None => {}
            Some(Seed::Size(size)) => entry.size = Some(*size),
            Some(Seed::Image(image)) if image.link => {
                entry.link = Some(String::from_utf8_lossy(&image.bytes).into_owned())
            }
            Some(Seed::Image(image)) => {
                entry.mode = (image.mode != 0o644).then(|| format!("{:o}", image.mode));
                match std::str::from_utf8(&image.bytes) {
                    Ok(text) => entry.text = Some(text.to_owned()),
                    Err(_) => entry.hex = Some(hex(&image.bytes)),
                }
            }
        }
        entry
    }

    fn seed(self) -> Result<(CleanPath, Option<Seed>), String> {
        let path = self.path;
        let name = path.as_str().to_owned();
        if name == "." || path.is_gits() {
            return Err(format!("a replay must not create the file {name:?}"));
        }
        let mode = match self.mode {
            None => 0o644,
            Some(text) => u32::from_str_radix(&text, 8)
                .ok()
                .filter(|m| *m <= 0o777)
                .ok_or_else(|| format!("{name}: invalid file mode {text:?}"))?,
        };
        let image = |bytes: Vec<u8>, link| {
            Seed::Image(FileImage { bytes, mode: if link { 0o777 } else { mode }, link })
        };
        let seed = match (self.gone, self.size, self.text, self.hex, self.link) {
            (true, None, None, None, None) => None,
            (false, Some(size), None, None, None) if size <= SIZE_LIMIT => Some(Seed::Size(size)),
            (false, Some(size), None, None, None) => {
                return Err(format!("{name}: size {size} exceeds the limit of {SIZE_LIMIT} bytes"));
            }
            (false, None, Some(text), None, None) => Some(image(text.into_bytes(), false)),
            (false, None, None, Some(digits), None) => Some(image(
                unhex(&digits).ok_or_else(|| format!("{name}: invalid hexadecimal content"))?,
                false,
            )),
            (false, None, None, None, Some(to)) if !to.is_empty() && !to.contains('\0') => {
                Some(image(to.into_bytes(), true))
            }
            _ => return Err(format!("{name}: expected exactly one of size, text, hex and link")),
        };
        match &seed {
            Some(Seed::Image(image)) if image.bytes.len() as u64 > READ_LIMIT => {
                Err(format!("{name}: content exceeds the limit of {READ_LIMIT} bytes"))
            }
            _ => Ok((path, seed)),
        }
    }
}

/// Returns the content of a file if a tool could read it, or its size otherwise.
pub(crate) fn seed(image: FileImage) -> Seed {
    let binary = image.bytes.iter().take(SNIFF).any(|b| *b == 0);
    match image.link || (!binary && image.bytes.len() as u64 <= READ_LIMIT) {
        true => Seed::Image(image),
        false => Seed::Size(image.bytes.len() as u64),
    }
}

impl Bundle {
    /// Creates a bundle without files from the repository.
    pub fn bare(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }

    /// Returns the files whose contents are in the bundle, with their sizes in bytes.
    pub fn contained(&self) -> impl Iterator<Item = (&CleanPath, u64)> {
        let of =
            |seed: &Seed| if let Seed::Image(image) = seed { Some(image.bytes.len() as u64) } else { None };
        let at_start = self.files.iter().filter_map(move |(path, seed)| Some((path, of(seed)?)));
        let new = self.end.iter().filter(|(path, _)| !self.files.contains_key(*path));
        at_start.chain(new.filter_map(move |(path, seed)| Some((path, of(seed.as_ref()?)?))))
    }

    /// Returns the total size of all contents, in bytes.
    pub fn bytes(&self) -> u64 {
        let of = |seed: &Seed| if let Seed::Image(image) = seed { image.bytes.len() as u64 } else { 0 };
        let changed = self.changes.values().flatten().filter_map(|(_, seed)| seed.as_ref());
        self.files.values().chain(changed).chain(self.end.values().flatten()).map(of).sum()
    }

    /// Masks secrets in all contents. Returns the number of files with secrets.
    pub fn mask(&mut self, secrets: &Secrets) -> usize {
        let changed = self.changes.values_mut().flatten().filter_map(|(_, seed)| seed.as_mut());
        let all = self.files.values_mut().chain(changed).chain(self.end.values_mut().flatten());
        let mut contents: Vec<&mut Vec<u8>> = all
            .filter_map(|seed| if let Seed::Image(image) = seed { Some(&mut image.bytes) } else { None })
            .collect();
        // A secret found in one file is masked in the others too.
        contents.iter().for_each(|bytes| secrets.learn(bytes));
        let mut masked = 0;
        for bytes in &mut contents {
            if let Cow::Owned(without) = secrets.mask_bytes(bytes) {
                **bytes = without;
                masked += 1;
            }
        }
        masked
    }

    /// Returns the text of the exported file. Identical bundles of a session produce identical
    /// text.
    ///
    /// # Errors
    /// If a line cannot be serialized.
    pub fn write(&self, session: &str) -> Result<String> {
        let mut out = String::new();
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(|(by, _)| **by);
        let mut lines = Vec::new();
        for (by, files) in changes {
            let file = files.iter().map(|(path, seed)| Entry::of(path, seed.as_ref()));
            lines.extend(file.map(|file| Line::Change(Change { by: *by, file })));
        }
        let changes = lines;
        let head = Line::Export(Head {
            version: VERSION,
            agent: env!("CARGO_PKG_VERSION").into(),
            session: session.to_owned(),
            contents: self.contents,
            files: self.files.len(),
            changes: changes.len(),
            end: self.end.len(),
            records: self.records.len(),
            bytes: self.bytes(),
            notes: self.notes.clone(),
        });
        let files = self.files.iter().map(|(path, seed)| Line::File(Entry::of(path, Some(seed))));
        let end = self.end.iter().map(|(path, seed)| Line::End(Entry::of(path, seed.as_ref())));
        for line in std::iter::once(head).chain(files).chain(changes).chain(end) {
            put(&mut out, &line)?;
        }
        self.records.iter().try_for_each(|record| put(&mut out, record))?;
        Ok(out)
    }

    /// Reads an untrusted file. A file that contains only records, as written by older versions, is
    /// read as a bundle without contents.
    ///
    /// # Errors
    /// If the file cannot be read or is invalid.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| Error::Unusable(format!("cannot read {}: {why}", path.display()));
        let cannot = |e: std::io::Error| wrong(e.to_string());
        let mut text = String::new();
        let file = File::open(path).map_err(cannot)?;
        if !file.metadata().map_err(cannot)?.is_file() {
            return Err(wrong("not a regular file".into()));
        }
        let read = file.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(cannot)?;
        if read as u64 > FILE_LIMIT {
            return Err(wrong(format!("larger than {} MB", FILE_LIMIT >> 20)));
        }
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut bundle = Self::default();
        let mut head: Option<Head> = None;
        let mut changed = 0;
        for (number, line) in (1..).zip(text.lines()) {
            let at = |why: String| format!("line {number}: {why}");
            let value: Value = serde_json::from_str(line).map_err(|e| at(format!("invalid JSON: {e}")))?;
            if value.get("event").is_some() {
                let record: Record =
                    serde_json::from_value(value).map_err(|e| at(format!("invalid event: {e}")))?;
                if record.v != journal::VERSION {
                    return Err(at(format!(
                        "event is version {}, but this agent supports only version {}",
                        record.v,
                        journal::VERSION
                    )));
                }
                bundle.records.push(record);
                continue;
            }
            if let Some(version) = value["export"]["version"].as_u64().filter(|v| *v != u64::from(VERSION)) {
                return Err(at(format!(
                    "file is version {version}, but this agent supports only version {VERSION}"
                )));
            }
            let read: Line = serde_json::from_value(value)
                .map_err(|e| at(format!("not a line of an exported session: {e}")))?;
            let duplicate = |path: &CleanPath| at(format!("duplicate entry for {path}"));
            match read {
                Line::Export(read) if number == 1 => head = Some(read),
                Line::Export(_) => return Err(at("misplaced head".into())),
                _ if head.is_none() => return Err(at("missing head".into())),
                Line::File(entry) => {
                    let (path, seed) = entry.seed().map_err(at)?;
                    let seed = seed.ok_or_else(|| at(format!("{path} does not exist at the start")))?;
                    if bundle.files.insert(path.clone(), seed).is_some() {
                        return Err(duplicate(&path));
                    }
                }
                Line::End(entry) => {
                    let (path, seed) = entry.seed().map_err(at)?;
                    if bundle.end.insert(path.clone(), seed).is_some() {
                        return Err(duplicate(&path));
                    }
                }
                Line::Change(Change { by, file }) => {
                    let (path, seed) = file.seed().map_err(at)?;
                    let files = bundle.changes.entry(by).or_default();
                    if files.iter().any(|(other, _)| *other == path) {
                        return Err(duplicate(&path));
                    }
                    files.push((path, seed));
                    changed += 1;
                }
            }
        }
        if let Some(head) = head {
            let wanted = (head.files, head.changes, head.end, head.records);
            if wanted != (bundle.files.len(), changed, bundle.end.len(), bundle.records.len()) {
                return Err("incomplete: the number of lines does not match the head".into());
            }
            (bundle.contents, bundle.notes) = (head.contents, head.notes);
        }
        if bundle.records.is_empty() {
            return Err("no session in the file".into());
        }
        if bundle.files.len() > FILES_LIMIT {
            return Err(format!("{} files exceed the limit of {FILES_LIMIT}", bundle.files.len()));
        }
        if bundle.bytes() > CONTENTS_LIMIT {
            return Err(format!(
                "{} MB of files exceed the limit of {} MB",
                bundle.bytes() >> 20,
                CONTENTS_LIMIT >> 20
            ));
        }
        Ok(bundle)
    }
}

fn put(out: &mut String, line: &impl Serialize) -> Result<()> {
    *out += &serde_json::to_string(line).map_err(Error::unusable)?;
    out.push('\n');
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Decodes pairs of hexadecimal digits.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    (digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit))
        .then(|| digits.chunks(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(unhex("00fF7b"), Some(vec![0, 255, 123]));
        assert!(unhex("0").is_none() && unhex("0g").is_none() && unhex("é").is_none());
    }
}
