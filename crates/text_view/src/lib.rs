//! The text of a file as a model sees it, and the bytes that an edit to that text produces.
//!
//! A [`View`] is a file's text in UTF-8: the bytes themselves if the file is UTF-8, the decoded
//! characters if it is in another encoding, or the cells if it is a notebook. [`View::write`]
//! converts the edited text back. Lines that the edit leaves alone keep their bytes, even invalid
//! ones. New text is written in the file's own encoding, or refused if the encoding cannot
//! represent a character. This crate does no file I/O.
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

/// Why edited text cannot be written back to its file. The `Display` text is a sentence for the
/// model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// The encoding cannot represent the character.
    #[error(
        "line {line} of the new text contains {c:?} (U+{:04X}), which the file's encoding {encoding} cannot represent; \
         write it another way, for example as an escape sequence", u32::from(*.c)
    )]
    Character {
        /// The character.
        c: char,
        /// The 1-based line number of the character in the new text.
        line: usize,
        /// The file's encoding.
        encoding: &'static str,
    },
    /// The character is U+FFFD, which replaces bytes that could not be decoded.
    #[error(
        "line {line} of the new text contains U+FFFD, which stands for bytes that are not valid {encoding}; \
         leave such characters where they are"
    )]
    Unreadable {
        /// The 1-based line number of the character in the new text.
        line: usize,
        /// The file's encoding.
        encoding: &'static str,
    },
    /// The file may be in either of two encodings that encode the character differently.
    #[error(
        "line {line} of the new text contains {c:?} (U+{:04X}), and the file may be {encoding} or {alternative}, which encode it \
         differently; write it another way, for example as an escape sequence", u32::from(*.c)
    )]
    UncertainEncoding {
        /// The character.
        c: char,
        /// The 1-based line number of the character in the new text.
        line: usize,
        /// The more likely encoding.
        encoding: &'static str,
        /// The other encoding.
        alternative: &'static str,
    },
    /// The encoded text would not decode to the same text.
    #[error(
        "the new text would read differently once encoded in {encoding}, the file's encoding; write its new characters \
         another way"
    )]
    Ambiguous {
        /// The file's encoding.
        encoding: &'static str,
    },
    /// The cells of a notebook cannot be written.
    #[error("{0}")]
    Notebook(String),
}

/// A file together with the text that is shown and edited.
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
    /// Decodes a file. `path` determines whether the file is a notebook, and how the file may
    /// declare its encoding.
    ///
    /// # Errors
    /// Returns the bytes if the file is binary.
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

    /// Returns the bytes of the file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Consumes the view and returns the bytes of the file.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns the text, in UTF-8.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match &self.kind {
            Kind::Plain => &self.bytes,
            Kind::Encoded(_, text) => text.as_bytes(),
            Kind::Notebook(notebook) => notebook.text().as_bytes(),
        }
    }

    /// Returns whether the text consists of the file's own bytes.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }

    /// Returns whether the file is shown as the cells of a notebook.
    #[must_use]
    pub fn is_notebook(&self) -> bool {
        matches!(self.kind, Kind::Notebook(_))
    }

    /// Returns a note for the reader on how the file is encoded or shown, if it is not plain UTF-8.
    /// The note completes a sentence whose subject is the file.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        match &self.kind {
            Kind::Plain => None,
            Kind::Notebook(notebook) => Some(
                "a notebook, shown as cells without outputs; a line \"# %% [code]\" or \"# %% [markdown]\" starts a new cell"
                    .replace("%%", notebook.percents()),
            ),
            Kind::Encoded(coding, _) => {
                let mut notes = Vec::new();
                if coding.encoding != encoding::Encoding::Utf8 {
                    let names: Vec<&str> = coding.candidates().map(encoding::Encoding::name).collect();
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

    /// Decodes bytes that are not the file's own, such as a patch for the file. Each line may be
    /// UTF-8 or in the file's encoding. Returns `None` if a line is neither, or if the file is a
    /// notebook, entirely UTF-8, or UTF-16.
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

    /// Returns the bytes of the file after its text is replaced with `text`.
    ///
    /// # Errors
    /// Fails if the text cannot be written to the file.
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

/// Returns the bytes of a new file with this text: the JSON of a notebook if `path` names a
/// notebook and the text consists of cells, or the text itself otherwise.
///
/// # Errors
/// Fails if the text starts like the cells of a notebook but cannot be parsed as cells.
pub fn new_file(path: &str, text: &[u8]) -> Result<Vec<u8>, Unwritable> {
    match std::str::from_utf8(text) {
        Ok(cells) if is_notebook(path) && notebook::begins(cells) => {
            notebook::new(cells).map_err(Unwritable::Notebook)
        }
        _ => Ok(text.to_vec()),
    }
}

/// Returns whether the bytes are a notebook that can be shown as cells.
#[must_use]
pub fn is_valid_notebook(bytes: &[u8]) -> bool {
    Notebook::of(bytes).is_some()
}

fn is_notebook(path: &str) -> bool {
    path.len() > 6 && path.to_ascii_lowercase().ends_with(".ipynb")
}
