//! Determines what the sandbox can enforce on this system, verifies it from inside the sandbox, and
//! reports the result.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    time::Duration,
};

use crate::{
    Capture, Level, Network, OutputLimits, Sandbox, SandboxError, bubblewrap,
    command::End,
    order::{Event, Profile, Task},
    sys,
};

/// How long a self-test may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The first Landlock version that can refuse connections to Unix sockets by path.
pub(crate) const UNIX_SOCKETS: u32 = 9;

/// Confinement profiles, from strongest to weakest. A system call filter alone does not count as
/// confinement.
const PROFILES: [Profile; 7] = {
    const fn own(namespaces: bool, landlock: bool, seccomp: bool) -> Profile {
        Profile { namespaces, bubblewrap: false, landlock, seccomp }
    }
    [
        own(true, true, true),
        own(true, true, false),
        own(true, false, true),
        own(true, false, false),
        Profile { bubblewrap: true, ..own(true, true, true) },
        own(false, true, true),
        own(false, true, false),
    ]
};

/// A report on what the sandbox enforces.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Whether commands are confined.
    pub enforced: bool,
    /// The kernel's Landlock version, if it has Landlock.
    pub landlock_abi: Option<u32>,
    /// Whether user, PID, mount and network namespaces are in use.
    pub user_namespaces: bool,
    /// Whether seccomp blocks the system calls that could bypass the other mechanisms.
    pub seccomp: bool,
    /// Whether packets of all protocols are kept inside the sandbox.
    pub network_isolated: bool,
    /// Toolchain caches that are read-only for commands.
    pub read_only_caches: Vec<OsString>,
    /// Sentences that say what is and is not enforced.
    pub lines: Vec<String>,
    /// A one-line summary.
    pub summary: String,
}

impl Sandbox {
    /// Reports what is enforced. The first call runs the self-test, which takes about as long as a
    /// command; later calls return the same report.
    ///
    /// # Errors
    /// Fails if nothing can be enforced, or if the self-test breaks out of the confinement.
    pub async fn probe(&self) -> Result<&Report, SandboxError> {
        self.probed().await.map(|(_, report)| report)
    }

    /// Repeats the self-test, which tries a forbidden read, a forbidden write and forbidden
    /// connections.
    ///
    /// # Errors
    /// Same as [`Sandbox::probe`].
    pub async fn self_test(&self) -> Result<Report, SandboxError> {
        self.find_profile().await.map(|(_, report)| report)
    }

    pub(crate) async fn probed(&self) -> Result<&(Profile, Report), SandboxError> {
        self.0.probed.get_or_try_init(|| self.find_profile()).await
    }

    async fn find_profile(&self) -> Result<(Profile, Report), SandboxError> {
        let landlock_abi = sys::landlock_abi().filter(|_| !self.0.overrides.no_landlock);
        if self.policy().level == Level::Off {
            let lines = vec!["Commands are not confined: they can do anything you can.".to_owned()];
            let summary = "off; commands can do anything you can".to_owned();
            let report = Report { landlock_abi, lines, summary, ..Report::default() };
            return Ok((Profile::default(), report));
        }
        let mut reasons: Vec<String> = Vec::new();
        let bubblewrap = !self.0.overrides.no_bubblewrap && bubblewrap::find().is_some();
        let usable = |p: &Profile| {
            (landlock_abi.is_some() || !p.landlock)
                && (bubblewrap || !p.bubblewrap)
                && (p.namespaces || !self.proxied())
        };
        for profile in PROFILES.into_iter().filter(usable) {
            match self.try_profile(profile).await? {
                Trial::Refused(why) if reasons.contains(&why) => {}
                Trial::Refused(why) => reasons.push(why),
                Trial::Holds { network_isolated, read_only_caches } => {
                    let mut lines = self.lines(profile, network_isolated, landlock_abi, &reasons);
                    if !read_only_caches.is_empty() {
                        let names: Vec<_> = read_only_caches.iter().map(|p| p.to_string_lossy()).collect();
                        lines.push(format!("Read-only caches: {}.", names.join(", ")));
                    }
                    let report = Report {
                        enforced: true,
                        landlock_abi,
                        user_namespaces: profile.namespaces,
                        seccomp: profile.seccomp,
                        network_isolated,
                        read_only_caches,
                        lines,
                        summary: self.summary(profile, network_isolated, landlock_abi),
                    };
                    return Ok((profile, report));
                }
            }
        }
        if self.proxied() {
            return Err(SandboxError::Hosts(reasons.join("; ")));
        }
        if landlock_abi.is_none() {
            reasons.push("the kernel has no Landlock".into());
        }
        Err(SandboxError::Unavailable(reasons.join("; ")))
    }

    async fn try_profile(&self, profile: Profile) -> Result<Trial, SandboxError> {
        let io_error = |e: io::Error| SandboxError::Setup(format!("preparing the self-test: {e}"));
        let outside = tempfile::tempdir().map_err(io_error)?;
        let secret = outside.path().join("secret");
        std::fs::write(&secret, "secret").map_err(io_error)?;
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_error)?;
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_error)?;
        udp.set_nonblocking(true).map_err(io_error)?;
        let task = Task::SelfTest {
            forbidden_write: outside.path().join("written").into(),
            forbidden_read: secret.into(),
            tcp: tcp.local_addr().map_err(io_error)?.port(),
            udp: udp.local_addr().map_err(io_error)?.port(),
        };
        let capture = Capture::new(OutputLimits::default(), None);
        let launched = self.launch(&self.order(profile, task), capture, TIMEOUT).await?;
        let (mut violations, read_only_caches) = match launched.end {
            End::Event(Event::Tested { violations, read_only_caches }) => (violations, read_only_caches),
            End::Event(Event::Setup(why)) => return Ok(Trial::Refused(why)),
            End::Lost if profile.bubblewrap => {
                let output = launched.output.text();
                return Ok(Trial::Refused(format!(
                    "bubblewrap: {}",
                    output.lines().next().unwrap_or("failed without a message")
                )));
            }
            other => return Ok(Trial::Refused(format!("the self-test ended with {other:?}"))),
        };
        let open = self.policy().network == Network::Full;
        let connected = violations.iter().any(|v| v.contains("TCP"));
        let arrived = udp.recv(&mut [0; 8]).is_ok();
        // Without a network namespace or a filter, not every connection can be stopped. This is
        // reported, but the self-test does not fail.
        if open || !(profile.namespaces || profile.seccomp) {
            violations.retain(|v| !v.contains("TCP"));
        } else if arrived {
            violations.push("a UDP packet left the sandbox".into());
        }
        if violations.is_empty() {
            Ok(Trial::Holds { network_isolated: !open && !connected && !arrived, read_only_caches })
        } else {
            Err(SandboxError::Broken(violations.join("; ")))
        }
    }

    fn summary(&self, profile: Profile, isolated: bool, abi: Option<u32>) -> String {
        let landlock = abi.filter(|_| profile.landlock).map(|abi| format!("Landlock {abi}"));
        let by = [
            profile.namespaces.then(|| match profile.bubblewrap {
                true => "namespaces (bubblewrap)".to_owned(),
                false => "namespaces".to_owned(),
            }),
            landlock,
            profile.seccomp.then(|| "seccomp".to_owned()),
        ];
        let by = by.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let hosts: Vec<_> = self.policy().hosts.iter().map(ToString::to_string).collect();
        let network = match self.policy().network {
            Network::Full => "open".to_owned(),
            Network::Loopback if self.proxied() => hosts.join(", "),
            Network::Loopback if profile.namespaces => "private loopback".to_owned(),
            Network::None | Network::Loopback => "none".to_owned(),
        };
        let gaps = gaps(profile, isolated || self.policy().network == Network::Full, abi);
        let gaps =
            if gaps.is_empty() { String::new() } else { format!(" · not stopped: {}", gaps.join("; ")) };
        format!("{by} · network: {network}{gaps}")
    }

    fn lines(&self, profile: Profile, isolated: bool, abi: Option<u32>, refused: &[String]) -> Vec<String> {
        let policy = self.policy();
        let own_sockets = profile.namespaces || abi >= Some(UNIX_SOCKETS);
        let mut lines = Vec::new();
        lines.push(match (policy.read_only, profile.namespaces) {
            (true, _) => "Files: commands can read the system, toolchains and the work tree, and write to a private temporary directory.".to_owned(),
            (false, true) => "Files: commands can read the system, toolchains and the work tree, and write to the work tree (except .git) and a private temporary directory.".to_owned(),
            (false, false) => "Files: commands can read the system, toolchains and the work tree, and write to the work tree and a private temporary directory.".to_owned(),
        });
        let hosts: Vec<_> = policy.hosts.iter().map(ToString::to_string).collect();
        let hosts = format!(
            "Network: only {} can be reached, through the agent's proxy; loopback is private to the command.",
            hosts.join(", ")
        );
        lines.push(
            match (policy.network, isolated) {
                (Network::Full, _) => "Network: open, as requested.",
                (Network::Loopback, true) if self.proxied() => &hosts,
                (Network::None, true) => "Network: nothing can be reached, not even loopback.",
                (Network::Loopback, true) if profile.namespaces => {
                    "Network: nothing outside can be reached; loopback is private to the command."
                }
                (_, true) => {
                    "Network: nothing can be reached; a test that opens a socket fails, even on loopback."
                }
                (_, false) if abi.is_some_and(|v| v >= 4) => {
                    "Network: TCP is blocked, even on loopback; UDP and other protocols are NOT blocked."
                }
                (_, false) => "Network: NOT blocked.",
            }
            .to_owned(),
        );
        if profile.bubblewrap {
            lines.push(
                "Namespaces: created by bubblewrap, because this system refuses them to other programs."
                    .into(),
            );
        }
        if profile.namespaces {
            lines.push(
                "Processes: commands see and signal only their own processes, which all end with the command."
                    .into(),
            );
        } else {
            lines.push(
                "Processes: a command's processes are found and killed one by one; .git is writable.".into(),
            );
        }
        lines.push(
            match (profile.seccomp, own_sockets) {
                (true, true) => "System calls: tracing, mounts, namespaces, io_uring, keys, bpf and others that could bypass this are refused.",
                (true, false) => "System calls: tracing, mounts, namespaces, io_uring, keys, bpf, Unix sockets except pairs, and others that could bypass this are refused.",
                (false, true) => "System calls: NOT filtered.",
                (false, false) => "System calls: NOT filtered; other programs' sockets can be reached.",
            }
            .to_owned(),
        );
        match (profile.landlock, abi) {
            (true, Some(abi)) => lines.push(format!("Landlock: version {abi}.")),
            _ => lines
                .push("Landlock: not available; files outside the shared directories are readable.".into()),
        }
        let gaps = gaps(profile, isolated || policy.network == Network::Full, abi);
        if !gaps.is_empty() {
            lines.push(format!("Not stopped here: {}.", gaps.join("; ")));
        }
        lines.extend(refused.iter().map(|why| format!("Refused by this system: {why}.")));
        lines
    }
}

/// Returns the actions that this confinement lets through but the strongest one would stop.
fn gaps(profile: Profile, isolated: bool, abi: Option<u32>) -> Vec<&'static str> {
    let all = [
        (!isolated, "packets other than TCP"),
        (
            !profile.namespaces,
            "mode and time changes outside the work tree, writes to .git, listing processes",
        ),
        (!profile.landlock, "reading any file in /usr, /etc and /opt whose permissions allow it"),
        (
            profile.namespaces && abi < Some(UNIX_SOCKETS),
            "connections to Unix sockets in /usr, /etc and /opt",
        ),
        (!profile.seccomp, "system calls that bypass the rest"),
    ];
    all.into_iter().filter_map(|(gap, words)| gap.then_some(words)).collect()
}

enum Trial {
    Refused(String),
    Holds { network_isolated: bool, read_only_caches: Vec<OsString> },
}
