//! Confines a process with namespaces, mounts, limits, capabilities and Landlock. The launcher
//! applies them in this order.
//!
//! Landlock determines which files can be opened. Mounts do what Landlock cannot: they keep `.git`
//! read-only inside a writable tree, prevent `chmod` and `utime` outside the writable directories,
//! provide a private `/tmp`, `/proc` and `/dev/shm`, and hide the socket files of other programs.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::{
    fs::CWD,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
        open_tree,
    },
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
    process::{Resource, Rlimit, getgid, getrlimit, getuid, setrlimit},
    thread::{CapabilitySet, UnshareFlags, capabilities},
};

use crate::{
    Network, caches,
    launcher::Context,
    order::{Order, Profile},
    probe::UNIX_SOCKETS,
    sys,
    syscalls::{self, Mechanisms},
    view::View,
};

/// How much to add to the process limit if the kernel's count also includes the user's other
/// processes and threads.
const OTHER_PROCESSES: u64 = 8_192;

/// Devices that any program may use.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The capabilities that root keeps, which give access to other users' files.
const KEPT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Enters new namespaces. Runs in the supervisor, whose first child is then in the new PID
/// namespace.
pub(crate) fn enter_namespaces(order: &Order) -> io::Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let mut flags = UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
    if order.network != Network::Full {
        flags |= UnshareFlags::NEWNET;
    }
    if order.user_namespace {
        flags |= UnshareFlags::NEWUSER;
    }
    sys::unshare(flags).context("namespaces")?;
    if order.user_namespace {
        fs::write("/proc/self/setgroups", "deny").context("setgroups")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1")).context("uid_map")?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1")).context("gid_map")?;
    }
    if order.network == Network::Loopback {
        raise_loopback().context("loopback")?;
    }
    Ok(())
}

/// Brings the loopback interface up with a netlink message (rtnetlink(7), RTM_NEWLINK).
fn raise_loopback() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    const LOOPBACK_INDEX: i32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes()); // nlmsghdr: length, type, flags, sequence, port
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0; 4]); // ifinfomsg: family, padding, device type, index, flags, which flags
    message.extend(LOOPBACK_INDEX.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 64];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    match answer[..length].get(16..20).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]])) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the netlink answer is too short")),
    }
}

/// A detached copy of the mounts at a path, which is reattached once the directories around it are
/// hidden.
pub(crate) struct Detached<'a> {
    tree: OwnedFd,
    at: &'a OsStr,
    is_dir: bool,
}

fn detach(at: &OsStr) -> io::Result<Option<Detached<'_>>> {
    Detached::of(at, at)
}

impl<'a> Detached<'a> {
    /// Copies the mounts at `from` so that they can be attached at `at`. Returns `None` if `from`
    /// does not exist.
    pub(crate) fn of(from: &OsStr, at: &'a OsStr) -> io::Result<Option<Self>> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        match open_tree(CWD, from, flags) {
            Ok(tree) => Ok(Some(Self { tree, at, is_dir: Path::new(from).is_dir() })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e).context(&from.to_string_lossy()),
        }
    }

    fn attach(&self, at: &OsStr) -> io::Result<()> {
        move_mount(&self.tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .context(&at.to_string_lossy())
    }
}

/// Enters a mount namespace in which shared directories, such as `/home`, show only the paths in
/// the view. Runs in init.
pub(crate) fn arrange(order: &Order) -> io::Result<()> {
    let view = &order.view;
    sys::unshare(UnshareFlags::NEWNS).context("mount namespace")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("mount propagation")?;
    let temporary = || detach(&view.tmp)?.ok_or(io::ErrorKind::NotFound).context("the temporary directory");
    let (tmp, lasting_tmp) = (temporary()?, temporary()?);
    let caches = caches::mount_overlays(order);
    let shown: Vec<_> = view.write.iter().map(|p| detach(p)).collect::<Result<_, _>>()?;
    let hidden = |path: &OsStr| view.hide.iter().any(|dir| Path::new(path).starts_with(dir));
    let readable = view.read.iter().chain(&view.protect);
    let readable: Vec<_> = readable
        .filter(|p| hidden(p) && !caches.iter().any(|c| c.at == p.as_os_str()))
        .map(|p| detach(p))
        .collect::<Result<_, _>>()?;
    let protected: Vec<_> = view.protect.iter().map(|p| detach(p)).collect::<Result<_, _>>()?;

    sys::mount_read_only(CWD, c"/", true).context("making mounts read-only")?;
    // A container may forbid mounting /proc. In that case, Landlock keeps secrets in the outer
    // /proc unreadable.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("proc", "/proc", "proc", flags, None).is_ok() {
        limit_processes(order);
        if !order.profile.landlock {
            // The root user of a user namespace could change machine-wide settings in /proc.
            sys::mount_read_only(CWD, c"/proc", false).context("making /proc read-only")?;
        }
    }
    if !order.profile.landlock {
        own_devices()?;
    }
    let shared_memory = CString::new(format!("mode=1777,size={}", order.limits.memory / 2))?;
    for dir in &view.hide {
        if dir == "/tmp" && tmp.attach(dir).is_ok() {
            continue;
        }
        let options = match dir.to_str() {
            Some("/dev/shm") => &shared_memory,
            Some("/tmp" | "/var/tmp") => c"mode=1777",
            _ => c"mode=755,size=1m",
        };
        mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options)
            .context(&dir.to_string_lossy())?;
    }
    if view.hide.iter().any(|dir| dir == "/var") {
        let mount_tree = Detached { at: OsStr::new("/var/tmp"), ..lasting_tmp };
        make_mount_point(&mount_tree)?;
        mount_tree.attach(mount_tree.at)?;
    }
    for mount_tree in readable.iter().flatten() {
        make_mount_point(mount_tree)?;
        sys::mount_read_only(mount_tree.tree.as_fd(), c"", true).context("making a directory read-only")?;
        mount_tree.attach(mount_tree.at)?;
    }
    for mount_tree in shown.iter().flatten().chain(&caches) {
        make_mount_point(mount_tree)?;
        mount_tree.attach(mount_tree.at)?;
    }
    for mount_tree in protected.iter().flatten() {
        sys::mount_read_only(mount_tree.tree.as_fd(), c"", true).context("protecting .git")?;
        mount_tree.attach(mount_tree.at)?;
    }
    for (at, to) in view.links.iter().filter(|(at, _)| hidden(at)) {
        let place = Path::new(at);
        if let Some(parent) = place.parent() {
            let _ = fs::create_dir_all(parent);
        }
        let _ = std::os::unix::fs::symlink(to, place);
    }
    view.secrets.iter().try_for_each(|p| mask(p))?;
    own_terminals();
    if !order.profile.landlock {
        // The empty directories that replace hidden ones must not be writable.
        let own = ["/tmp", "/var/tmp", "/dev/shm"];
        let emptied = view.hide.iter().map(OsString::as_os_str).filter(|dir| !own.iter().any(|o| dir == o));
        for dir in emptied.chain([OsStr::new("/dev")]) {
            sys::mount_read_only(CWD, &CString::new(dir.as_encoded_bytes())?, false)
                .context("making a directory read-only")?;
        }
    }
    Ok(())
}

/// Limits the highest process ID in the PID namespace. Does nothing on kernels before Linux 6.14,
/// where the whole machine shares one limit.
fn limit_processes(order: &Order) {
    /// The lowest limit that the kernel accepts. It is added to the process limit, because the
    /// kernel does not reuse the lowest 300 or so process IDs (`RESERVED_PIDS`).
    const RESERVED: u64 = 301;
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']).map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) >= (6, 14)
    {
        let _ = fs::write("/proc/sys/kernel/pid_max", (order.limits.processes + RESERVED).to_string());
    }
}

/// Covers a file or directory with an empty one.
fn mask(path: &OsStr) -> io::Result<()> {
    if Path::new(path).is_dir() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
        return mount("tmpfs", path, "tmpfs", flags, c"mode=755").context(&path.to_string_lossy());
    }
    match detach(OsStr::new("/dev/null"))? {
        Some(null) => null.attach(path),
        None => Err(io::Error::other("there is no /dev/null")),
    }
}

/// Creates the mount point if it disappeared because the directory above it was hidden.
fn make_mount_point(mount_tree: &Detached<'_>) -> io::Result<()> {
    let place = Path::new(mount_tree.at);
    if place.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).context(&parent.to_string_lossy())?;
    }
    if mount_tree.is_dir { fs::create_dir(place) } else { File::create(place).map(drop) }
        .context(&place.to_string_lossy())
}

/// Replaces `/dev` with the devices that any program may use. Not needed with Landlock, whose rules
/// allow only these devices.
fn own_devices() -> io::Result<()> {
    let mount_tree: Vec<_> = DEVICES.iter().map(|dev| detach(OsStr::new(dev))).collect::<Result<_, _>>()?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "/dev", "tmpfs", flags, c"mode=755,size=64k").context("/dev")?;
    for device in mount_tree.iter().flatten() {
        make_mount_point(device)?;
        device.attach(device.at)?;
    }
    ["/dev/pts", "/dev/shm"].iter().try_for_each(fs::create_dir).context("/dev")?;
    File::create("/dev/ptmx").context("/dev")?;
    for (at, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        std::os::unix::fs::symlink(format!("/proc/self/fd{to}"), format!("/dev/{at}")).context("/dev")?;
    }
    Ok(())
}

/// Mounts private pseudo-terminals. A program that needs a pseudo-terminal gets one, but cannot
/// write to any other terminal.
fn own_terminals() {
    let options = c"newinstance,ptmxmode=0666,mode=620";
    if mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, options).is_ok()
        && let Ok(Some(ptmx)) = detach(OsStr::new("/dev/pts/ptmx"))
    {
        let _ = ptmx.attach(OsStr::new("/dev/ptmx"));
    }
}

/// Restricts the command's process. Runs in that process just before it executes the program.
pub(crate) fn restrict(order: &Order) -> io::Result<()> {
    let limits = &order.limits;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, limits.file_size)?;
    limit(Resource::Nofile, limits.open_files)?;
    // SIGXCPU warns the program; SIGKILL follows if the program ignores the warning.
    limit(Resource::Cpu, limits.cpu_seconds.saturating_add(2))?;
    let hard = getrlimit(Resource::Cpu).maximum;
    let soft = Rlimit { current: Some(hard.unwrap_or(u64::MAX).min(limits.cpu_seconds)), maximum: hard };
    setrlimit(Resource::Cpu, soft).context("setting a resource limit")?;
    // The kernel counts processes per user namespace. If the command does not have its own user
    // namespace, the count includes everything else that the user is running.
    let own_users = order.profile.namespaces && !order.profile.bubblewrap && order.user_namespace;
    let others = if own_users { 0 } else { OTHER_PROCESSES };
    limit(Resource::Nproc, limits.processes.saturating_add(others))?;
    let confined = order.profile != Profile::default();
    if confined && capabilities(None).context("capabilities")?.effective.contains(CapabilitySet::SETPCAP) {
        drop_capabilities()?;
    }
    if order.profile.landlock {
        landlock(order)?;
    } else if order.profile.namespaces {
        rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    }
    sys::close_descriptors_on_exec().context("close_range")?;
    if order.profile.seccomp {
        syscalls::refuse(mechanisms(order))?;
    }
    Ok(())
}

/// Returns the mechanisms that the seccomp filter can rely on. Without namespaces, a socket that
/// the filter allows can reach the machine's network or any Unix socket that Landlock does not
/// cover.
fn mechanisms(order: &Order) -> Mechanisms {
    let namespaces = order.profile.namespaces;
    let landlock = order.profile.landlock && sys::landlock_abi() >= Some(UNIX_SOCKETS);
    Mechanisms {
        namespaces,
        internet: order.network == Network::Full || (namespaces && order.network == Network::Loopback),
        unix: namespaces || landlock,
    }
}

/// Lowers a limit, but never raises it.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let current = getrlimit(resource);
    let lower = |old: Option<u64>| Some(old.map_or(value, |old| old.min(value)));
    let new = Rlimit { current: lower(current.current), maximum: lower(current.maximum) };
    setrlimit(resource, new).context("setting a resource limit")
}

fn drop_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().difference(KEPT_CAPABILITIES).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {} // unknown to this kernel
            Err(e) => return Err(e).context("dropping capabilities"),
        }
    }
    Ok(())
}

fn landlock(order: &Order) -> io::Result<()> {
    const KNOWN: ABI = ABI::V10;
    let View { tmp, read, write, secrets, .. } = &order.view;
    let caches =
        if order.profile.namespaces && !order.profile.bubblewrap { &order.view.caches[..] } else { &[] };
    let read_access = AccessFs::from_read(KNOWN);
    let write_access = AccessFs::from_all(KNOWN) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let file_access = AccessFs::from_file(KNOWN);
    let own = if order.profile.namespaces {
        &["/tmp", "/var/tmp", "/dev/shm", "/dev/pts", "/dev/ptmx"][..]
    } else {
        &[]
    };
    // No rule can revoke what a parent directory's rule grants, so grant access to /etc file by
    // file.
    let leave_out = !order.profile.namespaces && !secrets.is_empty();
    let etc: Vec<OsString> = if leave_out {
        let entries = fs::read_dir("/etc").context("/etc")?.flatten().map(|e| e.path().into_os_string());
        entries.filter(|path| !secrets.contains(path)).collect()
    } else {
        Vec::new()
    };

    let rules = || -> Result<RulesetStatus, landlock::RulesetError> {
        let mut ruleset =
            Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
        if !order.profile.namespaces && order.network != Network::Full {
            ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?;
        }
        let mut ruleset = ruleset.create()?;
        let writable = write
            .iter()
            .map(OsStr::new)
            .chain(DEVICES.iter().chain(own).map(OsStr::new))
            .chain(caches.iter().map(OsStr::new))
            .chain([tmp.as_os_str()]);
        let groups = [
            (
                read.iter().map(OsStr::new).filter(|p| !(leave_out && *p == "/etc")).collect::<Vec<_>>(),
                read_access,
            ),
            (etc.iter().map(OsStr::new).collect(), read_access),
            (leave_out.then_some(OsStr::new("/etc")).into_iter().collect(), AccessFs::ReadDir.into()),
            (writable.collect(), write_access),
        ];
        for (paths, access) in groups {
            for path in paths {
                // A path that no longer exists does not need a rule.
                let Ok(fd) = PathFd::new(path) else { continue };
                let access = if Path::new(path).is_dir() { access } else { access & file_access };
                ruleset = ruleset.add_rule(PathBeneath::new(fd, access))?;
            }
        }
        Ok(ruleset.restrict_self()?.ruleset)
    };
    match rules() {
        Ok(RulesetStatus::NotEnforced) => Err(io::Error::other("the kernel has no Landlock")),
        Ok(_) => Ok(()),
        Err(e) => Err(io::Error::other(format!("Landlock: {e}"))),
    }
}
