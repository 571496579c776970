//! A work tree inside a home directory, and sandboxes for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sandbox::{Level, Overrides, Policy, Sandbox, clean_environment};

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// Creates `home` with a secret key and another project, and `home/work` with a repository.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir_in(place()).unwrap();
        for (file, text) in [
            ("home/.ssh/id_ed25519", "the key"),
            ("home/other/src.rs", "other"),
            ("home/work/.git/config", "[core]\n"),
            ("home/work/a.txt", "a\n"),
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.home().join("work")
    }

    pub(crate) fn policy(&self) -> Policy {
        let mut env = clean_environment(std::env::vars_os(), &[]);
        env.retain(|(name, _)| name != "HOME");
        env.push(("HOME".into(), self.home().into()));
        Policy { env, ..Policy::new(self.root()) }
    }

    pub(crate) fn with(&self, policy: Policy) -> Sandbox {
        self.with_overrides(policy, Overrides::default())
    }

    pub(crate) fn with_overrides(&self, policy: Policy, overrides: Overrides) -> Sandbox {
        Sandbox::with_overrides(policy, vec![launcher().into()], overrides).unwrap()
    }

    pub(crate) fn on(&self) -> Sandbox {
        self.with(self.policy())
    }

    pub(crate) fn off(&self) -> Sandbox {
        self.with(Policy { level: Level::Off, ..self.policy() })
    }
}

/// The variable that contains the path of a copy of the launcher, for tests that run as a user who
/// cannot read the original.
pub(crate) const LAUNCHER: &str = "SANDBOX_TEST_LAUNCHER";

/// The variable that contains the path of another directory for work trees, for tests that run as a
/// user who cannot access the usual one.
pub(crate) const PLACE: &str = "SANDBOX_TEST_PLACE";

/// Returns the directory for work trees, which is the build directory if it is suitable. It is not
/// suitable if it is inside `/tmp` or another directory that the sandbox replaces with a private or
/// empty one. If the user is root, an ordinary user must also have access to it.
pub(crate) fn place() -> PathBuf {
    if let Some(place) = std::env::var_os(PLACE) {
        return place.into();
    }
    let build = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let shared = ["/tmp", "/var/tmp", "/run", "/dev/shm"].iter().any(|dir| build.starts_with(dir));
    let open = |dir: &Path| dir.metadata().is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    match (shared, rustix::process::geteuid().is_root()) {
        (false, false) => build,
        (false, true) if build.ancestors().all(open) => build,
        (_, true) => "/var/lib".into(),
        (true, false) => std::env::home_dir().unwrap(),
    }
}

pub(crate) fn launcher() -> PathBuf {
    std::env::var_os(LAUNCHER).map_or_else(|| env!("CARGO_BIN_EXE_sandbox-launcher").into(), PathBuf::from)
}

impl Fixture {
    /// Returns digits that do not appear in any other test's command lines.
    pub(crate) fn unique(&self) -> String {
        use std::hash::{BuildHasher, RandomState};
        format!("{:020}", RandomState::new().hash_one(self.dir.path()))
    }
}

/// Returns the number of processes on this machine with `mark` in their command lines.
pub(crate) fn alive(mark: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(mark)).count()
}

/// Polls until a condition holds, because there is no event to wait for.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// The variable that is set in a process that runs a test without namespaces.
const REFUSED: &str = "SANDBOX_TEST_NAMESPACES_REFUSED";

/// Returns true if this process is running in an environment that refuses namespaces. Otherwise,
/// reruns the test in such an environment and returns false.
pub(crate) fn namespaces_are_refused(test: &str) -> bool {
    if std::env::var_os(REFUSED).is_some() {
        return true;
    }
    let refuse = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["-U", "-r", "sh", "-c", refuse, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(REFUSED, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}
