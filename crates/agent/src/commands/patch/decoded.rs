//! Decodes patches that are not UTF-8, such as those that git creates from files in other
//! encodings. Such a patch has the encoding of the files that it changes.

use workspace::Workspace;

use crate::exit::{Failure, Result};

/// Decodes a patch. If the patch is not UTF-8, tries the encodings of the files named in it,
/// skipping files that are UTF-8, and uses the first encoding that can decode the patch.
///
/// # Errors
/// If none of these encodings can decode the patch.
pub(crate) fn text(bytes: Vec<u8>, workspace: &Workspace) -> Result<String> {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(e) => e.into_bytes(),
    };
    let patches = patch::parse(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
    let paths = patches.iter().flat_map(|p| p.from.iter().chain([&p.path]));
    let files = paths.filter_map(|path| workspace.read(&workspace.resolve(path).ok()?).ok());
    let decoded = files.filter(|file| !file.is_plain()).find_map(|file| file.decode(&bytes));
    decoded.ok_or_else(|| {
        let wrong = |line: &&[u8]| std::str::from_utf8(line).is_err();
        let line = bytes.split(|b| *b == b'\n').take_while(|line| !wrong(line)).count() + 1;
        Failure::misuse(format!("cannot decode the patch: line {line} is not UTF-8"))
    })
}
