//! Detects the layout of a notebook's JSON so that new cells and sources look like the existing
//! ones.

use std::{collections::HashMap, ops::Range};

use serde_json::value::RawValue;

use super::{Source, indent};

#[derive(Debug)]
pub(super) struct Format {
    /// The line ending, `\n` or `\r\n`; empty if everything is on one line.
    newline: &'static str,
    /// The space after `:`, and after `,` if the next item is on the same line.
    blank: &'static str,
    /// Indentation of the closing bracket of the cell array.
    outer: String,
    /// Indentation of the cells.
    inner: String,
    /// Additional indentation per level.
    step: String,
    /// Whether non-ASCII characters are escaped.
    ascii: bool,
    ids: bool,
    /// The text before the first cell, between two cells, and after the last cell.
    separators: Option<[String; 3]>,
}

impl Format {
    pub(super) fn of(file: &str, array: &Range<usize>, cells: &[Range<usize>], ids: bool) -> Self {
        let lines = file[..array.start].contains('\n');
        let newline = match lines {
            true if file.contains("\r\n") => "\r\n",
            true => "\n",
            false => "",
        };
        let outer = if lines { indent(file, array.start).to_owned() } else { String::new() };
        let own = |cell: &Range<usize>| {
            let inner = indent(file, cell.start);
            (lines && inner.len() > outer.len()).then(|| inner.to_owned())
        };
        let step = if outer.is_empty() && lines { " ".to_owned() } else { outer.clone() };
        let inner = cells.first().and_then(own).unwrap_or_else(|| format!("{outer}{step}"));
        let inner = if lines { inner } else { String::new() };
        let step = inner.strip_prefix(&outer).map(str::to_owned).unwrap_or(step);
        let separators = cells.first().zip(cells.last()).map(|(first, last)| {
            let between = match cells.get(1) {
                Some(second) => file[first.end..second.start].to_owned(),
                None => format!(",{}", &file[array.start + 1..first.start]),
            };
            let (before, after) = (&file[array.start..first.start], &file[last.end..array.end]);
            [before.to_owned(), between, after.to_owned()]
        });
        let blank = if file.contains("\": ") || lines { " " } else { "" };
        let ascii = file.is_ascii() && file.contains("\\u");
        Self { newline, blank, outer, inner, step, ascii, ids, separators }
    }

    /// Returns the JSON array of these cells.
    pub(super) fn array(&self, cells: &[String]) -> String {
        let Self { newline, outer, inner, .. } = self;
        if cells.is_empty() {
            return "[]".into();
        }
        match &self.separators {
            Some([before, between, after]) => format!("{before}{}{after}", cells.join(between)),
            None if newline.is_empty() => format!("[{}]", cells.join(&format!(",{}", self.blank))),
            None => {
                let between = format!(",{newline}{inner}");
                format!("[{newline}{inner}{}{newline}{outer}]", cells.join(&between))
            }
        }
    }

    /// Returns the JSON of a new cell, with its keys in Jupyter's order.
    pub(super) fn cell(&self, kind: &str, source: &str, id: &str) -> String {
        let Self { newline, blank, inner, step, .. } = self;
        let field = format!("{inner}{step}");
        let code = kind == "code";
        let mut fields = vec![format!("\"cell_type\":{blank}\"{kind}\"")];
        fields.extend(code.then(|| format!("\"execution_count\":{blank}null")));
        fields.extend(self.ids.then(|| format!("\"id\":{blank}{}", self.literal(id))));
        fields.push(format!("\"metadata\":{blank}{{}}"));
        fields.extend(code.then(|| format!("\"outputs\":{blank}[]")));
        fields.push(format!(
            "\"source\":{blank}{}",
            self.lines(&literals(self, source, &HashMap::new()), &field)
        ));
        if newline.is_empty() {
            return format!("{{{}}}", fields.join(&format!(",{blank}")));
        }
        format!("{{{newline}{field}{}{newline}{inner}}}", fields.join(&format!(",{newline}{field}")))
    }

    /// Returns the JSON of a source, in the style of the old one. A line that also occurs in the
    /// old source keeps its JSON literal, including its escapes.
    pub(super) fn source(&self, old: &str, source: &str, indent: &str) -> String {
        match serde_json::from_str::<Source>(old) {
            Ok(Source::Whole(_)) => return self.literal(source),
            Ok(Source::Lines(_)) | Err(_) => {}
        }
        let raws: Vec<&RawValue> = serde_json::from_str(old).unwrap_or_default();
        let known: HashMap<String, &str> =
            raws.iter().filter_map(|raw| Some((serde_json::from_str(raw.get()).ok()?, raw.get()))).collect();
        let literals = literals(self, source, &known);
        match raws.first() {
            _ if literals.is_empty() => "[]".into(),
            // Lay out the array like the old one: on one line, or with one element per line.
            Some(_) if !old.contains('\n') => {
                format!("[{}]", literals.join(if old.contains("\",\"") { "," } else { ", " }))
            }
            Some(first) => {
                let start = (first.get().as_ptr() as usize).saturating_sub(old.as_ptr() as usize);
                let (before, last) = (&old[..start], old.rfind(['"', ']']).unwrap_or(start));
                let end = old[..=last].rfind('"').map_or(old.len(), |quote| quote + 1);
                format!("{before}{}{}", literals.join(&format!(",{}", &before[1..])), &old[end..])
            }
            None => self.lines(&literals, indent),
        }
    }

    /// Returns a JSON array with one literal per line.
    fn lines(&self, literals: &[String], indent: &str) -> String {
        let Self { newline, blank, step, .. } = self;
        if literals.is_empty() {
            return "[]".into();
        }
        if newline.is_empty() {
            return format!("[{}]", literals.join(&format!(",{blank}")));
        }
        let between = format!(",{newline}{indent}{step}");
        format!("[{newline}{indent}{step}{}{newline}{indent}]", literals.join(&between))
    }

    fn literal(&self, text: &str) -> String {
        let literal = serde_json::Value::from(text).to_string();
        if !self.ascii || literal.is_ascii() {
            return literal;
        }
        let mut units = [0; 2];
        let mut out = String::new();
        for c in literal.chars() {
            match c.is_ascii() {
                true => out.push(c),
                false => {
                    out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
                }
            }
        }
        out
    }
}

/// Returns the lines of a source as JSON string literals. Each line includes its newline.
fn literals(format: &Format, source: &str, known: &HashMap<String, &str>) -> Vec<String> {
    let literal = |line: &str| known.get(line).map_or_else(|| format.literal(line), |raw| (*raw).to_owned());
    source.split_inclusive('\n').map(literal).collect()
}
