//! The languages that can be parsed.

use std::sync::OnceLock;

use tree_sitter::Query;

/// A language, with its grammar and the query that finds definitions and uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Rust.
    Rust,
    /// Python, including stubs.
    Python,
    /// JavaScript, including JSX.
    JavaScript,
    /// TypeScript without JSX.
    TypeScript,
    /// TypeScript with JSX.
    Tsx,
    /// Go.
    Go,
}

/// A grammar and the query compiled for it.
pub(crate) struct Tagger {
    pub(crate) language: tree_sitter::Language,
    pub(crate) query: Query,
}

const JAVASCRIPT: &str = include_str!("../queries/javascript.scm");
const JSX: &str = include_str!("../queries/jsx.scm");
const TYPESCRIPT: &str = include_str!("../queries/typescript.scm");

impl Language {
    const ALL: [Self; 6] =
        [Self::Rust, Self::Python, Self::JavaScript, Self::TypeScript, Self::Tsx, Self::Go];

    /// Returns the language of a file based on its extension, or `None` if there is no grammar for
    /// it.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next().unwrap_or(path);
        Some(match name.rsplit_once('.')?.1 {
            "rs" => Self::Rust,
            "py" | "pyi" => Self::Python,
            "js" | "mjs" | "cjs" | "jsx" => Self::JavaScript,
            "ts" | "mts" | "cts" => Self::TypeScript,
            "tsx" => Self::Tsx,
            "go" => Self::Go,
            _ => return None,
        })
    }

    fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Self::Go => tree_sitter_go::LANGUAGE.into(),
        }
    }

    fn query(self) -> String {
        match self {
            Self::Rust => include_str!("../queries/rust.scm").into(),
            Self::Python => include_str!("../queries/python.scm").into(),
            Self::JavaScript => [JAVASCRIPT, JSX].concat(),
            Self::TypeScript => [JAVASCRIPT, TYPESCRIPT].concat(),
            Self::Tsx => [JAVASCRIPT, JSX, TYPESCRIPT].concat(),
            Self::Go => include_str!("../queries/go.scm").into(),
        }
    }

    /// Returns the compiled query, which all threads share. Returns `None` if the query is not
    /// valid for the grammar. A test checks that every query is.
    pub(crate) fn tagger(self) -> Option<&'static Tagger> {
        static TAGGERS: [OnceLock<Option<Tagger>>; Language::ALL.len()] =
            [const { OnceLock::new() }; Language::ALL.len()];
        let build = || {
            let language = self.grammar();
            let query = Query::new(&language, &self.query()).ok()?;
            Some(Tagger { language, query })
        };
        TAGGERS.get(self as usize)?.get_or_init(build).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_fits_its_grammar() {
        for language in Language::ALL {
            if let Err(error) = Query::new(&language.grammar(), &language.query()) {
                panic!("{language:?}: {error}");
            }
        }
    }
}
