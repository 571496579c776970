//! Runs commands in a sandbox that confines them, limits them and captures their output.
//!
//! A [`Sandbox`] is created once per work tree from a [`Policy`] and runs any number of
//! [`Command`]s. Each command is confined: it can read the system and the work tree, can write only
//! to the work tree and to private directories, and has no network access unless the policy grants
//! it. Its time, output, files, memory and processes are limited. It has no terminal, and its
//! standard input is empty unless [`Command::input`] provides text. When [`Sandbox::run`] returns,
//! the command and everything it started are gone.
//!
//! The confinement depends on what the system allows. [`Sandbox::probe`] tries the strongest form
//! first, checks from inside that it holds, and reports the result in plain language. If the kernel
//! refuses a mechanism, the report says so. If nothing can be enforced, no commands run.
//!
//! The [`overlay`] module creates the file system for dry runs. The agent process enters the
//! overlay before it does anything else.
//!
//! `docs/sandbox.md` lists what each mechanism stops and what none of them stop.
//!
//! Each command is confined by a launcher: the program's own binary, started again with a first
//! argument that makes it call [`launcher_main`] before anything else.
//!
//! ```no_run
//! # async fn example() -> Result<(), sandbox::SandboxError> {
//! let policy = sandbox::Policy {
//!     env: sandbox::clean_environment([("PATH".into(), "/usr/bin:/bin".into())], &[]),
//!     ..sandbox::Policy::new("/repositories/one")
//! };
//! let sandbox = sandbox::Sandbox::new(policy, vec!["/proc/self/exe".into(), "__sandbox".into()])?;
//! let done = sandbox.run(sandbox::Command::shell("make test")).await?;
//! assert!(done.status.success());
//! # Ok(()) }
//! ```

mod bubblewrap;
mod caches;
mod capture;
mod census;
mod command;
mod confine;
pub mod guard;
mod home;
mod hosts;
mod launcher;
mod order;
pub mod overlay;
mod overlay_probe;
mod policy;
mod probe;
mod proxy;
mod self_test;
mod service;
mod sys;
mod syscalls;
mod view;

use std::{collections::BTreeMap, ffi::OsString, io, net::IpAddr, path::Path, sync::Arc};

pub use caches::remove_left;
pub use capture::{Capture, Captured, Omitted, OutputLimits, plain};
pub use command::{Command, Finished, Status};
pub use hosts::Host;
pub use launcher::launcher_main;
pub use policy::{Level, Network, Policy, ResourceLimits, clean_environment};
pub use probe::Report;
pub use service::Service;

use caches::SessionDir;
use order::{Order, Profile, Task};
use view::View;

/// Why a command did not run, or did not end.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system does not allow any confinement.
    #[error(
        "commands cannot be confined on this system: {0}; to run them unconfined, pass --dangerously-no-sandbox"
    )]
    Unavailable(String),
    /// The policy lists hosts, but the system does not allow a private network for commands.
    #[error(
        "commands cannot be limited to specific hosts on this system, because it does not let them have their own network ({0}); \
         without --allow-host they have no network access"
    )]
    Hosts(String),
    /// The self-test broke out of the confinement.
    #[error(
        "the sandbox failed its self-test: {0}; to run commands unconfined, pass --dangerously-no-sandbox"
    )]
    Broken(String),
    /// The confinement could not be set up for a command.
    #[error("cannot set up the sandbox: {0}")]
    Setup(String),
    /// A path in the policy does not exist.
    #[error("cannot use a path in the sandbox policy: {0}")]
    Policy(io::Error),
    /// The program could not be started. Only this variant means that the command's caller made a
    /// mistake.
    #[error("cannot start {program:?}: {why}")]
    Start {
        /// The program.
        program: String,
        /// Whether the program or its working directory does not exist.
        missing: bool,
        /// The system's reason.
        why: String,
    },
    /// Some processes could not be killed.
    #[error("cannot kill a command; some of its processes may still be running")]
    Undead,
}

/// Runs commands under one policy. Clones share all state.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Inner>);

/// Parts that this crate's tests replace or turn off. Not part of the public API.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Addresses that the proxy uses for these names instead of looking them up.
    pub names: BTreeMap<String, Vec<IpAddr>>,
    /// Do not use Landlock.
    pub no_landlock: bool,
    /// Do not use bubblewrap.
    pub no_bubblewrap: bool,
}

#[derive(Debug)]
struct Inner {
    policy: Policy,
    overrides: Overrides,
    launcher: Vec<OsString>,
    view: View,
    user_namespace: bool,
    probed: tokio::sync::OnceCell<(Profile, Report)>,
    /// The session's directory. It is removed when the last clone is dropped.
    _dir: SessionDir,
}

impl Sandbox {
    /// Prepares to run commands under a policy. `launcher` is a command line whose program calls
    /// [`launcher_main`]. If the program is `/proc/self/exe`, the running binary is used even if
    /// its file has been replaced.
    ///
    /// # Errors
    /// Fails if the work tree or another path in the policy does not exist.
    pub fn new(policy: Policy, launcher: Vec<OsString>) -> Result<Self, SandboxError> {
        Self::with_overrides(policy, launcher, Overrides::default())
    }

    /// Same as [`Sandbox::new`], but for this crate's tests.
    #[doc(hidden)]
    pub fn with_overrides(
        policy: Policy,
        launcher: Vec<OsString>,
        overrides: Overrides,
    ) -> Result<Self, SandboxError> {
        let dir = SessionDir::new(&policy).map_err(SandboxError::Policy)?;
        let root_user = rustix::process::geteuid().is_root();
        let view =
            View::resolve(&policy, &dir.tmp(), &dir.layers(), root_user).map_err(SandboxError::Policy)?;
        let foreign = {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(&policy.root).is_ok_and(|m| m.uid() != rustix::process::geteuid().as_raw())
        };
        if launcher.is_empty() {
            return Err(SandboxError::Setup("no launcher given".into()));
        }
        let user_namespace = !(root_user && foreign);
        let probed = tokio::sync::OnceCell::new();
        Ok(Self(Arc::new(Inner { policy, overrides, launcher, view, user_namespace, probed, _dir: dir })))
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// Returns the absolute path of the work tree with all symbolic links resolved. This is the
    /// path that programs see when they start there.
    #[must_use]
    pub fn root(&self) -> &Path {
        Path::new(&self.0.view.root)
    }

    pub(crate) fn launcher(&self) -> &[OsString] {
        &self.0.launcher
    }

    /// Whether commands reach the policy's hosts through the agent's proxy.
    pub(crate) fn proxied(&self) -> bool {
        let policy = &self.0.policy;
        policy.level == Level::On && policy.network == Network::Loopback && !policy.hosts.is_empty()
    }

    pub(crate) fn order(&self, profile: Profile, task: Task) -> Order {
        Order {
            proxy: self.proxied(),
            profile,
            view: self.0.view.clone(),
            network: self.0.policy.network,
            limits: self.0.policy.limits,
            user_namespace: self.0.user_namespace,
            task,
        }
    }

    /// Returns the policy's environment plus what the confinement requires, such as `TMPDIR`.
    pub(crate) fn environment(&self, profile: Profile, report: &Report) -> Vec<(OsString, OsString)> {
        let mut env = self.0.policy.env.clone();
        let tmp = if profile.namespaces { "/tmp".into() } else { self.0.view.tmp.clone() };
        if self.proxied() {
            env.retain(|(name, _)| !PROXY_VARIABLES.iter().any(|own| name.eq_ignore_ascii_case(own)));
            env.extend(self.proxy_variables());
        }
        let mut set = |name: &str, value: OsString| {
            if !env.iter().any(|(n, _)| n == name) {
                env.push((name.into(), value));
            }
        };
        let is_go_cache = |cache: &OsString| Path::new(cache).ends_with(".cache/go-build");
        if !self.0.view.caches.iter().any(is_go_cache) || report.read_only_caches.iter().any(is_go_cache) {
            let mut go_cache = tmp.clone();
            go_cache.push("/go-build");
            set("GOCACHE", go_cache);
        }
        if profile.seccomp {
            // Sanitizers' leak checkers need to trace their own process, but the filter refuses
            // tracing.
            set("ASAN_OPTIONS", "detect_leaks=0".into());
        }
        set("DOTNET_CLI_HOME", tmp.clone());
        if self.0.policy.level == Level::On && self.0.policy.network != Network::Full && !self.proxied() {
            set("CARGO_NET_OFFLINE", "true".into());
            set("GOPROXY", "off".into());
            set("NPM_CONFIG_OFFLINE", "true".into());
        }
        set("TMPDIR", tmp);
        env
    }

    /// Returns the variables that point to the proxy, and `NO_PROXY`, which lists the hosts that
    /// programs reach without the proxy. Those are the names of the loopback interface, where the
    /// command's own servers listen, except for names that the policy lists as hosts.
    fn proxy_variables(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let direct = ["localhost", "127.0.0.1", "::1"];
        let direct = direct.into_iter().filter(|name| !self.0.policy.hosts.iter().any(|host| host.is(name)));
        let direct = direct.collect::<Vec<_>>().join(",");
        let both = |name: &str, value: &str| {
            [(name.to_lowercase().into(), value.into()), (name.into(), value.into())]
        };
        let proxy = format!("http://127.0.0.1:{}", proxy::PORT);
        PROXY_VARIABLES
            .into_iter()
            .flat_map(move |name| both(name, if name == NO_PROXY { &direct } else { &proxy }))
    }
}

const NO_PROXY: &str = "NO_PROXY";

/// Variables that configure the use of a proxy; each also exists in lowercase.
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", NO_PROXY];
