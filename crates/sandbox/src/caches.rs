//! The caches of package managers and compilers. Commands can read the caches, but writes go to an
//! overlay that is removed with the session, so hostile builds leave nothing behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::{Policy, confine::Detached, order::Order, overlay, view::View};

/// Caches below a home directory.
const HOME: &[&str] = &[
    ".cargo/registry",
    ".cargo/git",
    ".npm/_cacache",
    ".npm/_npx",
    ".pnpm-store",
    ".local/share/pnpm",
    ".cache/pnpm",
    ".cache/yarn",
    ".cache/node",
    ".cache/node-gyp",
    ".cache/pip",
    ".cache/uv",
    ".cache/pypoetry",
    ".cache/pre-commit",
    ".cache/go-build",
    ".cache/bazel",
    ".cache/coursier",
    ".cache/deno",
    ".bundle/cache",
    ".m2/repository",
    ".gradle/caches",
    ".gradle/wrapper",
    ".gradle/native",
    ".nuget/packages",
    ".pub-cache",
    ".hex",
    ".mix",
    ".konan",
    "go/pkg",
];

/// Environment variables that point to a directory, each with the caches below that directory.
const VARIABLES: &[(&str, &[&str])] = &[
    ("CARGO_HOME", &["registry", "git"]),
    ("GOPATH", &["pkg"]),
    ("GOMODCACHE", &[""]),
    ("NUGET_PACKAGES", &[""]),
];

/// Returns the canonical paths of the caches that exist.
pub(crate) fn existing(policy: &Policy) -> BTreeSet<PathBuf> {
    let home = policy.variable("HOME").map(Path::new).into_iter();
    let home = home.flat_map(|home| HOME.iter().map(|part| home.join(part)));
    let named = VARIABLES.iter().flat_map(|(name, parts)| {
        let top = policy.variable(name).map(Path::new).filter(|top| top.is_absolute());
        top.into_iter().flat_map(|top| parts.iter().map(|part| top.join(part)))
    });
    home.chain(named).filter_map(|path| fs::canonicalize(path).ok().filter(|p| p.is_dir())).collect()
}

/// Mounts overlays of the caches in a command's mount namespace. Returns one mount per cache, which
/// the caller must attach at the path of the cache. Caches for which this fails stay read-only. All
/// caches that are in the home directory and on its file system share one overlay, because each
/// overlay costs 0.4 ms.
pub(crate) fn mount_overlays(order: &Order) -> Vec<Detached<'_>> {
    let View { home, caches, layers, .. } = &order.view;
    let device = |path: &OsStr| fs::metadata(path).map(|m| m.dev()).ok();
    let home_device = device(home);
    let mut overlays: BTreeMap<&OsStr, Option<PathBuf>> = BTreeMap::new();
    let mounts = caches.iter().filter_map(|cache| {
        let in_home = Path::new(cache).starts_with(home) && device(cache) == home_device;
        let lower = if in_home { home } else { cache };
        let number = overlays.len();
        let merged = overlays.entry(lower).or_insert_with(|| {
            let dir = Path::new(layers).join(number.to_string());
            mount_over(Path::new(lower), &dir, !order.user_namespace).ok()
        });
        let inside = merged.as_ref()?.join(Path::new(cache).strip_prefix(lower).ok()?);
        Detached::of(inside.as_os_str(), cache).ok().flatten()
    });
    mounts.collect()
}

/// Mounts an overlay with its layers in `dir` and returns the mount point.
fn mount_over(lower: &Path, dir: &Path, trusted: bool) -> io::Result<PathBuf> {
    for part in ["upper", "work", "merged"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(part))?;
    }
    let merged = dir.join("merged");
    overlay::mount_overlay(lower, dir, &merged, trusted)?;
    Ok(merged)
}

/// Returns the caches that cannot be written to. Runs inside the sandbox and tries to write to each
/// cache.
pub(crate) fn read_only(caches: &[OsString]) -> Vec<OsString> {
    let write = |cache: &OsString| -> io::Result<()> {
        let probe = Path::new(cache).join(".agent-sandbox-probe");
        fs::write(&probe, "")?;
        fs::remove_file(&probe)
    };
    caches.iter().filter(|cache| write(cache).is_err()).cloned().collect()
}

/// Removes whatever a killed run left behind in its [`Policy::folder`], including files and
/// directories without permissions.
///
/// # Errors
/// Fails if something cannot be removed.
pub fn remove_left(folder: &Path) -> io::Result<()> {
    overlay::remove_tree(folder)
}

/// The directory of one sandbox: its `/tmp` and the overlays of caches. Removed on drop.
#[derive(Debug)]
pub(crate) struct SessionDir(PathBuf);

impl SessionDir {
    pub(crate) fn new(policy: &Policy) -> io::Result<Self> {
        let own = match policy.folder.as_deref().filter(|folder| is_suitable(folder, policy)) {
            Some(folder) => {
                remove_left(folder)?;
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                Self(folder.to_owned())
            }
            None => Self(tempfile::tempdir()?.keep()),
        };
        fs::create_dir(own.tmp())?;
        fs::create_dir(own.layers())?;
        Ok(own)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.join("tmp")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.0.join("layers")
    }
}

impl Drop for SessionDir {
    fn drop(&mut self) {
        // A plain removal would fail on directories without permissions, which commands and
        // overlays leave behind.
        let _ = remove_left(&self.0);
    }
}

/// Unsuitable file systems: those that cannot contain the upper layer of an overlay (overlayfs
/// itself, FAT, eCryptfs), and remote ones, where temporary files would be slow. The magic numbers
/// are listed in statfs(2).
const UNSUITABLE: &[u64] = &[
    0x794c_7630, // overlayfs
    0x4d44,      // FAT
    0xf15f,      // eCryptfs
    0x6969,      // NFS
    0x517b,      // SMB
    0xfe53_4d42, // SMB 2
    0xff53_4d42, // CIFS
    0x0102_1997, // 9p
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x6573_5546, // FUSE
];

/// Whether a directory, which may not exist yet, can contain overlays and is not inside a directory
/// that commands may write to.
fn is_suitable(folder: &Path, policy: &Policy) -> bool {
    let Some(existing) = folder.ancestors().find_map(|dir| fs::canonicalize(dir).ok()) else { return false };
    let writable = std::iter::once(&policy.root).chain(&policy.extra_write);
    let written = writable.flat_map(fs::canonicalize).any(|dir| existing.starts_with(dir));
    let fit = rustix::fs::statfs(&existing).is_ok_and(|about| {
        #[expect(
            clippy::cast_sign_loss,
            reason = "the number has 32 bits, but its type depends on the architecture"
        )]
        let kind = about.f_type as u64 & 0xffff_ffff;
        !UNSUITABLE.contains(&kind)
    });
    fit && !written
}
