//! Whether a command failed because it may not write below the home directory, told from what it
//! printed.

use std::path::{Path, PathBuf};

use crate::Policy;

/// What programs print where they were refused.
const REFUSED: &[&str] = &[
    "permission denied",
    "permissionerror",
    "permissiondenied",
    "eacces",
    "erofs",
    "read-only file system",
    "accessdenied",
];
/// What they print where the folder is not there: what of the home directory is out of sight seems
/// not to be.
const MISSING: &[&str] =
    &["no such file or directory", "directory nonexistent", "enoent", "filenotfounderror", "nosuchfile"];

/// A sentence for the model and the person, if a path below the home directory stands beside a
/// refusal.
pub(crate) fn refused(policy: &Policy, output: &str) -> Option<String> {
    let home = PathBuf::from(policy.variable("HOME").filter(|home| !home.is_empty())?);
    let shown = home.to_str().filter(|home| home.len() > 1)?;
    let writable: Vec<&PathBuf> = std::iter::once(&policy.root).chain(&policy.extra_write).collect();
    output.lines().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
        let (denied, missing) = (says(REFUSED), says(MISSING));
        if !denied && !missing {
            return None;
        }
        let (_, behind) = line.split_once(shown)?;
        let end = |c: char| c.is_whitespace() || "'\"`:,;()[]{}<>’”".contains(c);
        let below = behind.strip_prefix('/')?.split(end).next().filter(|below| !below.is_empty())?;
        let path = home.join(below.trim_end_matches('.'));
        let hidden = || !path.exists() && path.parent().is_some_and(Path::is_dir);
        let ours = writable.iter().any(|tree| path.starts_with(tree));
        (!ours && (denied || hidden())).then(|| {
            format!(
                "commands cannot write below the home directory, as {} would be; set HOME for the command to a folder in $TMPDIR, \
                 or let agent be run with --allow-write DIR",
                path.display()
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_below_the_home_directory_is_told_from_others() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".cache")).unwrap();
        let at = home.path().to_str().unwrap();
        let policy =
            Policy { env: vec![("HOME".into(), at.into())], ..Policy::new(home.path().join("work")) };
        for (line, told) in [
            ("mkdir: cannot create directory 'HOME/.config': Permission denied", true),
            ("sh: 1: cannot create HOME/x.txt: Permission denied", true),
            ("PermissionError: [Errno 13] Permission denied: 'HOME/.myapp'", true),
            ("Error: EACCES: permission denied, mkdir 'HOME/.app'", true),
            ("OSError: [Errno 30] Read-only file system: 'HOME/.app/x'", true),
            ("mkdir HOME/.config/x: permission denied", true),
            ("java.nio.file.AccessDeniedException: HOME/.x", true),
            ("mkdir: cannot create directory 'HOME/.cache/z': No such file or directory", true),
            ("cat: HOME/.none/z: No such file or directory", false),
            ("mkdir: cannot create directory 'HOME/work/a': Permission denied", false),
            ("mkdir: cannot create directory '/etc/a': Permission denied", false),
            ("HOME/.config is fine", false),
        ] {
            let line = line.replace("HOME", at);
            let said = refused(&policy, &format!("first\n{line}\nlast"));
            assert_eq!(said.is_some(), told, "{line}");
            assert!(said.is_none_or(|said| said.contains("--allow-write")));
        }
    }
}
