//! A Jupyter notebook (nbformat 4) as the text of its cells, and back: an edit changes sources,
//! adds cells or removes them. Everything else of the file, outputs above all, keeps its bytes.
//!
//! A cell begins with a line `# %% [code] id=ID`. Where a source has such a line itself, all have
//! more percent signs. Cells of notebooks without ids are numbered.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use serde::Deserialize;
use serde_json::value::RawValue;

mod format;

use format::Format;

const KINDS: [&str; 3] = ["code", "markdown", "raw"];

/// A notebook as it lies there.
#[derive(Debug, Clone)]
pub(crate) struct Notebook {
    text: String,
    percents: String,
    /// Of the array of cells in the file.
    array: Range<usize>,
    cells: Vec<Cell>,
    /// Whether cells have ids.
    ids: bool,
}

#[derive(Debug, Clone)]
struct Cell {
    id: String,
    kind: String,
    source: String,
    /// Of the cell in the file.
    span: Range<usize>,
    /// Of the value of its source in the file.
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

/// A cell as an edit has it.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    kind: String,
    id: Option<String>,
    source: String,
}

impl Notebook {
    /// `None` where it is no valid notebook, or one of another version.
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
        let looks = |line: &str, percents: &str| marker(line, percents) != Line::Text;
        let mut percents = "%%".to_owned();
        while cells.iter().flat_map(|cell| cell.source.lines()).any(|line| looks(line, &percents)) {
            percents.push('%');
        }
        let text = cells.iter().map(|cell| format!("{}\n{}\n", head(cell, &percents), cell.source)).collect();
        Some(Self { text, percents, array, cells, ids })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn percents(&self) -> &str {
        &self.percents
    }

    /// The file with these cells.
    ///
    /// # Errors
    /// When it is not clear what becomes of which cell.
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
                Some(old) => old.with(file, &wanted.source, &format),
                None => format.cell(&wanted.kind, &wanted.source, &fresh(&mut ids)),
            });
        }
        // What stands between cells is taken from between the old ones.
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
        let back = Self::of(out.as_bytes()).ok_or("the result would be no notebook")?;
        let same = back.cells.iter().map(|c| (&c.kind, bare(&c.source)));
        if !same.eq(wanted.iter().map(|w| (&w.kind, bare(&w.source)))) {
            return Err("the cells cannot be written so".into());
        }
        Ok(out.into_bytes())
    }

    /// Which cell each wanted one is.
    fn matched(&self, wanted: &[Wanted]) -> Result<Vec<Option<&Cell>>, String> {
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
                    "there is no cell with id={id}; begin a new cell with a line \"# {} [{}]\"",
                    self.percents, cell.kind
                )
            })?;
            if !taken.insert(id) {
                return Err(format!(
                    "the cell with id={id} would be there twice; begin a new cell without an id"
                ));
            }
            if known.kind != cell.kind {
                return Err(format!(
                    "the cell with id={id} is a {} cell, which cannot become a {} cell; delete it and add a new one without an id",
                    known.kind, cell.kind
                ));
            }
            matched.push(Some(known));
        }
        // A cell that goes and whose source stands under another one's id: were they numbered anew,
        // or rewritten?
        let gone: BTreeMap<&str, &Cell> = self
            .cells
            .iter()
            .filter(|cell| !taken.contains(&cell.id) && !bare(&cell.source).is_empty())
            .map(|cell| (bare(&cell.source), cell))
            .collect();
        for (cell, known) in wanted.iter().zip(&matched) {
            if let (Some(known), Some(gone)) = (known, gone.get(bare(&cell.source)))
                && bare(&known.source) != bare(&cell.source)
            {
                return Err(format!(
                    "the source of the cell with id={} stands under id={} now; each cell keeps its id, also when others are removed",
                    gone.id, known.id
                ));
            }
        }
        Ok(matched)
    }
}

impl Cell {
    /// The cell in the file with this source.
    fn with(&self, file: &str, source: &str, format: &Format) -> String {
        if bare(source) == bare(&self.source) {
            return file[self.span.clone()].to_owned();
        }
        // Blank lines at its end keep it apart from a new cell below.
        let source = if self.source.ends_with('\n') { source } else { bare(source) };
        let value =
            format.source(&file[self.source_span.clone()], source, indent(file, self.source_span.start));
        [&file[self.span.start..self.source_span.start], &value, &file[self.source_span.end..self.span.end]]
            .concat()
    }
}

/// Whether a text is that of cells.
pub(crate) fn begins(text: &str) -> bool {
    let first = text.trim_start_matches('\u{feff}').lines().find(|line| !line.trim().is_empty());
    first.is_some_and(|line| matches!(marker(line, "%%"), Line::Cell { .. }))
}

/// A new notebook of these cells.
///
/// # Errors
/// When a line is no beginning of a cell and looks like one.
pub(crate) fn new(text: &str) -> Result<Vec<u8>, String> {
    let cells = parse(text.trim_start_matches('\u{feff}'), "%%")?;
    let empty = "{\n \"cells\": [],\n \"metadata\": {},\n \"nbformat\": 4,\n \"nbformat_minor\": 5\n}\n";
    let start = empty.find('[').unwrap_or_default();
    let format = Format::of(empty, &(start..start + 2), &[], true);
    let mut ids = HashSet::new();
    let cells: Vec<String> =
        cells.iter().map(|cell| format.cell(&cell.kind, &cell.source, &fresh(&mut ids))).collect();
    Ok(empty.replacen("[]", &format.array(&cells), 1).into_bytes())
}

/// What a line of the text is.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Text,
    Cell {
        kind: String,
        id: Option<String>,
    },
    /// It begins as a cell does.
    Broken,
}

fn head(cell: &Cell, percents: &str) -> String {
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

fn parse(text: &str, percents: &str) -> Result<Vec<Wanted>, String> {
    let mut cells: Vec<(String, Option<String>, Vec<&str>)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match (marker(line, percents), cells.last_mut()) {
            (Line::Cell { kind, id }, _) => cells.push((kind, id, Vec::new())),
            (Line::Broken, _) => {
                return Err(format!(
                    "line {} of the new text, {line:?}, begins as a cell of the notebook does and is none; a cell begins with \"# {percents} [code]\" \
                     or \"# {percents} [markdown]\", and the id if it has one",
                    number + 1
                ));
            }
            (Line::Text, Some((.., lines))) => lines.push(line),
            (Line::Text, None) if line.trim().is_empty() => {}
            (Line::Text, None) => {
                return Err(format!(
                    "line {} of the new text stands in no cell of the notebook; a cell begins with a line \"# {percents} [code]\" or \"# {percents} [markdown]\"",
                    number + 1
                ));
            }
        }
    }
    let wanted = cells.into_iter().map(|(kind, id, lines)| {
        let source = lines.join("\n");
        let source = if id.is_none() { bare(&source).to_owned() } else { source };
        Wanted { kind, id, source }
    });
    Ok(wanted.collect())
}

/// Without the newlines at the end, which keep cells apart.
fn bare(source: &str) -> &str {
    source.trim_end_matches('\n')
}

fn fresh(ids: &mut HashSet<String>) -> String {
    let mut number = ids.len() + 1;
    while !ids.insert(format!("cell-{number}")) {
        number += 1;
    }
    format!("cell-{number}")
}

/// The position of a value in its source text.
fn span(file: &str, raw: &RawValue) -> Option<Range<usize>> {
    let start = (raw.get().as_ptr() as usize).checked_sub(file.as_ptr() as usize)?;
    let span = start..start + raw.get().len();
    (file.get(span.clone()) == Some(raw.get())).then_some(span)
}

/// The blanks at the beginning of the line that this byte is on.
fn indent(file: &str, at: usize) -> &str {
    let line = &file[file[..at].rfind('\n').map_or(0, |n| n + 1)..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}
