//! Lists the files in a tree, except ignored ones and those in most hidden folders.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _, path::Path};

use ignore::{DirEntry, WalkBuilder};

use crate::{CleanPath, Workspace, rules::Rules};

/// Hidden folders to list, because they contain a project's own files. Other hidden folders contain
/// caches and tool state.
const SHOWN: &[&str] =
    &[".github", ".gitlab", ".circleci", ".cargo", ".config", ".devcontainer", ".storybook"];

/// Which files to list.
#[derive(Debug, Clone)]
pub struct WalkFilter {
    /// Where to start. `None` means the root.
    pub under: Option<CleanPath>,
    /// The maximum number of entries.
    pub limit: usize,
    /// Whether to list folders too.
    pub folders: bool,
    /// How deep to go below `under`. A depth of 1 lists only its direct children.
    pub depth: Option<usize>,
}

impl Default for WalkFilter {
    fn default() -> Self {
        Self { under: None, limit: 20_000, folders: false, depth: None }
    }
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: CleanPath,
    /// Its size in bytes, or 0 for folders and links.
    pub size: u64,
    /// Whether it is a folder.
    pub folder: bool,
    /// When its content was last modified, in nanoseconds since 1970, or 0 for folders and links.
    pub modified_ns: i64,
    /// Its inode, or 0 for folders and links.
    pub inode: u64,
}

/// The result of a walk, sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether entries are missing because the limit was reached.
    pub cut: bool,
}

impl Workspace {
    /// Lists files. Respects `.gitignore`, even outside git repositories. Skips `.git`, most hidden
    /// folders, the run's own files and unreadable folders. Does not follow symbolic links. If
    /// `filter.under` is an ignored folder, its files are listed anyway.
    #[must_use]
    pub fn walk(&self, filter: &WalkFilter) -> Listing {
        match &filter.under {
            Some(under) if under.as_str() != "." => {
                let deep = under.as_str().split('/').count();
                let depth = filter.depth.map(|d| d + deep);
                let (only, below) = (self.0.root.join(under), under.clone());
                let on_the_way = move |e: &DirEntry| {
                    (e.path().starts_with(&only) || only.starts_with(e.path())) && shown(e)
                };
                let found = self.collect(&self.walker(&self.0.root, depth, true, on_the_way), filter, &below);
                if !found.entries.is_empty() {
                    return found;
                }
                // The folder is ignored, so use only the rules in it.
                let start = self.0.root.join(under);
                self.collect(
                    &walker(&start, filter.depth, Rules::new(&start, true, self.0.original.is_none()), shown),
                    filter,
                    &below,
                )
            }
            _ => {
                let root = CleanPath::new(String::new());
                self.collect(&self.walker(&self.0.root, filter.depth, true, shown), filter, &root)
            }
        }
    }

    fn collect(&self, walk: &WalkBuilder, filter: &WalkFilter, under: &CleanPath) -> Listing {
        let mut out = Listing::default();
        for entry in walk.build() {
            let Ok(entry) = entry else { continue };
            let Some(kind) = entry.file_type() else { continue };
            let Ok(path) = entry.path().strip_prefix(&self.0.root) else { continue };
            let path = CleanPath::of(path);
            let leads_to_start = kind.is_dir()
                && (path == *under || under.as_ref().starts_with(&path) || path.as_str() == ".");
            if leads_to_start
                || kind.is_dir() && !filter.folders
                || !(kind.is_dir() || kind.is_file() || kind.is_symlink())
            {
                continue;
            }
            let found = if kind.is_file() { entry.metadata().ok() } else { None };
            if self.is_own(&path, found.as_ref().map(|m| (m.dev(), m.ino()))) {
                continue;
            }
            if out.entries.len() == filter.limit {
                out.cut = true;
                break;
            }
            let modified =
                |m: &Metadata| m.mtime().saturating_mul(1_000_000_000).saturating_add(m.mtime_nsec());
            let (size, modified_ns, inode) = found.map_or((0, 0, 0), |m| (m.len(), modified(&m), m.ino()));
            out.entries.push(Entry { path, size, folder: kind.is_dir(), modified_ns, inode });
        }
        out
    }

    /// Whether the root is a folder below the top of a repository.
    pub(crate) fn is_inside_a_repository(&self) -> bool {
        !has_git(&self.0.root) && self.0.root.ancestors().skip(1).any(has_git)
    }

    /// Returns a walk over all files that are `shown` and not ignored.
    pub(crate) fn walker(
        &self,
        start: &Path,
        depth: Option<usize>,
        dot_ignore: bool,
        shown: impl Fn(&DirEntry) -> bool + Send + Sync + 'static,
    ) -> WalkBuilder {
        let (own, top_folder) = (self.own().clone(), self.0.root.clone());
        let shown = move |e: &DirEntry| {
            let path = e.path().strip_prefix(&top_folder);
            shown(e) && (own.is_empty() || !path.is_ok_and(|path| own.has(&top_folder, path)))
        };
        walker(start, depth, self.rules(dot_ignore), shown)
    }

    /// Returns the ignore rules. Rules in folders above the root apply only if the root is below
    /// the top of a repository. Otherwise, such rules are not intended for this tree, and would
    /// make a copy in an ignored build folder appear empty.
    pub(crate) fn rules(&self, dot_ignore: bool) -> Rules {
        let (root, is_replica) = (&self.0.root, self.0.original.is_some());
        let inside = !is_replica && self.is_inside_a_repository();
        let top = root.ancestors().find(|folder| has_git(folder)).filter(|_| inside);
        Rules::new(top.unwrap_or(root), dot_ignore, !is_replica)
    }
}

fn has_git(folder: &Path) -> bool {
    folder.join(".git").exists()
}

fn walker(
    start: &Path,
    depth: Option<usize>,
    rules: Rules,
    shown: impl Fn(&DirEntry) -> bool + Send + Sync + 'static,
) -> WalkBuilder {
    let mut walk = WalkBuilder::new(start);
    walk.standard_filters(false).max_depth(depth).sort_by_file_name(std::ffi::OsStr::cmp).filter_entry(
        move |e| {
            let folder = e.file_type().is_some_and(|kind| kind.is_dir());
            e.depth() == 0 || shown(e) && !rules.ignore(e.path(), folder)
        },
    );
    walk
}

fn shown(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_str().unwrap_or_default();
    let hidden_folder =
        entry.depth() > 0 && name.starts_with('.') && entry.file_type().is_some_and(|k| k.is_dir());
    name != ".git" && (!hidden_folder || SHOWN.contains(&name))
}
