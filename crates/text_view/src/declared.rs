//! Finds the encoding that a file declares, if it does so in a way that is common for its type.

use crate::encoding::{Encoding, LATIN_1, LATIN_5, THAI};

/// The number of bytes to search for a declaration, as specified by the HTML standard.
const HEAD: usize = 1024;
/// The number of bytes to search in LaTeX files, where a title and comments can precede the package
/// declarations.
const PREAMBLE: usize = 8 << 10;

/// Encodings that files declare in practice but that are not supported here.
const UNSUPPORTED: &[&str] = &[
    "cp037",
    "cp437",
    "cp500",
    "cp720",
    "cp737",
    "cp775",
    "cp850",
    "cp852",
    "cp855",
    "cp856",
    "cp857",
    "cp858",
    "cp860",
    "cp861",
    "cp862",
    "cp863",
    "cp864",
    "cp865",
    "cp869",
    "cp1006",
    "mac-latin2",
    "mac-iceland",
    "mac-greek",
    "mac-turkish",
    "hz",
    "ptcp154",
    "johab",
    "utf-7",
    "utf-32",
    "viscii",
];

/// Names used by Python, Emacs and LaTeX that the WHATWG does not list, each paired with a name
/// that it does list.
const ALIASES: &[(&str, &str)] = &[
    ("cp932", "shift_jis"),
    ("cp936", "gbk"),
    ("cp949", "euc-kr"),
    ("uhc", "euc-kr"),
    ("cp950", "big5"),
    ("cp866", "ibm866"),
    ("cp874", "windows-874"),
    ("mac-roman", "macintosh"),
    ("mac-cyrillic", "x-mac-cyrillic"),
    ("ansinew", "windows-1252"),
    ("applemac", "macintosh"),
    ("latin9", "iso-8859-15"),
    ("latin-9", "iso-8859-15"),
    ("latin10", "iso-8859-16"),
    ("latin-10", "iso-8859-16"),
    ("latin-2", "iso-8859-2"),
    ("latin-3", "iso-8859-3"),
    ("latin-4", "iso-8859-4"),
    ("cyrillic-koi8", "koi8-r"),
    ("japanese-shift-jis", "shift_jis"),
    ("japanese-iso-8bit", "euc-jp"),
    ("chinese-gbk", "gbk"),
    ("chinese-big5", "big5"),
    ("eucjp", "euc-jp"),
    ("euckr", "euc-kr"),
    ("sjis", "shift_jis"),
];

/// Returns the encoding that a file declares. Returns `None` if it declares no encoding, an unknown
/// encoding, or UTF-8 or UTF-16.
pub(crate) fn declared(path: &str, bytes: &[u8]) -> Option<Encoding> {
    let text = |limit: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]).into_owned();
    let head = text(HEAD);
    let head = head.trim_start_matches('\u{feff}');
    let extension = path.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
    if let Some(xml) = head.trim_start().strip_prefix("<?xml") {
        let xml = xml.split("?>").next().unwrap_or_default();
        return named(quoted(xml.split_once("encoding")?.1.trim_start().strip_prefix('=')?)?, false);
    }
    if head.trim_start().starts_with('<') || matches!(extension.as_str(), "html" | "htm") {
        return html(head);
    }
    if let Some(css) = head.strip_prefix("@charset ") {
        return named(quoted(css)?, true);
    }
    match extension.as_str() {
        "tex" | "sty" | "cls" | "ltx" => return latex(&text(PREAMBLE)),
        "po" | "pot" => {
            let (_, after) = head.split_once("charset=")?;
            return named(word(after), false);
        }
        _ => {}
    }
    let mut lines = head.split(['\n', '\r']).take(2);
    lines.find_map(in_a_comment).and_then(|name| named(name, false))
}

/// Finds the name of the encoding in a comment, as in Python (`# -*- coding: latin-1 -*-`) and Ruby
/// (`# encoding: latin-1`), or in a mode line of Emacs or Vim.
fn in_a_comment(line: &str) -> Option<&str> {
    let editors = line.contains("-*-") || line.contains("vim:") || line.contains(" vi:");
    if !editors && !line.trim_start().starts_with('#') {
        return None;
    }
    let keys = ["coding:", "coding=", "fileencoding=", "fenc=", "coding :", "coding ="];
    keys.iter().find_map(|key| {
        let (_, after) = line.split_once(key)?;
        Some(word(after.trim_start_matches([' ', '\t']))).filter(|name| !name.is_empty())
    })
}

fn html(head: &str) -> Option<Encoding> {
    let lower = head.to_ascii_lowercase();
    let mut rest = 0;
    while let Some(at) = lower[rest..].find('<').map(|at| at + rest) {
        if lower[at..].starts_with("<!--") {
            rest = at + lower[at..].find("-->")?;
            continue;
        }
        let end = at + lower[at..].find('>')?;
        let tag = &lower[at..end];
        if tag.starts_with("<meta")
            && let Some((_, after)) = tag.split_once("charset")
        {
            let value = after.trim_start().strip_prefix('=')?.trim_start().trim_start_matches(['"', '\'']);
            return named(word(value), true);
        }
        rest = end;
    }
    None
}

fn latex(preamble: &str) -> Option<Encoding> {
    preamble.lines().find_map(|line| {
        let code = line.split('%').next().unwrap_or_default();
        let (before, _) = code.split_once("]{inputenc}")?;
        named(before.rsplit_once('[')?.1.rsplit(',').next()?.trim(), false)
    })
}

fn quoted(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    text[1..].split(quote).next()
}

fn word(text: &str) -> &str {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.:".contains(c))).next().unwrap_or_default()
}

/// Finds an encoding by its name. If `web` is set, interprets the name as browsers do, which treat
/// Latin-1 and ASCII as windows-1252.
fn named(name: &str, web: bool) -> Option<Encoding> {
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let lower = ["-unix", "-dos", "-mac"].iter().find_map(|end| lower.strip_suffix(end)).unwrap_or(&lower);
    let python = lower.strip_prefix("iso8859").map(|part| format!("iso-8859{part}"));
    let lower = python.as_deref().unwrap_or(lower);
    match lower {
        "ascii" | "us-ascii" if !web => return Some(Encoding::Ascii),
        "latin-1" | "latin1" | "iso-8859-1" | "l1" | "iso-latin-1" if !web => return Some(LATIN_1),
        "latin-5" | "latin5" | "iso-8859-9" | "l5" if !web => return Some(LATIN_5),
        "tis-620" | "iso-8859-11" if !web => return Some(THAI),
        "latin-1" | "iso-latin-1" => return Some(Encoding::Other(encoding_rs::WINDOWS_1252)),
        _ => {}
    }
    if let Some(known) = UNSUPPORTED.iter().find(|known| **known == lower) {
        return Some(Encoding::Named(known));
    }
    let label = ALIASES.iter().find(|(alias, _)| *alias == lower).map_or(lower, |(_, label)| label);
    let shift = label.replace("shift-jis", "shift_jis");
    let encoding = encoding_rs::Encoding::for_label_no_replacement(shift.as_bytes())?;
    let wide =
        [encoding_rs::UTF_8, encoding_rs::UTF_16LE, encoding_rs::UTF_16BE, encoding_rs::X_USER_DEFINED];
    (!wide.contains(&encoding)).then_some(Encoding::Other(encoding))
}
