//! What a command may do: the policy as the caller states it, and the environment a command is given.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    net::IpAddr,
    path::PathBuf,
};

use crate::Host;

/// Whether commands are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Confined as far as the system allows; where it allows nothing, no command runs.
    #[default]
    On,
    /// Not confined at all (`--dangerously-no-sandbox`). Limits, clean-up and output capture stay.
    Off,
}

/// What a command may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Network {
    /// Nothing, not even itself.
    None,
    /// A loopback interface of its own: test servers work, nothing outside can be reached, not even this machine's own servers.
    #[default]
    Loopback,
    /// Everything.
    Full,
}

/// Limits that hold for every command, whatever its caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ResourceLimits {
    /// Largest file a command may write, in bytes.
    pub file_size: u64,
    /// Open files per process.
    pub open_files: u64,
    /// Processes and threads at the same time. Counted ten times a second; from Linux 6.14 on the kernel never makes more.
    pub processes: u64,
    /// Memory of all processes together, in bytes. Counted ten times a second; what is beyond the machine's means the kernel takes from
    /// commands first.
    pub memory: u64,
    /// Processor time of each process, in seconds.
    pub cpu_seconds: u64,
}

impl Default for ResourceLimits {
    /// Far above what builds and test suites need, below what stops a machine: of its memory three quarters.
    fn default() -> Self {
        let machine = rustix::system::sysinfo();
        let memory = machine.totalram.saturating_mul(u64::from(machine.mem_unit)) / 4 * 3;
        Self { file_size: 8 << 30, open_files: 65_536, processes: 4_096, memory, cpu_seconds: 4 * 3_600 }
    }
}

/// What commands may read, write and reach.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The work tree: readable, and writable apart from `.git`.
    pub root: PathBuf,
    /// The work tree may not be written either.
    pub read_only: bool,
    /// Further files and directories that may be read.
    pub extra_read: Vec<PathBuf>,
    /// Further files and directories that may be written.
    pub extra_write: Vec<PathBuf>,
    /// What may be reached.
    pub network: Network,
    /// Hosts that may be reached with [`Network::Loopback`], through a proxy of the agent. Where commands cannot have a network of their
    /// own nothing runs then.
    pub hosts: Vec<Host>,
    /// Names of hosts whose addresses are known; others are looked up. For tests.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// A folder of this session alone, for what the sandbox keeps: what commands see as `/tmp` (as `TMPDIR` where mounts are refused),
    /// and what they change in caches. It is made, and removed in the end; what a killed run has left there is removed first. Without
    /// one, and where its file system cannot hold that (network file systems, overlays), it is one of the system's temporary folders.
    pub folder: Option<PathBuf>,
    /// The environment of commands, see [`clean_environment`]. `HOME` and `PATH` decide which toolchains may be read.
    pub env: Vec<(OsString, OsString)>,
    /// Whether commands are confined.
    pub level: Level,
    /// Limits for every command.
    pub limits: ResourceLimits,
    /// Landlock is used where the kernel has it. Tests see by `false` that the rest holds without.
    pub landlock: bool,
    /// bubblewrap is used where it can make namespaces and this program cannot. Tests see by `false` that the rest holds without.
    pub bubblewrap: bool,
}

impl Policy {
    /// The default for a work tree: confined, loopback only, an empty environment.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            read_only: false,
            extra_read: Vec::new(),
            extra_write: Vec::new(),
            network: Network::default(),
            hosts: Vec::new(),
            names: BTreeMap::new(),
            folder: None,
            env: Vec::new(),
            level: Level::default(),
            limits: ResourceLimits::default(),
            landlock: true,
            bubblewrap: true,
        }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str())
    }
}

/// Variables that are passed on: where things are, in which language, and how builds run; nothing that could be a secret.
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

/// Variables that every command gets: no pager, no prompt, no colour, nothing that phones home, and no by-products in the work tree
/// (`PYTHONDONTWRITEBYTECODE`: `__pycache__` would show up in the diff).
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

/// The environment of commands from the environment of the program: what is on the allow list or named in `also`, and what keeps
/// tools quiet and non-interactive.
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
    fn secrets_of_the_program_are_not_passed_on() {
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
    fn a_variable_that_is_asked_for_is_passed_on() {
        let env = clean_environment([("DATABASE_URL".into(), "x".into())], &["DATABASE_URL".into()]);
        assert!(env.contains(&("DATABASE_URL".into(), "x".into())));
    }
}
