//! Clones repositories that tasks specify as a URL or a bundle file. The batch folder contains one
//! bare clone per repository, and worktrees share its objects.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::short_digest;
use crate::git;

/// Whether a repository must be cloned because it is a URL or a bundle file rather than a folder.
pub(crate) fn is_remote(repo: &Path) -> bool {
    is_url(&repo.to_string_lossy()) || repo.is_file()
}

/// Whether a string looks like a URL or like git's `user@host:path`.
pub(crate) fn is_url(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
    };
    match (text.split_once("://"), text.split_once('@')) {
        (Some((scheme, rest)), _) => word(scheme) && !rest.is_empty(),
        (None, Some((user, rest))) => word(user) && rest.split_once(':').is_some_and(|(host, _)| word(host)),
        (None, None) => false,
    }
}

/// Formats a repository for messages. Strips the username and password from a URL.
pub(crate) fn shown(repo: &str) -> String {
    let Some((scheme, rest)) = repo.split_once("://").filter(|_| is_url(repo)) else {
        return repo.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or(authority))
}

/// Returns the folder for a repository's clone.
pub(crate) fn folder(repo: &Path, out: &Path) -> PathBuf {
    let name = short_digest(&[repo.as_os_str().as_encoded_bytes()]);
    out.join("repositories").join(name)
}

/// Clones a repository into a folder, unless an earlier call already did. A process that is killed
/// while cloning leaves behind only a folder with a different name, which the next call removes.
/// The error is a human-readable sentence.
pub(crate) async fn ensure(repo: &Path, folder: &Path) -> Result<(), String> {
    if folder.is_dir() {
        return Ok(());
    }
    let named = repo.to_string_lossy();
    let failed = |e: io::Error| {
        format!("cannot clone {}: {}", shown(&named), e.to_string().replace(&*named, &shown(&named)))
    };
    let partial = folder.with_extension("partial");
    match fs::remove_dir_all(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(failed)?;
    git::clone(repo.as_os_str(), &partial, parent).await.map_err(failed)?;
    fs::rename(&partial, folder).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_distinguished_from_paths() {
        for url in
            ["https://example.org/a.git", "file:///srv/a", "ssh://git@host/a", "git@example.org:a/b.git"]
        {
            assert!(is_url(url), "{url}");
        }
        for path in ["../shop", "/srv/git@home:x/a", "a b://c", "mail@host", "repo", "://x"] {
            assert!(!is_url(path), "{path}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_not_shown() {
        for (url, expected) in [
            ("https://user:secret@example.org/a.git", "https://example.org/a.git"),
            ("https://secret@example.org", "https://example.org"),
            ("http://a:b@c@d/e@f", "http://d/e@f"),
            ("git@example.org:a/b.git", "git@example.org:a/b.git"),
            ("../a@b/c", "../a@b/c"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }
}
