//! Detects from a command's output that the command failed because it cannot write below the home
//! directory.

use std::path::{Path, PathBuf};

use crate::Policy;

/// What programs print when access is denied, in lowercase.
const REFUSED: &[&str] = &[
    "permission denied",
    "permissionerror",
    "permissiondenied",
    "eacces",
    "erofs",
    "read-only file system",
    "accessdenied",
];
/// What programs print when a directory is missing, in lowercase. Parts of the home directory that
/// the sandbox hides appear to be missing.
const MISSING: &[&str] =
    &["no such file or directory", "directory nonexistent", "enoent", "filenotfounderror", "nosuchfile"];

/// If the output mentions a denied or hidden path below the home directory, returns a sentence that
/// says what to do.
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
        let (_, after) = line.split_once(shown)?;
        let end = |c: char| c.is_whitespace() || "'\"`:,;()[]{}<>’”".contains(c);
        let below = after.strip_prefix('/')?.split(end).next().filter(|below| !below.is_empty())?;
        let path = home.join(below.trim_end_matches('.'));
        let hidden = || !path.exists() && path.parent().is_some_and(Path::is_dir);
        let ours = writable.iter().any(|tree| path.starts_with(tree));
        (!ours && (denied || hidden())).then(|| {
            format!(
                "commands cannot write below the home directory ({}); set HOME for the command to a directory in $TMPDIR, \
                 or have the user run agent with --allow-write DIR",
                path.display()
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_write_below_the_home_directory_is_detected() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".cache")).unwrap();
        let at = home.path().to_str().unwrap();
        let policy =
            Policy { env: vec![("HOME".into(), at.into())], ..Policy::new(home.path().join("work")) };
        for (line, expected) in [
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
            let message = refused(&policy, &format!("first\n{line}\nlast"));
            assert_eq!(message.is_some(), expected, "{line}");
            assert!(message.is_none_or(|message| message.contains("--allow-write")));
        }
    }
}
