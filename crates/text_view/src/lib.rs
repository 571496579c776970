//! The text that a model sees of a file, and the bytes that an edit of this text means.
//!
//! A [`View`] is a file's text as UTF-8. Of a file in UTF-8 that is the bytes themselves; of one in
//! another encoding the decoded characters; of a notebook its cells. [`View::write`] goes back:
//! lines that an edit leaves alone keep their bytes, whatever they are, and what is new is written
//! in the file's own encoding, or refused where that has no such characters. Nothing here knows of
//! files.
//!
//! ```
//! let view = text_view::View::of("menu.txt", b"caf\xe9\n".to_vec()).unwrap();
//! assert_eq!(view.text(), "café\n".as_bytes());
//! assert_eq!(view.write("café con piña\n".as_bytes()).unwrap(), b"caf\xe9 con pi\xf1a\n");
//! assert!(view.write("café 日本\n".as_bytes()).is_err());
//! ```

mod coding;
mod declared;
mod encoding;
mod notebook;
mod units;
mod western;

use crate::{coding::Coding, notebook::Notebook};

/// Why an edit of a text cannot be written to its file. Each is a sentence for the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The encoding does not have the character.
    #[error(
        "line {line} of the new text has {c:?} (U+{:04X}), which {encoding}, the file's encoding, cannot hold; write it in another way, such as \
         an escape of the language", u32::from(*.c)
    )]
    Character {
        /// The character.
        c: char,
        /// Where, in the new text, from 1.
        line: usize,
        /// The file's.
        encoding: &'static str,
    },
    /// It stands for bytes that were not understood.
    #[error(
        "line {line} of the new text has U+FFFD, which only stands for bytes that are not {encoding}; leave such characters where they are"
    )]
    Unreadable {
        /// Where, in the new text, from 1.
        line: usize,
        /// The file's.
        encoding: &'static str,
    },
    /// Nothing in the file says in which of two encodings it is.
    #[error(
        "line {line} of the new text has {c:?} (U+{:04X}), and the file may be {encoding} or {twin}, which do not write it alike; write it in another way, such as an \
         escape of the language", u32::from(*.c)
    )]
    Twins {
        /// The character.
        c: char,
        /// Where, in the new text, from 1.
        line: usize,
        /// The likelier one.
        encoding: &'static str,
        /// The other.
        twin: &'static str,
    },
    /// The encoded text would not decode to the same text.
    #[error(
        "in {encoding}, the file's encoding, the new text would read differently; write its new characters in another way"
    )]
    Ambiguous {
        /// The file's.
        encoding: &'static str,
    },
    /// The cells of a notebook.
    #[error("{0}")]
    Notebook(String),
}

/// A file as the text that is shown and edited.
#[derive(Debug, Clone)]
pub struct View {
    bytes: Vec<u8>,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The bytes are the text.
    Plain,
    Encoded(Box<Coding>, String),
    Notebook(Box<Notebook>),
}

impl View {
    /// How a file is shown; `path` says what kind it is. The bytes come back when it is no text.
    ///
    /// # Errors
    /// The bytes, when it is binary.
    pub fn of(path: &str, bytes: Vec<u8>) -> Result<Self, Vec<u8>> {
        if is_notebook(path)
            && let Some(notebook) = Notebook::of(&bytes)
        {
            return Ok(Self { bytes, kind: Kind::Notebook(Box::new(notebook)) });
        }
        let Some(coding) = Coding::of(path, &bytes) else { return Err(bytes) };
        let kind = match coding.is_plain() {
            true => Kind::Plain,
            false => Kind::Encoded(Box::new(coding), units::text(coding, &bytes)),
        };
        Ok(Self { bytes, kind })
    }

    /// The file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file, by value.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The text: UTF-8.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match &self.kind {
            Kind::Plain => &self.bytes,
            Kind::Encoded(_, text) => text.as_bytes(),
            Kind::Notebook(notebook) => notebook.text().as_bytes(),
        }
    }

    /// Whether the text is the file itself.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }

    /// Whether it is shown as the cells of a notebook.
    #[must_use]
    pub fn is_notebook(&self) -> bool {
        matches!(self.kind, Kind::Notebook(_))
    }

    /// What is to be known of it, if anything, as the rest of a sentence about the file.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        match &self.kind {
            Kind::Plain => None,
            Kind::Notebook(_) => Some(
                "a notebook, shown as its cells without their outputs; a line \"# %% [code]\" or \"# %% [markdown]\" begins a new one"
                    .replace("%%", self.percents()),
            ),
            Kind::Encoded(coding, _) => {
                let mut notes = Vec::new();
                if coding.encoding != encoding::Encoding::Utf8 {
                    let names: Vec<&str> = coding.all().map(encoding::Encoding::name).collect();
                    notes.push(format!("encoded in {}", names.join(" or ")));
                }
                if let Some(stray) = coding.stray {
                    notes.push(format!("not all UTF-8: some lines are read as {}", stray.name()));
                }
                if coding.carriage_returns {
                    notes.push("lines end with CR".to_owned());
                }
                Some(notes.join("; "))
            }
        }
    }

    fn percents(&self) -> &str {
        match &self.kind {
            Kind::Notebook(notebook) => notebook.percents(),
            _ => "",
        }
    }

    /// Other bytes, a patch of this file, as text: their lines are UTF-8 or in the file's encoding,
    /// of one byte or more for a character. `None` where some are neither.
    #[must_use]
    pub fn decode(&self, bytes: &[u8]) -> Option<String> {
        let Kind::Encoded(coding, _) = &self.kind else { return None };
        let encoding = coding.stray.unwrap_or(coding.encoding);
        if matches!(encoding, encoding::Encoding::Utf16 { .. } | encoding::Encoding::Utf8) {
            return None;
        }
        let mixed = Coding { encoding: encoding::Encoding::Utf8, stray: Some(encoding), ..**coding };
        let text = units::text(Coding { carriage_returns: false, ..mixed }, bytes);
        (!text.contains('\u{fffd}')).then_some(text)
    }

    /// The file with this text instead.
    ///
    /// # Errors
    /// When the file cannot hold the text.
    pub fn write(&self, text: &[u8]) -> Result<Vec<u8>, Unwritable> {
        if text == self.text() {
            return Ok(self.bytes.clone());
        }
        let new = || String::from_utf8_lossy(text);
        match &self.kind {
            Kind::Plain => Ok(text.to_vec()),
            Kind::Encoded(coding, _) => units::write(**coding, &self.bytes, &new()),
            Kind::Notebook(notebook) => notebook.write(&self.bytes, &new()).map_err(Unwritable::Notebook),
        }
    }
}

/// What a new file of this name is written as, when this is its text. That is the text, but for the
/// cells of a notebook.
///
/// # Errors
/// When it begins as cells and does not go on so.
pub fn new_file(path: &str, text: &[u8]) -> Result<Vec<u8>, Unwritable> {
    match std::str::from_utf8(text) {
        Ok(cells) if is_notebook(path) && notebook::begins(cells) => {
            notebook::new(cells).map_err(Unwritable::Notebook)
        }
        _ => Ok(text.to_vec()),
    }
}

/// Whether these bytes are a notebook that can be shown as cells.
#[must_use]
pub fn is_whole_notebook(bytes: &[u8]) -> bool {
    Notebook::of(bytes).is_some()
}

fn is_notebook(path: &str) -> bool {
    path.len() > 6 && path.to_ascii_lowercase().ends_with(".ipynb")
}
