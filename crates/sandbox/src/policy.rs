//! The policy for commands: their access to files and the network, their limits, and their
//! environment.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use crate::Host;

/// Whether commands are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Confined as far as the system allows. If it does not allow any confinement, no commands run.
    #[default]
    On,
    /// Not confined (`--dangerously-no-sandbox`). Limits, cleanup and output capture still apply.
    Off,
}

/// What network access commands have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Network {
    /// None, not even loopback.
    None,
    /// A private loopback interface. Commands can reach their own servers on it, but no other
    /// servers on this machine.
    #[default]
    Loopback,
    /// Unrestricted.
    Full,
}

/// Limits that apply to every command, regardless of what its caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResourceLimits {
    /// The maximum size of a file that a command writes, in bytes.
    pub file_size: u64,
    /// The maximum number of open files per process.
    pub open_files: u64,
    /// The maximum number of simultaneous processes and threads. They are counted up to ten times a
    /// second. The limit is enforced exactly on Linux 6.14 and later if the sandbox has its own
    /// `/proc`.
    pub processes: u64,
    /// The maximum combined memory of all processes, in bytes, measured up to ten times a second.
    /// If the machine runs out of memory first, the kernel kills commands before other processes.
    pub memory: u64,
    /// The maximum CPU time of each process, in seconds.
    pub cpu_seconds: u64,
}

impl Default for ResourceLimits {
    /// Returns limits far above what builds need. The memory limit is 3/4 of the machine's memory.
    fn default() -> Self {
        let machine = rustix::system::sysinfo();
        let memory = machine.totalram.saturating_mul(u64::from(machine.mem_unit)) / 4 * 3;
        Self { file_size: 8 << 30, open_files: 65_536, processes: 4_096, memory, cpu_seconds: 4 * 3_600 }
    }
}

/// What commands may access (files and the network), their limits, and their environment.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The work tree: readable, and writable except for `.git`.
    pub root: PathBuf,
    /// Whether the work tree is read-only.
    pub read_only: bool,
    /// Additional files and directories that commands may read.
    pub extra_read: Vec<PathBuf>,
    /// Additional files and directories that commands may read and write.
    pub extra_write: Vec<PathBuf>,
    /// What network access commands have.
    pub network: Network,
    /// Hosts that commands may reach with [`Network::Loopback`], through the agent's proxy. If
    /// hosts are listed but the system does not allow a private network for commands, no commands
    /// run.
    pub hosts: Vec<Host>,
    /// A directory for this session's sandbox. It contains the files that commands see in `/tmp`
    /// (or in `TMPDIR` if mounts are refused) and the changes that commands make to caches. It is
    /// created (or emptied, if it exists) at the start and removed at the end. A new directory in
    /// the system's temporary directory is used instead if this is `None`, if commands can write to
    /// this directory, or if its file system is unsuitable (such as a network file system or an
    /// overlay).
    pub folder: Option<PathBuf>,
    /// The environment for commands; see [`clean_environment`]. Its `HOME`, `PATH` and variables
    /// such as `RUSTUP_HOME` determine which toolchains commands may read.
    pub env: Vec<(OsString, OsString)>,
    /// Whether commands are confined.
    pub level: Level,
    /// Limits for every command.
    pub limits: ResourceLimits,
}

impl Policy {
    /// Creates the default policy for a work tree: commands are confined, can reach only loopback,
    /// and have an empty environment.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            read_only: false,
            extra_read: Vec::new(),
            extra_write: Vec::new(),
            network: Network::default(),
            hosts: Vec::new(),
            folder: None,
            env: Vec::new(),
            level: Level::default(),
            limits: ResourceLimits::default(),
        }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str())
    }
}

/// Variables that commands inherit: locations, language and build settings, but no secrets.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANGUAGE",
    "TZ",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUSTFLAGS",
    "GOPATH",
    "GOROOT",
    "GOFLAGS",
    "GOTOOLCHAIN",
    "GOMODCACHE",
    "JAVA_HOME",
    "M2_HOME",
    "MAVEN_HOME",
    "MAVEN_OPTS",
    "GRADLE_HOME",
    "DOTNET_ROOT",
    "NUGET_PACKAGES",
    "NODE_PATH",
    "NVM_DIR",
    "NVM_BIN",
    "VOLTA_HOME",
    "PNPM_HOME",
    "PYENV_ROOT",
    "PYENV_VERSION",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "RBENV_ROOT",
    "GEM_HOME",
    "GEM_PATH",
    "ASDF_DIR",
    "ASDF_DATA_DIR",
    "SDKMAN_DIR",
    "PKG_CONFIG_PATH",
    "CC",
    "CXX",
    "CFLAGS",
    "CXXFLAGS",
    "LDFLAGS",
    "LD_LIBRARY_PATH",
    "MAKEFLAGS",
    "CMAKE_PREFIX_PATH",
    "NIX_PATH",
    "NIX_PROFILES",
    "NIX_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Variables that every command gets. They turn off pagers, prompts, color, telemetry, and
/// by-products such as `__pycache__`, which would show up in the diff.
const SET: &[(&str, &str)] = &[
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("NO_COLOR", "1"),
    ("CARGO_TERM_COLOR", "never"),
    ("PAGER", "cat"),
    ("GIT_PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_EDITOR", "true"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("CI", "true"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONUNBUFFERED", "1"),
    ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    ("NPM_CONFIG_UPDATE_NOTIFIER", "false"),
    ("NPM_CONFIG_FUND", "false"),
    ("NEXT_TELEMETRY_DISABLED", "1"),
    ("DOTNET_CLI_TELEMETRY_OPTOUT", "1"),
    ("DOTNET_NOLOGO", "1"),
];

/// Builds the environment for commands from `given`, which is this program's environment. Keeps the
/// allowed variables and those listed in `also`, and adds settings that keep tools quiet and
/// non-interactive.
#[must_use]
pub fn clean_environment(
    given: impl IntoIterator<Item = (OsString, OsString)>,
    also: &[String],
) -> Vec<(OsString, OsString)> {
    let allowed = |name: &OsStr| {
        name.to_str().is_some_and(|n| PASSED.contains(&n) || n == "LC_ALL" || also.iter().any(|a| a == n))
    };
    let mut env: Vec<_> = given.into_iter().filter(|(name, _)| allowed(name)).collect();
    for (name, value) in SET {
        if !env.iter().any(|(n, _)| n == name) {
            env.push((name.into(), value.into()));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_environment_are_not_passed_on() {
        let given = [
            ("PATH", "/usr/bin"),
            ("DEEPSEEK_API_KEY", "sk-1"),
            ("SSH_AUTH_SOCK", "/run/s"),
            ("PAGER", "less"),
        ];
        let env = clean_environment(given.map(|(n, v)| (n.into(), v.into())), &[]);
        assert!(env.contains(&("PATH".into(), "/usr/bin".into())));
        assert!(env.contains(&("PAGER".into(), "cat".into())));
        assert!(!env.iter().any(|(n, _)| n == "DEEPSEEK_API_KEY" || n == "SSH_AUTH_SOCK"));
    }

    #[test]
    fn a_requested_variable_is_passed_on() {
        let env = clean_environment([("DATABASE_URL".into(), "x".into())], &["DATABASE_URL".into()]);
        assert!(env.contains(&("DATABASE_URL".into(), "x".into())));
    }
}
