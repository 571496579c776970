//! A work tree with a home directory around it, and sandboxes for it.

use std::path::{Path, PathBuf};

use sandbox::{Level, Policy, Sandbox, clean_environment};

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    /// `home` with a secret and other people's work, `home/work` with a repository.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
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
        Sandbox::new(policy, vec![launcher().into()]).unwrap()
    }

    pub(crate) fn on(&self) -> Sandbox {
        self.with(self.policy())
    }

    pub(crate) fn off(&self) -> Sandbox {
        self.with(Policy { level: Level::Off, ..self.policy() })
    }
}

pub(crate) fn launcher() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sandbox-launcher"))
}
