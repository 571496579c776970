//! Matches paths against the patterns for protected files. Performs no I/O.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// The paths protected by a list of patterns.
#[derive(Debug)]
pub(crate) struct ProtectedPaths {
    /// One set per pattern.
    files: Vec<GlobSet>,
    /// Folders that may contain protected files.
    folders: GlobSet,
    /// The folders in the patterns, down to the first `**`. They are also in `folders`.
    parents: GlobSet,
}

impl ProtectedPaths {
    /// Parses patterns for paths relative to the root. `*` does not match `/`, but `**` does. If
    /// the last component of a pattern has no wildcard, the pattern also matches everything in a
    /// folder with that name.
    ///
    /// # Errors
    /// If a pattern is invalid, or cannot match a path in the tree. The message says why.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, String> {
        let (mut folders, mut parents) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let mut files = Vec::new();
        for pattern in patterns {
            let outside = pattern.starts_with(['/', '~']) || pattern.split('/').any(|part| part == "..");
            if outside || pattern.starts_with("./") || pattern.ends_with('/') {
                return Err(format!(
                    "{pattern:?} matches no file; write the path from the root of the repository, as in \"tests/**\""
                ));
            }
            let parse = |pattern: &str| GlobBuilder::new(pattern).literal_separator(true).build();
            let invalid = |e: globset::Error| format!("{pattern:?} is not a valid pattern: {}", e.kind());
            let mut set = GlobSetBuilder::new();
            set.add(parse(pattern).map_err(invalid)?);
            let name = pattern.rsplit('/').next().unwrap_or(pattern);
            let names_a_folder = !name.contains(['*', '?', '[', '{']);
            if names_a_folder {
                set.add(parse(&format!("{pattern}/**")).map_err(invalid)?);
            }
            files.push(set.build().map_err(invalid)?);
            // A `/` in braces, as in `{a/b,c}`, does not separate path components.
            let Some((before, deep)) = (!pattern.contains('{')).then(|| spelled_out(pattern)) else {
                folders.add(parse("**").map_err(invalid)?);
                continue;
            };
            for parent in before.iter().chain(names_a_folder.then_some(pattern)) {
                folders.add(parse(parent).map_err(invalid)?);
                parents.add(parse(parent).map_err(invalid)?);
            }
            let top = if deep { before.last().map(String::as_str) } else { Some(pattern.as_str()) };
            if deep || names_a_folder {
                let below = top.map_or_else(|| "**".to_owned(), |top| format!("{top}/**"));
                folders.add(parse(&below).map_err(invalid)?);
            }
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|e| e.to_string());
        Ok(Self { files, folders: build(folders)?, parents: build(parents)? })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn protects(&self, file: &Path) -> bool {
        self.files.iter().any(|set| set.is_match(file))
    }

    /// Whether a folder may contain protected files.
    pub(crate) fn may_contain(&self, folder: &Path) -> bool {
        self.folders.is_match(folder)
    }

    /// Whether a link at this path could replace a folder of protected files with another folder.
    pub(crate) fn is_parent(&self, link: &Path) -> bool {
        self.parents.is_match(link)
    }

    /// Returns the indices of the patterns that match none of these files.
    pub(crate) fn unmatched<'a>(&self, files: impl Iterator<Item = &'a Path> + Clone) -> Vec<usize> {
        let unmatched = |set: &GlobSet| !files.clone().any(|file| set.is_match(file));
        self.files.iter().enumerate().filter(|(_, set)| unmatched(set)).map(|(at, _)| at).collect()
    }
}

/// Returns the folders in a pattern, down to the first `**`, outermost first, and whether the
/// pattern contains a `**`.
fn spelled_out(pattern: &str) -> (Vec<String>, bool) {
    let parts: Vec<&str> = pattern.split('/').collect();
    let deep = parts.iter().position(|part| *part == "**");
    let folders = deep.unwrap_or(parts.len() - 1);
    ((1..=folders).map(|n| parts[..n].join("/")).collect(), deep.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pattern: &str) -> ProtectedPaths {
        ProtectedPaths::new(&[pattern.to_owned()]).unwrap()
    }

    #[test]
    fn the_name_of_a_folder_protects_everything_in_it() {
        for pattern in ["tests", "**/tests", "*/tests", "a/tests"] {
            assert!(of(pattern).protects(Path::new("a/tests/deep/x")) || pattern == "tests", "{pattern}");
        }
        assert!(of("tests").protects(Path::new("tests/deep/x")) && of("tests").protects(Path::new("tests")));
        assert!(!of("tests").protects(Path::new("a/tests/x")), "a pattern starts at the root");
        assert!(!of("*.lock").protects(Path::new("a.lock/x")), "a name with a wildcard matches only files");
        assert!(!of("tests/*").protects(Path::new("tests/deep/x")));
    }

    #[test]
    fn every_folder_above_a_protected_file_may_contain_protected_files() {
        let cases = [
            ("tests/**", "tests/a/b/c"),
            ("tests", "tests/a/b"),
            ("**/conftest.py", "a/b/conftest.py"),
            ("a/*/test_*", "a/b/test_c"),
            ("a/**/b/*.c", "a/x/y/b/z.c"),
            ("{a/b,c}/d", "a/b/d"),
            ("[ab]/c", "b/c"),
            ("a", "a"),
        ];
        for (pattern, path) in cases {
            let (paths, path) = (of(pattern), Path::new(path));
            assert!(paths.protects(path), "{pattern}");
            for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
                assert!(paths.may_contain(folder), "{pattern}: {}", folder.display());
            }
            assert!(
                !paths.may_contain(Path::new("other/x"))
                    || pattern.contains("{")
                    || pattern.starts_with("**")
            );
        }
        assert!(of("tests/**").is_parent(Path::new("tests")) && !of("**/x").is_parent(Path::new("a")));
    }

    #[test]
    fn patterns_that_match_nothing_are_invalid() {
        for pattern in ["tests/", "/tests/**", "./x", "../x", "~/x", "a/../b", "[", "a{b"] {
            assert!(ProtectedPaths::new(&[pattern.to_owned()]).is_err(), "{pattern}");
        }
    }
}
