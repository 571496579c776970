//! The URIs and languages of documents.

use std::path::Path;
use std::str::FromStr;

use lsp_types::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The path characters that are percent-encoded in a URI.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the URI of a file.
///
/// # Errors
/// If its path is not UTF-8.
pub(crate) fn uri_of(path: &Path) -> Result<Uri, String> {
    let text = path.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
    let uri = format!("file://{}", utf8_percent_encode(text, ENCODED));
    Uri::from_str(&uri).map_err(|e| format!("{}: {e}", path.display()))
}

/// Returns the path in a file's URI. Servers encode URIs in different ways, so only paths are
/// compared.
pub(crate) fn path_of(uri: &Uri) -> String {
    let path = uri.as_str().strip_prefix("file://").unwrap_or(uri.as_str());
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// Returns the name that servers use for a file's language.
///
/// Source: Language Server Protocol 3.17, "Text Documents", table of language identifiers.
pub(crate) fn language(path: &str) -> &str {
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension {
        "rs" => "rust",
        "py" | "pyi" => "python",
        "ts" | "mts" | "cts" => "typescript",
        "tsx" => "typescriptreact",
        "js" | "mjs" | "cjs" => "javascript",
        "jsx" => "javascriptreact",
        "c" | "h" => "c",
        "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" => "cpp",
        "cs" => "csharp",
        "rb" => "ruby",
        "kt" | "kts" => "kotlin",
        "sh" => "shellscript",
        "ex" | "exs" => "elixir",
        "hs" => "haskell",
        other => other, // go, java, php, swift, scala, lua, zig, …
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_back_to_its_path() {
        let path = "/a b/ü%20#?.py";
        assert_eq!(path_of(&uri_of(Path::new(path)).unwrap()), path);
        let other = Uri::from_str("file:///a/b%2Dc%3A.py").unwrap();
        assert_eq!(path_of(&other), "/a/b-c:.py");
    }
}
