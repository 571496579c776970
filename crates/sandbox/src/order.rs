//! What travels between the sandbox and its launcher, over one Unix socket that is the launcher's standard input.
//!
//! To the launcher: a length (4 bytes, little endian) and an [`Order`] as JSON; then single bytes, [`TERMINATE`] being the only one.
//! The end of that stream means: kill everything. From the launcher: one JSON [`Event`] per line.

use std::ffi::OsString;

use crate::{Network, ResourceLimits, census::Excess, view::View};

/// Ask the command's process group to end.
pub(crate) const TERMINATE: u8 = b'T';

/// The largest order that is read: generous for environments, which the kernel bounds to about 2 MiB.
pub(crate) const MAX_ORDER: usize = 32 << 20;

/// How strong the confinement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Profile {
    /// Own user, mount, process, network and IPC namespaces.
    pub(crate) namespaces: bool,
    /// They are made by bubblewrap, and the launcher is in them from the start.
    pub(crate) bubblewrap: bool,
    /// Landlock rules for files, and for TCP where there is no network namespace.
    pub(crate) landlock: bool,
    /// A seccomp filter; where there is no network namespace it is what keeps packets in.
    pub(crate) seccomp: bool,
}

/// One command and everything the launcher needs to know about it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) profile: Profile,
    pub(crate) view: View,
    pub(crate) network: Network,
    /// Make the socket of the proxy and hand it over.
    pub(crate) proxy: bool,
    pub(crate) limits: ResourceLimits,
    /// Map the agent's own user into a user namespace. Not done for root working on files of others, who would lose its rights.
    pub(crate) user_namespace: bool,
    pub(crate) task: Task,
}

/// What is done once the process is confined.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum Task {
    /// Run a program.
    Run { program: OsString, args: Vec<OsString>, cwd: OsString, env: Vec<(OsString, OsString)> },
    /// Try what must fail.
    SelfTest { forbidden_write: OsString, forbidden_read: OsString, tcp: u16, udp: u16 },
    /// Instead of all that, try whether an overlay can be made and used; ends with [`Event::Setup`] or exit code 0.
    Overlay { root: OsString, dir: OsString },
}

/// What the launcher reports.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Event {
    /// With this line comes the descriptor of the proxy's socket. Another event follows.
    Listening,
    /// The confinement could not be set up; nothing was run.
    Setup(String),
    /// The confinement stands; the program could not be started.
    NotStarted { missing: bool, why: String },
    /// What the self-test managed to do although it must not, and which caches it could not write.
    Tested { violations: Vec<String>, read_only_caches: Vec<OsString> },
    /// The command ended by itself.
    Exited(i32),
    /// The command was ended by a signal.
    Signaled(i32),
    /// The command was ended because it used too much.
    Exceeded(Excess),
}
