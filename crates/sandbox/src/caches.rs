//! The caches of package managers and compilers: commands see what is in them, and what they change is the session's own, in an
//! overlay that is gone with it. A hostile build cannot leave anything there for the next one.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{Policy, launcher::Doing, overlay, view::View};

/// In a home directory.
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

/// Below what a variable names.
const VARIABLES: &[(&str, &[&str])] = &[
    ("CARGO_HOME", &["registry", "git"]),
    ("GOPATH", &["pkg"]),
    ("GOMODCACHE", &[""]),
    ("NUGET_PACKAGES", &[""]),
];

/// Those that exist, canonical, none inside another.
pub(crate) fn existing(policy: &Policy) -> BTreeSet<PathBuf> {
    let home = policy.variable("HOME").map(Path::new).into_iter();
    let home = home.flat_map(|home| HOME.iter().map(|part| home.join(part)));
    let named = VARIABLES.iter().flat_map(|(name, parts)| {
        let top = policy.variable(name).map(Path::new).filter(|top| top.is_absolute());
        top.into_iter().flat_map(|top| parts.iter().map(|part| top.join(part)))
    });
    home.chain(named).filter_map(|path| fs::canonicalize(path).ok().filter(|p| p.is_dir())).collect()
}

/// Lays the session's own layer over each cache, in the mount namespace of a command. Returns those where it worked; the others stay
/// read-only.
pub(crate) fn lay(view: &View) -> Vec<&OsStr> {
    let layers = Path::new(&view.layers);
    let laid = |number: usize, cache: &OsStr| {
        let (dir, cache) = (layers.join(number.to_string()), Path::new(cache));
        let make = |part| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir.join(part));
        make("upper").and(make("work")).doing("a cache's layer")?;
        overlay::mount_overlay(cache, &dir, cache)
    };
    let numbered = view.caches.iter().enumerate();
    numbered
        .filter(|(number, cache)| laid(*number, cache).is_ok())
        .map(|(_, cache)| cache.as_os_str())
        .collect()
}

/// Those that cannot be written, tried from inside.
pub(crate) fn read_only(caches: &[OsString]) -> Vec<OsString> {
    let write = |cache: &OsString| -> io::Result<()> {
        let probe = Path::new(cache).join(".agent-sandbox-probe");
        fs::write(&probe, "")?;
        fs::remove_file(&probe)
    };
    caches.iter().filter(|cache| write(cache).is_err()).cloned().collect()
}

/// A sandbox's own folder: what commands see as `/tmp`, and the layers over caches. Removed with this value.
#[derive(Debug)]
pub(crate) struct Own(tempfile::TempDir);

impl Own {
    pub(crate) fn new() -> io::Result<Self> {
        let own = Self(tempfile::tempdir()?);
        fs::create_dir(own.tmp())?;
        fs::create_dir(own.layers())?;
        Ok(own)
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.0.path().join("tmp")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.0.path().join("layers")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Commands and overlays leave folders without permissions.
        let _ = overlay::remove_tree(self.0.path());
    }
}
