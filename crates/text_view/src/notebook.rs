//! Shows a Jupyter notebook (nbformat 4) as the text of its cells, and writes edits back: changed
//! sources, new cells, and removed cells. Everything else in the file, especially the outputs, is
//! preserved byte for byte.
//!
//! A cell starts with a line `# %% [code] id=ID`. If the source of any cell contains such a line
//! itself, the first line of every cell gets additional percent signs. Unless every cell has a
//! valid, unique id, the cells are numbered instead.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use serde::Deserialize;
use serde_json::value::RawValue;

mod format;

use format::Format;

const KINDS: [&str; 3] = ["code", "markdown", "raw"];

/// A parsed notebook.
#[derive(Debug, Clone)]
pub(crate) struct Notebook {
    text: String,
    percents: String,
    /// Span of the array of cells in the file.
    array: Range<usize>,
    cells: Vec<Cell>,
    /// Whether this version of the format has cell ids.
    ids: bool,
}

#[derive(Debug, Clone)]
struct Cell {
    id: String,
    kind: String,
    source: String,
    /// Span of the cell in the file.
    span: Range<usize>,
    /// Span of the cell's `source` value in the file.
    source_span: Range<usize>,
}

#[derive(Deserialize)]
struct RawNotebook<'a> {
    nbformat: u64,
    #[serde(default)]
    nbformat_minor: u64,
    #[serde(borrow)]
    cells: &'a RawValue,
}

#[derive(Deserialize)]
struct RawCell<'a> {
    cell_type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    source: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Source {
    Whole(String),
    Lines(Vec<String>),
}

impl Source {
    fn text(self) -> String {
        match self {
            Self::Whole(text) => text,
            Self::Lines(lines) => lines.concat(),
        }
    }
}

/// A cell in the edited text.
#[derive(Debug, PartialEq, Eq)]
struct NewCell {
    kind: String,
    id: Option<String>,
    source: String,
}

impl Notebook {
    /// Parses a notebook. Returns `None` if it is invalid, if its format version is not 4, or if a
    /// cell is of an unknown kind or contains a carriage return.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let file = std::str::from_utf8(bytes).ok()?;
        let raw: RawNotebook<'_> = serde_json::from_str(file).ok()?;
        if raw.nbformat != 4 {
            return None;
        }
        let array = span(file, raw.cells)?;
        let raws: Vec<&RawValue> = serde_json::from_str(raw.cells.get()).ok()?;
        let mut cells = Vec::with_capacity(raws.len());
        for raw in raws {
            let cell: RawCell<'_> = serde_json::from_str(raw.get()).ok()?;
            let source = serde_json::from_str::<Source>(cell.source.get()).ok()?.text();
            if !KINDS.contains(&cell.cell_type.as_str()) || source.contains('\r') {
                return None;
            }
            cells.push(Cell {
                id: cell.id.unwrap_or_default(),
                kind: cell.cell_type,
                source,
                span: span(file, raw)?,
                source_span: span(file, cell.source)?,
            });
        }
        let fits = |id: &str| !id.is_empty() && !id.contains(|c: char| c.is_whitespace() || c.is_control());
        let all: HashSet<&str> = cells.iter().map(|cell| cell.id.as_str()).collect();
        let known = all.len() == cells.len() && cells.iter().all(|cell| fits(&cell.id));
        let ids = (raw.nbformat, raw.nbformat_minor) >= (4, 5);
        if !known {
            cells.iter_mut().enumerate().for_each(|(i, cell)| cell.id = (i + 1).to_string());
        }
        let is_marker = |line: &str, percents: &str| marker(line, percents) != Line::Text;
        let mut percents = "%%".to_owned();
        while cells.iter().flat_map(|cell| cell.source.lines()).any(|line| is_marker(line, &percents)) {
            percents.push('%');
        }
        let text =
            cells.iter().map(|cell| format!("{}\n{}\n", header(cell, &percents), cell.source)).collect();
        Some(Self { text, percents, array, cells, ids })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn percents(&self) -> &str {
        &self.percents
    }

    /// Returns the bytes of the file after its cells are replaced with those in `new`.
    ///
    /// # Errors
    /// Fails if a cell in the text cannot be matched to a cell in the file.
    pub(crate) fn write(&self, bytes: &[u8], new: &str) -> Result<Vec<u8>, String> {
        let wanted = parse(new, &self.percents)?;
        let file = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
        let matched = self.matched(&wanted)?;
        let array = &file[self.array.clone()];
        let spans: Vec<Range<usize>> = self.cells.iter().map(|cell| cell.span.clone()).collect();
        let format = Format::of(file, &self.array, &spans, self.ids);
        let mut ids: HashSet<String> = self.cells.iter().map(|cell| cell.id.clone()).collect();
        let mut cells = Vec::with_capacity(wanted.len());
        for (wanted, old) in wanted.iter().zip(&matched) {
            cells.push(match old {
                Some(old) => old.with_source(file, &wanted.source, &format),
                None => format.cell(&wanted.kind, &wanted.source, &new_id(&mut ids)),
            });
        }
        // Keep the text between cells if the number of cells is the same.
        let same_cells = cells.len() == self.cells.len();
        let mut out = String::with_capacity(file.len() + new.len());
        out.push_str(&file[..self.array.start]);
        if same_cells && !self.cells.is_empty() {
            let mut at = self.array.start;
            for (text, cell) in cells.iter().zip(&self.cells) {
                out.push_str(&file[at..cell.span.start]);
                out.push_str(text);
                at = cell.span.end;
            }
            out.push_str(&file[at..self.array.end]);
        } else if cells.is_empty() && self.cells.is_empty() {
            out.push_str(array);
        } else {
            out.push_str(&format.array(&cells));
        }
        out.push_str(&file[self.array.end..]);
        let back = Self::of(out.as_bytes()).ok_or("the result would not be a valid notebook")?;
        let same = back.cells.iter().map(|c| (&c.kind, trim_newlines(&c.source)));
        if !same.eq(wanted.iter().map(|w| (&w.kind, trim_newlines(&w.source)))) {
            return Err("the cells do not survive being written to the notebook".into());
        }
        Ok(out.into_bytes())
    }

    /// For each cell in the edited text, returns the cell in the file that it replaces, or `None`
    /// if the cell is new.
    fn matched(&self, wanted: &[NewCell]) -> Result<Vec<Option<&Cell>>, String> {
        let by_id: HashMap<&str, &Cell> = self.cells.iter().map(|cell| (cell.id.as_str(), cell)).collect();
        let mut taken = HashSet::new();
        let mut matched = Vec::with_capacity(wanted.len());
        for cell in wanted {
            let Some(id) = &cell.id else {
                matched.push(None);
                continue;
            };
            let known = by_id.get(id.as_str()).copied().ok_or_else(|| {
                format!(
                    "there is no cell with id={id}; start a new cell with the line \"# {} [{}]\"",
                    self.percents, cell.kind
                )
            })?;
            if !taken.insert(id) {
                return Err(format!("the cell with id={id} appears twice; start a new cell without an id"));
            }
            if known.kind != cell.kind {
                return Err(format!(
                    "the cell with id={id} is a {} cell and cannot become a {} cell; delete it and add a new one without an id",
                    known.kind, cell.kind
                ));
            }
            matched.push(Some(known));
        }
        // If the source of a removed cell is now under another id, either the cells were renumbered
        // or one was rewritten. Refuse such an edit, because it is unclear which.
        let gone: BTreeMap<&str, &Cell> = self
            .cells
            .iter()
            .filter(|cell| !taken.contains(&cell.id) && !trim_newlines(&cell.source).is_empty())
            .map(|cell| (trim_newlines(&cell.source), cell))
            .collect();
        for (cell, known) in wanted.iter().zip(&matched) {
            if let (Some(known), Some(gone)) = (known, gone.get(trim_newlines(&cell.source)))
                && trim_newlines(&known.source) != trim_newlines(&cell.source)
            {
                return Err(format!(
                    "the source of cell id={} now appears under id={}; cells keep their ids, even when other cells are removed",
                    gone.id, known.id
                ));
            }
        }
        Ok(matched)
    }
}

impl Cell {
    /// Returns the JSON of this cell with its source replaced by `source`.
    fn with_source(&self, file: &str, source: &str, format: &Format) -> String {
        if trim_newlines(source) == trim_newlines(&self.source) {
            return file[self.span.clone()].to_owned();
        }
        // Trailing blank lines serve only to separate the cell from a new one below it.
        let source = if self.source.ends_with('\n') { source } else { trim_newlines(source) };
        let value =
            format.source(&file[self.source_span.clone()], source, indent(file, self.source_span.start));
        [&file[self.span.start..self.source_span.start], &value, &file[self.source_span.end..self.span.end]]
            .concat()
    }
}

/// Returns whether the text begins with a notebook cell.
pub(crate) fn begins(text: &str) -> bool {
    let first = text.trim_start_matches('\u{feff}').lines().find(|line| !line.trim().is_empty());
    first.is_some_and(|line| matches!(marker(line, "%%"), Line::Cell { .. }))
}

/// Creates a notebook with the cells in `text`.
///
/// # Errors
/// Fails if a line looks like the start of a cell but is not valid.
pub(crate) fn new(text: &str) -> Result<Vec<u8>, String> {
    let cells = parse(text.trim_start_matches('\u{feff}'), "%%")?;
    let empty = "{\n \"cells\": [],\n \"metadata\": {},\n \"nbformat\": 4,\n \"nbformat_minor\": 5\n}\n";
    let start = empty.find('[').unwrap_or_default();
    let format = Format::of(empty, &(start..start + 2), &[], true);
    let mut ids = HashSet::new();
    let cells: Vec<String> =
        cells.iter().map(|cell| format.cell(&cell.kind, &cell.source, &new_id(&mut ids))).collect();
    Ok(empty.replacen("[]", &format.array(&cells), 1).into_bytes())
}

/// The kind of a line in the text.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Text,
    Cell {
        kind: String,
        id: Option<String>,
    },
    /// Looks like the start of a cell but is not valid.
    Broken,
}

fn header(cell: &Cell, percents: &str) -> String {
    format!("# {percents} [{}] id={}", cell.kind, cell.id)
}

fn marker(line: &str, percents: &str) -> Line {
    let Some(rest) = line.strip_prefix("# ").and_then(|rest| rest.strip_prefix(percents)) else {
        return Line::Text;
    };
    if rest.starts_with(|c: char| !c.is_whitespace()) {
        return Line::Text;
    }
    let mut words = rest.split_whitespace();
    let (mut kind, mut id) = ("code", None);
    let mut word = words.next();
    if let Some(named) = word.and_then(|w| w.strip_prefix('[')?.strip_suffix(']')) {
        kind = named;
        word = words.next();
    }
    if let Some(named) = word.and_then(|w| w.strip_prefix("id=")) {
        id = Some(named.to_owned());
        word = words.next();
    }
    match word.is_none() && KINDS.contains(&kind) {
        true => Line::Cell { kind: kind.to_owned(), id },
        false => Line::Broken,
    }
}

fn parse(text: &str, percents: &str) -> Result<Vec<NewCell>, String> {
    let mut cells: Vec<(String, Option<String>, Vec<&str>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match (marker(line, percents), cells.last_mut()) {
            (Line::Cell { kind, id }, _) => cells.push((kind, id, Vec::new())),
            (Line::Broken, _) => {
                return Err(format!(
                    "line {} of the new text, {line:?}, is not a valid start of a notebook cell; a cell starts with \
                     \"# {percents} [code]\" or \"# {percents} [markdown]\", then its id if it has one",
                    number + 1
                ));
            }
            (Line::Text, Some((.., lines))) => lines.push(line),
            (Line::Text, None) if line.trim().is_empty() => {}
            (Line::Text, None) => {
                return Err(format!(
                    "line {} of the new text is outside every notebook cell; a cell starts with a line \
                     \"# {percents} [code]\" or \"# {percents} [markdown]\"",
                    number + 1
                ));
            }
        }
    }
    let wanted = cells.into_iter().map(|(kind, id, lines)| {
        let source = lines.join("\n");
        let source = if id.is_none() { trim_newlines(&source).to_owned() } else { source };
        NewCell { kind, id, source }
    });
    Ok(wanted.collect())
}

/// Removes trailing newlines, which only separate cells.
fn trim_newlines(source: &str) -> &str {
    source.trim_end_matches('\n')
}

fn new_id(ids: &mut HashSet<String>) -> String {
    let mut number = ids.len() + 1;
    while !ids.insert(format!("cell-{number}")) {
        number += 1;
    }
    format!("cell-{number}")
}

/// Returns the span of a JSON value in the file.
fn span(file: &str, raw: &RawValue) -> Option<Range<usize>> {
    let start = (raw.get().as_ptr() as usize).checked_sub(file.as_ptr() as usize)?;
    let span = start..start + raw.get().len();
    (file.get(span.clone()) == Some(raw.get())).then_some(span)
}

/// Returns the indentation of the line that contains byte `at`.
fn indent(file: &str, at: usize) -> &str {
    let line = &file[file[..at].rfind('\n').map_or(0, |n| n + 1)..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}
