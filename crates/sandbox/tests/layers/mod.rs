//! Sets up a repository and overlays of it for any user.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, lchown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use workspace::Workspace;

use crate::support;

/// The environment variables that tell the restarted test which directories to probe.
pub(crate) const ASK: &str = "OVERLAY_TEST_ROOT";
pub(crate) const ASK_DIR: &str = "OVERLAY_TEST_DIR";

/// A user id that does not belong to any user.
pub(crate) const ORDINARY: u32 = 54_321;

/// The environment variable that tells a test that it is running in an overlay and where the
/// overlay is mounted.
pub(crate) const MERGED: &str = "OVERLAY_TEST_MERGED";

/// Returns the users that the tests run as: the current one (`None`) and, if that is root, also an
/// ordinary one.
pub(crate) fn users() -> Vec<Option<u32>> {
    match rustix::process::geteuid().is_root() {
        true => vec![None, Some(ORDINARY)],
        false => vec![None],
    }
}

pub(crate) fn git(root: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(root).env("GIT_OPTIONAL_LOCKS", "0").env("GIT_CONFIG_GLOBAL", "/dev/null").args([
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "safe.directory=*",
    ]);
    let out = command.args(arguments).output().unwrap();
    assert!(out.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub(crate) fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A repository, everything that an overlay of it needs, and copies of this test program and the
/// launcher that any user can run.
pub(crate) struct Setting {
    pub(crate) place: tempfile::TempDir,
    user: Option<u32>,
}

impl Setting {
    pub(crate) fn new(user: Option<u32>) -> Self {
        let place = tempfile::tempdir_in(support::place()).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        copy(Path::new(&format!("/proc/{}/exe", std::process::id())), &place.path().join("test"));
        copy(&support::launcher(), &place.path().join("launcher"));
        let setting = Self { place, user };
        let root = setting.root();
        for folder in ["session", "tmp"] {
            fs::create_dir_all(setting.place.path().join(folder)).unwrap();
        }
        for (path, text) in [
            ("src/a.txt", "one\ntwo\nthree\n"),
            ("src/deep/c.txt", "c\n"),
            ("b.txt", "b\n"),
            (".gitignore", "ignored/\n"),
            ("fixed.sh", "#!/bin/sh\n"),
        ] {
            put(&root, path, text);
        }
        fs::set_permissions(root.join("fixed.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("src/a.txt", root.join("link")).unwrap();
        git(&root, &["init", "-q"]);
        git(&root, &["add", "-A"]);
        git(&root, &["commit", "-qm", "first"]);
        put(&root, "ignored/installed", "dependency\n");
        put(&root, "b.txt", "changed before\n");
        put(&root, "untracked.txt", "u\n");
        setting.give();
        setting
    }

    /// Makes the user the owner of all files in `place`.
    pub(crate) fn give(&self) {
        let Some(user) = self.user else { return };
        for path in walk(self.place.path()) {
            lchown(&path, Some(user), Some(user)).unwrap();
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.place.path().join("home/work, with: odd \\ name")
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.place.path().join("session/overlay")
    }

    /// Returns where overlays are mounted: over the repository, and elsewhere.
    pub(crate) fn places(&self) -> [PathBuf; 2] {
        [self.root(), self.place.path().join("session/tree")]
    }

    pub(crate) fn as_user(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.place.path().join("home"))
            .env("TMPDIR", self.place.path().join("tmp"))
            .env(support::PLACE, self.place.path())
            .env(support::LAUNCHER, self.place.path().join("launcher"))
            .current_dir(self.root());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Returns a command that runs a program in the overlay.
    pub(crate) fn in_overlay(&self, merged: &Path, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.place.path().join("launcher"));
        command.args([&self.root(), &self.dir(), merged, program.as_ref()]);
        self.as_user(command)
    }

    /// Returns a command that reruns one of these tests in the overlay.
    pub(crate) fn inside(&self, merged: &Path, test: &str) -> Command {
        let mut command = self.in_overlay(merged, self.place.path().join("test"));
        command.args(["--exact", test, "--nocapture"]).env(MERGED, merged);
        command
    }

    /// Returns why an overlay cannot be created here, or `None` if it can.
    pub(crate) fn probe(&self) -> Option<String> {
        let mut command = Command::new(self.place.path().join("test"));
        command.args(["--exact", "probe_says_why_not", "--nocapture"]);
        let mut command = self.as_user(command);
        command.env(ASK, self.root()).env(ASK_DIR, self.dir());
        let output = succeeds(command);
        assert!(!self.dir().join("upper").exists() && !self.dir().join("work").exists());
        let output = output.lines().find_map(|l| l.split_once("overlay: ")).unwrap().1.to_owned();
        (output != "yes").then_some(output)
    }

    /// Whether the probe reports that overlays are unavailable here. If it does, also checks that
    /// entering an overlay fails and that a copy can be made instead.
    pub(crate) fn refused(&self) -> bool {
        let Some(output) = self.probe() else { return false };
        let tried = self.in_overlay(&self.root(), "/bin/true").output().unwrap();
        assert_eq!(tried.status.code(), Some(125), "the probe reports {output}, but an overlay works");
        let copy = self.place.path().join("session/copy");
        Workspace::open(self.root()).unwrap().copy_to(&copy).unwrap();
        assert!(copy.join("ignored/installed").exists());
        true
    }
}

pub(crate) fn succeeds(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let output = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}: {output}");
    output
}

pub(crate) fn ran_one(command: Command) {
    let output = succeeds(command);
    assert!(output.contains("1 passed"), "{output}");
}

/// Copies a program in a separate process. If this process wrote the copy itself, a process started
/// by another test at that moment would inherit the open file, and a program cannot be started
/// while any process has its file open for writing.
fn copy(program: &Path, to: &Path) {
    assert!(Command::new("cp").args([program, to]).status().unwrap().success());
}

/// Returns a directory and everything below it.
pub(crate) fn walk(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    found
}

/// Returns everything that is visible in a tree, including git's status and all file times except
/// access times.
pub(crate) fn observe(root: &Path) -> BTreeMap<PathBuf, String> {
    let of = |path: &Path| {
        let m = path.symlink_metadata().unwrap();
        let content = if m.is_file() { fs::read(path).unwrap() } else { Vec::new() };
        let to = fs::read_link(path).unwrap_or_default();
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        format!(
            "{:o} {}:{} {} {} {} {times:?} {to:?} {}",
            m.mode(),
            m.uid(),
            m.gid(),
            m.ino(),
            m.nlink(),
            m.len(),
            String::from_utf8_lossy(&content)
        )
    };
    let mut seen: BTreeMap<_, _> = walk(root).into_iter().map(|path| (path.clone(), of(&path))).collect();
    seen.insert("git status".into(), git(root, &["status", "--porcelain", "--ignored"]));
    seen
}

pub(crate) fn same(now: &BTreeMap<PathBuf, String>, before: &BTreeMap<PathBuf, String>) {
    let differ: Vec<_> = now.iter().filter(|(path, seen)| before.get(*path) != Some(seen)).collect();
    assert!(differ.is_empty() && now.len() == before.len(), "{differ:#?}");
}
