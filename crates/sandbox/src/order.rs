//! The messages that the sandbox and its launcher exchange over a Unix socket, which is the
//! launcher's standard input.
//!
//! The sandbox sends the length of an [`Order`] (4 bytes, little endian), the order as JSON, and
//! then one-byte messages, currently only [`TERMINATE`]. When the sandbox closes the socket, the
//! launcher kills everything. The launcher sends one JSON [`Event`] per line.

use std::ffi::OsString;

use crate::{Network, ResourceLimits, census::Excess, view::View};

/// Makes the launcher send SIGTERM to the command's process group.
pub(crate) const TERMINATE: u8 = b'T';

/// The maximum size of an order, in bytes. This is plenty for an environment, which the kernel
/// limits to about 2 MiB.
pub(crate) const MAX_ORDER: usize = 32 << 20;

/// The mechanisms that confine a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Profile {
    /// Private user, mount, PID, network and IPC namespaces.
    pub(crate) namespaces: bool,
    /// Bubblewrap creates the namespaces, and the launcher starts inside them.
    pub(crate) bubblewrap: bool,
    /// Landlock rules for files, and for TCP if there is no network namespace.
    pub(crate) landlock: bool,
    /// A seccomp filter. Without a network namespace, this filter blocks IP sockets, unless the
    /// policy leaves the network unrestricted.
    pub(crate) seccomp: bool,
}

/// A task for the launcher, and everything that the launcher needs to know to perform it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) profile: Profile,
    pub(crate) view: View,
    pub(crate) network: Network,
    /// Create the proxy's socket and hand it to the agent.
    pub(crate) proxy: bool,
    pub(crate) limits: ResourceLimits,
    /// Create a user namespace. False if root works in another user's work tree, because root would
    /// then lose access to it.
    pub(crate) user_namespace: bool,
    pub(crate) task: Task,
}

/// What a launcher does.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) enum Task {
    /// Run a program. If `input` is true, the order is followed by a message with the descriptor
    /// for the program's standard input.
    Run { program: OsString, args: Vec<OsString>, cwd: OsString, env: Vec<(OsString, OsString)>, input: bool },
    /// Try the actions that the confinement must prevent.
    SelfTest { forbidden_write: OsString, forbidden_read: OsString, tcp: u16, udp: u16 },
    /// Instead of confining anything, check whether an overlay can be created and used. If it can,
    /// the launcher reports [`Event::Exited`] with code 0, and otherwise [`Event::Setup`].
    Overlay { root: OsString, dir: OsString },
}

/// A report from the launcher.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Event {
    /// The proxy's socket is ready. Its descriptor comes with this line, and another event follows.
    Listening,
    /// The confinement could not be set up, so nothing was run.
    Setup(String),
    /// The confinement is in place, but the program could not be started.
    NotStarted { missing: bool, why: String },
    /// Which forbidden actions succeeded in the self-test, and which caches could not be written
    /// to.
    Tested { violations: Vec<String>, read_only_caches: Vec<OsString> },
    /// The command exited with this code.
    Exited(i32),
    /// A signal terminated the command.
    Signaled(i32),
    /// The command was killed because it exceeded a limit.
    Exceeded(Excess),
}
