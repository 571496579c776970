//! The part of the file system that a command sees: the policy, resolved to lists of existing
//! canonical paths. Anything that is not listed is unreadable.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Network, Policy, caches};

/// Lists of existing absolute paths. They are `OsString`s because serde can write those as JSON
/// even if they are not UTF-8.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct View {
    /// The work tree.
    pub(crate) root: OsString,
    /// The private temporary directory.
    pub(crate) tmp: OsString,
    /// Paths that can be read and executed.
    pub(crate) read: Vec<OsString>,
    /// The home directory; empty if there is none.
    pub(crate) home: OsString,
    /// Caches that get an overlay, and the directory for those overlays.
    pub(crate) caches: Vec<OsString>,
    pub(crate) layers: OsString,
    /// Paths with full access.
    pub(crate) write: Vec<OsString>,
    /// Files in `/etc` that permissions do not protect, because the agent runs as root.
    pub(crate) secrets: Vec<OsString>,
    /// Read-only paths inside writable directories.
    pub(crate) protect: Vec<OsString>,
    /// Directories to replace with empty ones. Paths in them that are listed in the fields above
    /// stay visible.
    pub(crate) hide: Vec<OsString>,
    /// Paths that lead to readable paths through symbolic links, each with its target. Only the
    /// paths in hidden directories are used.
    pub(crate) links: Vec<(OsString, OsString)>,
}

/// The system's own directories.
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix",
    "/gnu",
    "/snap",
    "/home/linuxbrew",
    "/var/lib/dpkg",
    "/var/lib/gems",
    "/var/lib/ghc",
    "/var/lib/texmf",
    "/var/cache/fontconfig",
    "/run/current-system",
    "/proc",
    "/sys",
];

/// Files in `/etc` that only root may read. They are excluded when the agent runs as root.
const ETC_SECRETS: &[&str] = &[
    "shadow",
    "shadow-",
    "gshadow",
    "gshadow-",
    "sudoers",
    "sudoers.d",
    "security",
    "ssh",
    "krb5.keytab",
    "NetworkManager",
    "wireguard",
    "openvpn",
    "ipsec.secrets",
    "kubernetes",
    "docker",
    "letsencrypt",
    "wpa_supplicant",
    "ppp",
];

/// Paths in a home directory that contain toolchains, their caches and their settings, but no keys.
const HOME: &[&str] = &[
    ".cargo/bin",
    ".cargo/registry",
    ".cargo/git",
    ".cargo/env",
    ".cargo/config",
    ".cargo/config.toml",
    ".rustup",
    ".npm/_cacache",
    ".npm/_npx",
    ".nvm",
    ".volta",
    ".fnm",
    ".bun",
    ".deno",
    ".pnpm-store",
    ".yarn",
    ".node-gyp",
    ".cache/node",
    ".cache/pip",
    ".cache/uv",
    ".cache/pnpm",
    ".cache/yarn",
    ".cache/node-gyp",
    ".cache/go-build",
    ".cache/ms-playwright",
    ".cache/pypoetry",
    ".cache/pre-commit",
    ".cache/bazel",
    ".cache/bazelisk",
    ".cache/coursier",
    ".pyenv",
    ".rbenv",
    ".rvm",
    ".asdf",
    ".sdkman",
    ".jenv",
    ".ghcup",
    ".cabal",
    ".stack",
    ".opam",
    ".elan",
    ".juliaup",
    ".julia",
    ".mix",
    ".hex",
    ".pub-cache",
    ".gem/ruby",
    ".bundle/cache",
    ".m2/repository",
    ".m2/wrapper",
    ".gradle/caches",
    ".gradle/wrapper",
    ".gradle/jdks",
    ".gradle/native",
    ".nuget/packages",
    ".dotnet",
    ".konan",
    ".conda/envs",
    ".conda/pkgs",
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "go/bin",
    "go/pkg",
    "sdk",
    ".local/bin",
    ".local/lib",
    ".local/share/uv",
    ".local/share/pipx",
    ".local/share/pnpm",
    ".local/share/mise",
    ".local/share/virtualenvs",
    ".local/share/fnm",
    ".local/share/gem",
    ".local/share/rtx",
    ".gitconfig",
    ".config/git/config",
    ".config/git/ignore",
    ".config/pip",
    ".condarc",
];

/// Variables that point to a toolchain's directory.
const TOOLCHAIN_VARIABLES: &[&str] = &[
    "RUSTUP_HOME",
    "GOROOT",
    "GOMODCACHE",
    "JAVA_HOME",
    "M2_HOME",
    "MAVEN_HOME",
    "GRADLE_HOME",
    "DOTNET_ROOT",
    "NUGET_PACKAGES",
    "NVM_DIR",
    "VOLTA_HOME",
    "PNPM_HOME",
    "PYENV_ROOT",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "RBENV_ROOT",
    "GEM_HOME",
    "ASDF_DIR",
    "ASDF_DATA_DIR",
    "SDKMAN_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NIX_SSL_CERT_FILE",
];

/// Directories that contain other programs' sockets and files.
const SHARED: &[&str] = &["/run", "/tmp", "/var/tmp", "/dev/shm"];

/// The maximum number of entries in a `PATH` directory to check for links that lead elsewhere.
const PATH_ENTRIES: usize = 1_000;

impl View {
    /// Resolves a policy. `tmp` is the private temporary directory, and `layers` is the directory
    /// for the overlays of caches. `root_user` is true if the agent runs as root, in which case
    /// file permissions do not protect anything from it.
    ///
    /// # Errors
    /// Fails if the work tree or a requested path does not exist.
    pub(crate) fn resolve(policy: &Policy, tmp: &Path, layers: &Path, root_user: bool) -> io::Result<Self> {
        let canonical = |path: &Path| {
            fs::canonicalize(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
        };
        let root = canonical(&policy.root)?;
        let tmp = canonical(tmp)?;
        let home = policy.variable("HOME").map(Path::new).and_then(|h| fs::canonicalize(h).ok());
        let mut paths = Readable { home: home.clone(), read: BTreeSet::new(), links: Vec::new() };

        SYSTEM.iter().for_each(|p| paths.add(Path::new(p)));
        paths.add(Path::new("/etc"));
        let secrets =
            ETC_SECRETS.iter().map(|name| Path::new("/etc").join(name)).filter(|p| root_user && p.exists());
        if policy.network == Network::Full {
            paths.add(Path::new("/run/systemd/resolve"));
        }
        if let Some(home) = &home {
            HOME.iter().for_each(|p| paths.add(&home.join(p)));
        }
        for name in TOOLCHAIN_VARIABLES {
            policy.variable(name).into_iter().for_each(|value| paths.add(Path::new(value)));
        }
        if let Some(cargo) = policy.variable("CARGO_HOME").map(Path::new) {
            ["bin", "registry", "git", "config.toml"].iter().for_each(|p| paths.add(&cargo.join(p)));
        }
        if let Some(go) = policy.variable("GOPATH").map(Path::new) {
            ["bin", "pkg"].iter().for_each(|p| paths.add(&go.join(p)));
        }
        if let Some(path) = policy.variable("PATH") {
            std::env::split_paths(path).for_each(|dir| paths.add_program_directory(&dir));
        }
        for path in &policy.extra_read {
            paths.read.insert(canonical(path)?);
        }
        let mut caches = caches::existing(policy);
        let protect = git_directories(&root, &mut paths);

        let mut write: BTreeSet<PathBuf> = BTreeSet::new();
        if policy.read_only {
            paths.read.insert(root.clone());
        } else {
            write.insert(root.clone());
        }
        for path in &policy.extra_write {
            write.insert(canonical(path)?);
        }

        caches.retain(|cache| !write.iter().any(|shown| cache.starts_with(shown)));
        paths.read.extend(caches.iter().cloned());

        let mut hide: BTreeSet<PathBuf> = SHARED.iter().map(PathBuf::from).collect();
        hide.extend(top_level_directories()?.filter(|dir| !paths.read.contains(dir)));
        hide.extend(home.clone().map(|h| if h.starts_with("/home") { PathBuf::from("/home") } else { h }));
        hide.retain(|dir| dir.is_dir() && !dir.is_symlink() && dir.parent().is_some());
        // Do not hide writable paths, paths in `extra_read`, or directories inside them.
        hide.retain(|dir| !write.iter().chain(&policy.extra_read).any(|shown| dir.starts_with(shown)));

        let strings = |paths: BTreeSet<PathBuf>| outermost(paths).into_iter().map(Into::into).collect();
        Ok(Self {
            root: root.into(),
            tmp: tmp.into(),
            read: strings(paths.read),
            home: home.clone().unwrap_or_default().into(),
            caches: strings(caches),
            layers: canonical(layers)?.into(),
            write: strings(write),
            secrets: secrets.map(Into::into).collect(),
            protect: protect.into_iter().map(Into::into).collect(),
            hide: strings(hide),
            links: paths.links.into_iter().map(|(at, to)| (at.into(), to.into())).collect(),
        })
    }
}

/// Returns the directories in `/` except `/dev`, `/proc` and `/sys`. Each of them may contain other
/// programs' sockets.
fn top_level_directories() -> io::Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir("/")?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|dir| !["/dev", "/proc", "/sys"].iter().any(|kept| dir == Path::new(kept))))
}

/// Collects the readable paths.
struct Readable {
    home: Option<PathBuf>,
    read: BTreeSet<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
}

impl Readable {
    /// Adds a path if it exists. Never adds a home directory or a directory that contains one.
    fn add(&mut self, path: &Path) {
        if !path.is_absolute() {
            return;
        }
        let Ok(canonical) = fs::canonicalize(path) else { return };
        if canonical.parent().is_none() || self.home.as_ref().is_some_and(|home| home.starts_with(&canonical))
        {
            return;
        }
        if canonical != path {
            self.links.push((path.to_owned(), canonical.clone()));
        }
        self.read.insert(canonical);
    }

    /// Adds a directory from `PATH` along with the libraries next to it. If the directory is below
    /// the home directory, also adds the targets of its links.
    fn add_program_directory(&mut self, dir: &Path) {
        self.add(dir);
        if let (Some("bin" | "sbin"), Some(parent)) = (dir.file_name().and_then(|n| n.to_str()), dir.parent())
        {
            ["lib", "lib64", "libexec"].iter().for_each(|p| self.add(&parent.join(p)));
        }
        if self.home.as_ref().is_some_and(|home| dir.starts_with(home)) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten().take(PATH_ENTRIES) {
                if entry.file_type().is_ok_and(|t| t.is_symlink())
                    && let Ok(target) = fs::canonicalize(entry.path())
                {
                    self.add(&target);
                }
            }
        }
    }
}

/// Adds the repository's git data to the readable paths. Returns the git paths to keep read-only.
fn git_directories(root: &Path, paths: &mut Readable) -> Vec<PathBuf> {
    let git = root.join(".git");
    // If `.git` is a link, it may point anywhere, so check that its target is a repository.
    if git.is_symlink()
        && git.join("HEAD").is_file()
        && git.join("objects").is_dir()
        && git.join("refs").is_dir()
    {
        paths.add(&git);
    }
    if let Some(common) = common_directory(root, &git) {
        paths.add(&common);
    }
    if git.exists() && !git.is_symlink() { vec![git] } else { Vec::new() }
}

/// Returns the repository of a linked worktree, whose `.git` is a file. The repository must point
/// back to the worktree, because an untrusted `.git` file could refer to any directory.
fn common_directory(root: &Path, git: &Path) -> Option<PathBuf> {
    // Only read regular files, because a pipe or a device could block.
    git.is_file().then_some(())?;
    let text = fs::read_to_string(git).ok()?;
    let dir = fs::canonicalize(root.join(text.strip_prefix("gitdir:")?.trim())).ok()?;
    let back = fs::canonicalize(fs::read_to_string(dir.join("gitdir")).ok()?.trim()).ok()?;
    let common = dir.parent()?.parent()?;
    (back == git && dir.parent()?.ends_with("worktrees")).then(|| common.to_owned())
}

/// Drops paths that are below another path in the set.
fn outermost(paths: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        // The set is sorted by component, so an ancestor comes first.
        if !kept.last().is_some_and(|last| path.starts_with(last)) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(policy: &Policy) -> View {
        View::resolve(policy, Path::new("/tmp"), Path::new("/tmp"), false).unwrap()
    }

    fn home_with(files: &[&str]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for file in files {
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        home
    }

    fn policy(home: &Path, root: &Path, path: &str) -> Policy {
        let env = vec![("HOME".into(), home.into()), ("PATH".into(), path.into())];
        Policy { env, ..Policy::new(root) }
    }

    fn readable(view: &View, path: &Path) -> bool {
        view.read.iter().any(|p| path.starts_with(p))
    }

    #[test]
    fn toolchains_in_the_home_directory_are_readable_and_keys_are_not() {
        let home = home_with(&[
            ".ssh/id",
            ".cargo/credentials.toml",
            ".cargo/bin/cargo",
            ".m2/settings.xml",
            "work/a.rs",
        ]);
        let view = view(&policy(home.path(), &home.path().join("work"), "/usr/bin"));
        assert!(readable(&view, &home.path().join(".cargo/bin/cargo")));
        for secret in [".ssh/id", ".cargo/credentials.toml", ".m2/settings.xml"] {
            assert!(!readable(&view, &home.path().join(secret)), "{secret}");
        }
    }

    #[test]
    fn a_home_directory_in_the_path_variable_does_not_become_readable() {
        let home = home_with(&[".ssh/id", "work/a"]);
        let path = home.path().display().to_string();
        let view = view(&policy(home.path(), &home.path().join("work"), &format!("{path}:/:/tmp")));
        assert!(!readable(&view, &home.path().join(".ssh/id")));
    }

    #[test]
    fn the_target_of_a_link_in_a_path_directory_is_readable() {
        let home = home_with(&["src/tool/run", "work/a", "tools/bin/other"]);
        std::os::unix::fs::symlink(home.path().join("src/tool/run"), home.path().join("tools/bin/run"))
            .unwrap();
        let path = home.path().join("tools/bin");
        let view = view(&policy(home.path(), &home.path().join("work"), path.to_str().unwrap()));
        assert!(readable(&view, &fs::canonicalize(home.path().join("src/tool/run")).unwrap()));
        assert!(!readable(&view, &home.path().join("src/tool/secret")));
    }

    #[test]
    fn a_linked_worktree_can_read_the_repository_it_belongs_to() {
        let home = home_with(&["main/.git/worktrees/w/HEAD", "w/a"]);
        let git = home.path().join("main/.git/worktrees/w");
        fs::write(git.join("gitdir"), home.path().join("w/.git").to_str().unwrap()).unwrap();
        fs::write(home.path().join("w/.git"), format!("gitdir: {}\n", git.display())).unwrap();
        let view = view(&policy(home.path(), &home.path().join("w"), ""));
        assert!(readable(&view, &home.path().join("main/.git/config")));
        assert_eq!(view.protect, [home.path().join("w/.git").into_os_string()]);
    }

    #[test]
    fn a_directory_named_by_a_git_file_is_readable_only_if_it_points_back() {
        let home = home_with(&[".ssh/worktrees/w/HEAD", "w/a"]);
        let secret = home.path().join(".ssh/worktrees/w");
        fs::write(home.path().join("w/.git"), format!("gitdir: {}\n", secret.display())).unwrap();
        let view = view(&policy(home.path(), &home.path().join("w"), ""));
        assert!(!readable(&view, &secret));
    }
}
