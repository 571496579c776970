//! `--commit`: commits what a verified run changed, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use journal::{Ending, Report};
use secrets::Secrets;

use crate::exit::{Failure, Result};
use crate::settings::Settings;
use crate::worktree::{STATUS, git, git_with};

/// Maximum length of the first line of a message, in characters.
const SUBJECT: usize = 72;

/// A commit to make at the end of a run.
#[derive(Debug)]
pub(crate) struct Commit {
    root: PathBuf,
    title: String,
    /// The author as `NAME <MAIL>`, if the author is not the user.
    author: Option<String>,
    /// A line such as `Assisted-by: agent` for the end of the message.
    trailer: Option<String>,
    /// The files that had uncommitted changes before the run.
    dirty: BTreeSet<String>,
}

impl Commit {
    /// Prepares the commit for a run that has not started yet.
    ///
    /// # Errors
    /// If the tree is not a git repository, or there is no author.
    pub(crate) fn prepare(root: &Path, title: &str, settings: &Settings) -> Result<Self> {
        let failed = |why| Failure::misuse(format!("cannot use --commit here: {why}"));
        let status = git(root, &[&STATUS[..], &["--no-renames"]].concat());
        let dirty =
            status.map_err(failed)?.split('\0').filter_map(|line| line.get(3..)).map(str::to_owned).collect();
        let author = settings.commit_author.clone();
        if author.is_none() {
            git(root, &["var", "GIT_AUTHOR_IDENT"]).map_err(failed)?;
        }
        git(root, &["var", "GIT_COMMITTER_IDENT"]).map_err(failed)?;
        let (root, title, trailer) = (root.to_owned(), title.to_owned(), settings.commit_trailer.clone());
        Ok(Self { root, title, author, trailer, dirty })
    }

    /// Commits the changes if the run is verified. Returns a message for the user.
    pub(crate) fn make(&self, report: &Report, secrets: &Secrets) -> String {
        let files = &report.diff.files;
        if report.ending != Ending::Verified {
            return format!("not committed, because the run ended as {:?}", report.ending.label());
        }
        if files.is_empty() {
            return "not committed, because the result lists no changed files".to_owned();
        }
        if let Some(file) = files.iter().find(|file| self.dirty.contains(*file)) {
            return format!("not committed: {file} had uncommitted changes before the run");
        }
        let message = message(&self.title, &report.message, self.trailer.as_deref());
        let message = secrets.mask(&message);
        match self.commit(report, &message) {
            Ok(commit) => format!("committed as {commit}: {}", message.lines().next().unwrap_or_default()),
            Err(why) => format!("could not commit: {why}"),
        }
    }

    fn commit(&self, report: &Report, message: &str) -> std::result::Result<String, String> {
        // The list may be too long for a command line.
        let files = report.diff.files.join("\0");
        let git_of_files = |arguments: &[&str]| {
            let from_input = ["--pathspec-from-file=-", "--pathspec-file-nul"];
            git_with(
                &self.root,
                &[&["--literal-pathspecs"], arguments, &from_input].concat(),
                Some(files.as_bytes()),
            )
        };
        // New files must be in the index before `--only` can find them.
        git_of_files(&["add", "--all"])?;
        let author = self.author.as_ref().map(|author| format!("--author={author}"));
        let mut arguments = vec!["commit", "--quiet", "--no-verify", "--no-gpg-sign", "--cleanup=whitespace"];
        arguments.extend(author.as_deref());
        arguments.extend(["--message", message, "--only"]);
        if let Err(why) = git_of_files(&arguments) {
            let _ = git_of_files(&["reset", "--quiet"]);
            return Err(why);
        }
        git(&self.root, &["rev-parse", "--short", "HEAD"])
    }
}

/// Returns the first line of the message: the title, shortened at a word boundary if necessary.
fn subject(title: &str) -> String {
    let title = title.trim().trim_end_matches('.');
    if title.chars().count() <= SUBJECT {
        return title.to_owned();
    }
    let start: String = title.chars().take(SUBJECT - 1).collect();
    let end = start.rfind(' ').filter(|end| *end > SUBJECT / 2).unwrap_or(start.len());
    format!("{}…", start[..end].trim_end())
}

fn message(title: &str, summary: &str, trailer: Option<&str>) -> String {
    let subject = subject(title);
    let rest =
        [Some(title.trim()).filter(|title| title.chars().count() > SUBJECT), Some(summary.trim()), trailer];
    rest.into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .fold(subject, |all, part| format!("{all}\n\n{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_title_is_shortened_at_a_word_and_repeated_in_the_body() {
        let title = "Make the parser accept comments at the end of a line, even if the line is the last one.";
        let text = message(title, "done", Some("Assisted-by: agent"));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "Make the parser accept comments at the end of a line, even if the line…");
        assert_eq!(&lines[1..], ["", title, "", "done", "", "Assisted-by: agent"]);
        assert_eq!(message("Fix it.", "", None), "Fix it");
    }
}
