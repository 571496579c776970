//! Commands: confinement, limits, output capture.
//!
//! A [`Sandbox`] is made once per work tree from a [`Policy`] and runs any number of [`Command`]s. Each runs confined (it reads the
//! system and the work tree, writes the work tree only, reaches nothing), limited (time, output, files, processes), without
//! standard input or terminal, and is gone with everything it started when [`Sandbox::run`] returns.
//!
//! The confinement is what the system allows, in steps, and says so: [`Sandbox::probe`] tries the strongest form, proves from inside
//! that what must fail fails, and reports in plain words. What the kernel refuses is never passed over in silence, and where nothing
//! can be enforced no command runs.
//!
//! What a dry-run works in is made here too: an [`overlay`] of the repository, which the program itself enters before it does anything.
//!
//! Which mechanism stops what, and what none of them stops, stands in `docs/sandbox.md`.
//!
//! The confining is done by a launcher: the program's own binary, started again with a first argument that makes it call
//! [`launcher_main`] before anything else.
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
mod sys;
mod syscalls;
mod view;

use std::{ffi::OsString, io, path::Path, sync::Arc};

pub use caches::remove_left;
pub use capture::{Capture, Captured, Omitted, OutputLimits, plain};
pub use command::{Command, Finished, Status};
pub use hosts::Host;
pub use launcher::launcher_main;
pub use policy::{Level, Network, Policy, ResourceLimits, clean_environment};
pub use probe::Report;

use caches::Own;
use order::{Order, Profile, Task};
use view::View;

/// Why a command did not run, or did not end.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The system allows no confinement at all.
    #[error(
        "commands cannot be confined on this system ({0}); to run them unconfined, give --dangerously-no-sandbox"
    )]
    Unavailable(String),
    /// Named hosts can only be reached where nothing else can.
    #[error(
        "single hosts cannot be opened to commands on this system, because their network cannot be kept apart ({0}); without \
         --allow-host they reach nothing"
    )]
    Hosts(String),
    /// What was enforced did not hold.
    #[error("the sandbox does not hold: {0}; to run commands unconfined, give --dangerously-no-sandbox")]
    Broken(String),
    /// The confinement could not be set up for a command.
    #[error("the sandbox could not be set up: {0}")]
    Setup(String),
    /// A path of the policy is not there.
    #[error("the sandbox's paths are not all there: {0}")]
    Policy(io::Error),
    /// The program could not be started. The only variant that is the caller's mistake.
    #[error("{program:?} could not be started: {why}")]
    Start {
        /// The program.
        program: String,
        /// Whether it (or the directory to start in) does not exist.
        missing: bool,
        /// The system's reason.
        why: String,
    },
    /// Processes are left that do not die.
    #[error("a command could not be killed; processes of it may be left")]
    Undead,
}

/// Runs commands under one policy. Clones share everything.
#[derive(Debug, Clone)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    policy: Policy,
    launcher: Vec<OsString>,
    view: View,
    user_namespace: bool,
    probed: tokio::sync::OnceCell<(Profile, Report)>,
    /// Removed with the last clone.
    _own: Own,
}

impl Sandbox {
    /// Prepares commands under a policy. `launcher` is the command line that leads to [`launcher_main`]; `/proc/self/exe` as its
    /// program means the running binary, even if it has been replaced on disk.
    ///
    /// # Errors
    /// When the work tree or another path of the policy does not exist.
    pub fn new(policy: Policy, launcher: Vec<OsString>) -> Result<Self, SandboxError> {
        let own = Own::new(&policy).map_err(SandboxError::Policy)?;
        let root_user = rustix::process::geteuid().is_root();
        let view =
            View::resolve(&policy, &own.tmp(), &own.layers(), root_user).map_err(SandboxError::Policy)?;
        let foreign = {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(&policy.root).is_ok_and(|m| m.uid() != rustix::process::geteuid().as_raw())
        };
        if launcher.is_empty() {
            return Err(SandboxError::Setup("no launcher was given".into()));
        }
        let user_namespace = !(root_user && foreign);
        let probed = tokio::sync::OnceCell::new();
        Ok(Self(Arc::new(Inner { policy, launcher, view, user_namespace, probed, _own: own })))
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// The work tree, as an absolute path without symbolic links: the one that programs in it see.
    #[must_use]
    pub fn root(&self) -> &Path {
        Path::new(&self.0.view.root)
    }

    pub(crate) fn launcher(&self) -> &[OsString] {
        &self.0.launcher
    }

    /// Whether commands reach the policy's hosts, through the agent's proxy.
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

    /// The policy's environment, and what follows from the confinement: where temporary files go, and that there is no network to wait for.
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
        let warm = |cache: &OsString| Path::new(cache).ends_with(".cache/go-build");
        if !self.0.view.caches.iter().any(warm) || report.read_only_caches.iter().any(warm) {
            let mut go_cache = tmp.clone();
            go_cache.push("/go-build");
            set("GOCACHE", go_cache);
        }
        if profile.seccomp {
            // The leak checker of sanitizers traces its own process.
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

    /// Where programs find the proxy, and what they reach without it: their own servers, unless that name was given to a host.
    fn proxy_variables(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let direct = ["localhost", "127.0.0.1", "::1"];
        let direct = direct.into_iter().filter(|name| !self.0.policy.hosts.iter().any(|host| host.is(name)));
        let direct = direct.collect::<Vec<_>>().join(",");
        let both = |name: &str, value: &str| {
            [(name.to_lowercase().into(), value.into()), (name.into(), value.into())]
        };
        let way = format!("http://127.0.0.1:{}", proxy::PORT);
        PROXY_VARIABLES
            .into_iter()
            .flat_map(move |name| both(name, if name == NO_PROXY { &direct } else { &way }))
    }
}

const NO_PROXY: &str = "NO_PROXY";

/// Variables that tell programs of a proxy; each exists in small letters too.
const PROXY_VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", NO_PROXY];
