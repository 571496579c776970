//! Parses the text of a task file into objects with line numbers. Other modules interpret the keys
//! of those objects.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::Problem;

/// One object in a task file.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) file: PathBuf,
    /// 1-based.
    pub(super) line: usize,
    pub(super) fields: Vec<Field>,
    /// The text below the front matter of a Markdown file.
    pub(super) body: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Value,
}

impl Entry {
    /// Returns the field with this key. Treats `null` as absent.
    pub(super) fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key == key && !field.value.is_null())
    }
}

type Read = Vec<Result<Entry, Problem>>;

/// Parses one JSON object per line; skips blank lines.
pub(super) fn json_lines(file: &Path, text: &str) -> Read {
    if text.trim().lines().count() > 1 && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        let message =
            "one JSON object spans several lines; write each task on one line, or all tasks as a list in [ ]";
        return vec![Err(Problem { file: file.into(), line: 1, message: message.into() })];
    }
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let object = |(line, text): (usize, &str)| {
        let problem = |message| Problem { file: file.into(), line, message };
        let pairs: Pairs<Value> = serde_json::from_str(text).map_err(|e| {
            let hint = if e.is_eof() { "; each line must be a whole object" } else { "" };
            problem(format!("is not a JSON object: {}{hint}", without_place(&e.to_string())))
        })?;
        let fields = pairs.0.into_iter().map(|(key, value)| Field { key, line, value }).collect();
        let entry = Entry { file: file.into(), line, fields, body: None };
        entry.repeated().map_or(Ok(entry), |key| Err(problem(format!("duplicate key {key:?}"))))
    };
    numbered.filter(|(_, text)| !text.is_empty()).map(object).collect()
}

/// Parses a YAML list of mappings. JSON arrays are valid YAML.
pub(super) fn list(file: &Path, text: &str) -> Read {
    if text.trim().is_empty() {
        return Vec::new();
    }
    match serde_saphyr::from_str::<Vec<Spanned<Pairs<Spanned<Value>>>>>(text) {
        Err(e) => vec![Err(yaml_problem(file, 0, &e, "a list of tasks, each with keys and values"))],
        Ok(items) => items
            .into_iter()
            .map(|item| {
                let line = usize::try_from(item.referenced.line()).unwrap_or(0);
                Ok(Entry { file: file.into(), line, fields: spanned(item.value, 0), body: None })
            })
            .collect(),
    }
}

/// Parses the `[[tasks]]` tables of a TOML file.
pub(super) fn toml(file: &Path, text: &str) -> Read {
    type Table = toml::Spanned<Pairs<toml::Spanned<Value>>>;
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        tasks: Vec<Table>,
    }
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |at: usize| ends.partition_point(|end| *end < at) + 1;
    let parsed: File = match toml::from_str(text) {
        Ok(parsed) => parsed,
        Err(e) => {
            let line = e.span().map_or(0, |span| line(span.start));
            let message = format!("is not a list of [[tasks]] in TOML: {}", e.message());
            return vec![Err(Problem { file: file.into(), line, message })];
        }
    };
    let field = |(key, value): (String, toml::Spanned<Value>)| {
        let line = line(value.span().start);
        Field { key, line, value: value.into_inner() }
    };
    let entry = |table: Table| {
        let line = line(table.span().start);
        let fields = table.into_inner().0.into_iter().map(field).collect();
        Ok(Entry { file: file.into(), line, fields, body: None })
    };
    parsed.tasks.into_iter().map(entry).collect()
}

/// Parses a Markdown file with one task: YAML between two `---` lines, then text.
pub(super) fn markdown(file: &Path, text: &str) -> Read {
    let problem = |line, message: &str| Problem { file: file.into(), line, message: message.into() };
    let mut lines = text.split_inclusive('\n');
    let is_fence = |line: &str| line.trim_end() == "---";
    let Some(first) = lines.next().filter(|line| is_fence(line)) else {
        let message = "a task in Markdown starts with `---`, front matter (at least `repo: …`) and `---`";
        return vec![Err(problem(1, message))];
    };
    let start = first.len();
    let mut end = start;
    let Some(fence) = lines.find(|line| {
        is_fence(line) || {
            end += line.len();
            false
        }
    }) else {
        return vec![Err(problem(1, "the front matter is not closed by a `---` line"))];
    };
    let (front, body) = (&text[start..end], &text[end + fence.len()..]);
    let fields = if front.trim().is_empty() {
        Ok(Vec::new())
    } else {
        let read = serde_saphyr::from_str::<Pairs<Spanned<Value>>>(front);
        read.map(|pairs| spanned(pairs, 1)).map_err(|e| yaml_problem(file, 1, &e, "keys and values"))
    };
    vec![fields.map(|fields| Entry {
        file: file.into(),
        line: 1,
        fields,
        body: Some(body.trim().to_owned()),
    })]
}

impl Entry {
    fn repeated(&self) -> Option<String> {
        let mut seen = HashSet::new();
        self.fields.iter().map(|field| &field.key).find(|key| !seen.insert(*key)).cloned()
    }
}

fn spanned(pairs: Pairs<Spanned<Value>>, lines_above: usize) -> Vec<Field> {
    let line = |value: &Spanned<Value>| usize::try_from(value.referenced.line()).unwrap_or(0) + lines_above;
    pairs.0.into_iter().map(|(key, value)| Field { key, line: line(&value), value: value.value }).collect()
}

fn yaml_problem(file: &Path, lines_above: usize, e: &serde_saphyr::Error, expected: &str) -> Problem {
    let line = e.location().map_or(0, |at| usize::try_from(at.line()).unwrap_or(0) + lines_above);
    let said = e.without_snippet().to_string();
    let said = without_place(said.lines().next().unwrap_or_default());
    // The rest of the message is advice for programmers.
    let said = said.split(", set DuplicateKeyPolicy").next().unwrap_or(said);
    Problem { file: file.into(), line, message: format!("is not {expected} in YAML: {said}") }
}

/// Removes the position from a parser's message, because it is relative to the text that the parser
/// was given rather than to the file.
fn without_place(said: &str) -> &str {
    said.split(" at line ").next().unwrap_or(said)
}

/// An object's keys and values in order, including duplicates.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<V>(std::marker::PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Collect<V> {
            type Value = Pairs<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a task with keys and values")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect(std::marker::PhantomData))
    }
}
