//! How a process is confined: namespaces, mounts, Landlock, limits and capabilities, in the order in which the launcher applies them.
//!
//! Landlock decides which files can be opened. The mounts do what it cannot: `.git` read-only inside a writable tree, no `chmod` or
//! `utime` outside, an own `/tmp`, `/proc` and `/dev/shm`, and no way to socket files of other programs.

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
    launcher::Doing,
    order::{Order, Profile},
    probe::UNIX_SOCKETS,
    sys,
    syscalls::{self, Surroundings},
    view::View,
};

/// Processes and threads that a user may have beside a command's.
const OTHERS: u64 = 8_192;

/// Devices that any program may use.
const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// What the command keeps of root's powers: those over files, so that a container's root can work on files of other users.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// The supervisor's part: new namespaces, of which the process namespace begins with its first child.
pub(crate) fn enter_namespaces(order: &Order) -> io::Result<()> {
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let mut flags = UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
    if order.network != Network::Full {
        flags |= UnshareFlags::NEWNET;
    }
    if order.user_namespace {
        flags |= UnshareFlags::NEWUSER;
    }
    sys::unshare(flags).doing("namespaces")?;
    if order.user_namespace {
        fs::write("/proc/self/setgroups", "deny").doing("setgroups")?;
        fs::write("/proc/self/uid_map", format!("{user} {user} 1")).doing("uid_map")?;
        fs::write("/proc/self/gid_map", format!("{group} {group} 1")).doing("gid_map")?;
    }
    if order.network == Network::Loopback {
        raise_loopback().doing("loopback")?;
    }
    Ok(())
}

/// Sets the loopback interface up, by a netlink message (rtnetlink(7), RTM_NEWLINK).
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
        None => Err(io::Error::other("netlink answered too short")),
    }
}

/// A part of the file system that will be shown again after what lies over it has been hidden.
pub(crate) struct Kept<'a> {
    tree: OwnedFd,
    at: &'a OsStr,
    is_dir: bool,
}

fn keep(at: &OsStr) -> io::Result<Option<Kept<'_>>> {
    Kept::of(at, at)
}

impl<'a> Kept<'a> {
    /// What is at `from` now, to be shown at `at`; nothing if there is nothing.
    pub(crate) fn of(from: &OsStr, at: &'a OsStr) -> io::Result<Option<Self>> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        match open_tree(CWD, from, flags) {
            Ok(tree) => Ok(Some(Self { tree, at, is_dir: Path::new(from).is_dir() })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e).doing(&from.to_string_lossy()),
        }
    }

    fn attach(&self, at: &OsStr) -> io::Result<()> {
        move_mount(&self.tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .doing(&at.to_string_lossy())
    }
}

/// Init's part: a mount namespace in which only what is in the view can be seen in the directories that programs share.
pub(crate) fn arrange(order: &Order) -> io::Result<()> {
    let view = &order.view;
    sys::unshare(UnshareFlags::NEWNS).doing("mount namespace")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .doing("mount propagation")?;
    let temporary = || keep(&view.tmp)?.ok_or(io::ErrorKind::NotFound).doing("the temporary directory");
    let (tmp, lasting_tmp) = (temporary()?, temporary()?);
    let caches = caches::lay(order);
    let shown: Vec<_> = view.write.iter().map(|p| keep(p)).collect::<Result<_, _>>()?;
    let hidden = |path: &OsStr| view.hide.iter().any(|dir| Path::new(path).starts_with(dir));
    let readable = view.read.iter().chain(&view.protect);
    let readable: Vec<_> = readable
        .filter(|p| hidden(p) && !caches.iter().any(|c| c.at == p.as_os_str()))
        .map(|p| keep(p))
        .collect::<Result<_, _>>()?;
    let protected: Vec<_> = view.protect.iter().map(|p| keep(p)).collect::<Result<_, _>>()?;

    sys::mount_read_only(CWD, c"/", true).doing("making mounts read-only")?;
    // A container may forbid this; the outer /proc then stays, and Landlock keeps other processes' secrets unreadable.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("proc", "/proc", "proc", flags, None).is_ok() {
        limit_processes(order);
        if !order.profile.landlock {
            // Root of a user namespace could change the whole machine's settings there.
            sys::mount_read_only(CWD, c"/proc", false).doing("making /proc read-only")?;
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
            .doing(&dir.to_string_lossy())?;
    }
    if view.hide.iter().any(|dir| dir == "/var") {
        let kept = Kept { at: OsStr::new("/var/tmp"), ..lasting_tmp };
        make_place(&kept)?;
        kept.attach(kept.at)?;
    }
    for kept in readable.iter().flatten() {
        make_place(kept)?;
        sys::mount_read_only(kept.tree.as_fd(), c"", true).doing("making a directory read-only")?;
        kept.attach(kept.at)?;
    }
    for kept in shown.iter().flatten().chain(&caches) {
        make_place(kept)?;
        kept.attach(kept.at)?;
    }
    for kept in protected.iter().flatten() {
        sys::mount_read_only(kept.tree.as_fd(), c"", true).doing("protecting .git")?;
        kept.attach(kept.at)?;
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
        // What stands for something hidden is empty, and stays so.
        let own = ["/tmp", "/var/tmp", "/dev/shm"];
        let emptied = view.hide.iter().map(OsString::as_os_str).filter(|dir| !own.iter().any(|o| dir == o));
        for dir in emptied.chain([OsStr::new("/dev")]) {
            sys::mount_read_only(CWD, &CString::new(dir.as_encoded_bytes())?, false)
                .doing("making a directory read-only")?;
        }
    }
    Ok(())
}

/// The highest process number: a setting of each process namespace from Linux 6.14 on. Before, it was the machine's.
fn limit_processes(order: &Order) {
    /// Numbers that the kernel gives only once, and the least it takes for the highest.
    const RESERVED: u64 = 301;
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']).map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) >= (6, 14)
    {
        let _ = fs::write("/proc/sys/kernel/pid_max", (order.limits.processes + RESERVED).to_string());
    }
}

/// Puts something empty in front of a file or directory.
fn mask(path: &OsStr) -> io::Result<()> {
    if Path::new(path).is_dir() {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
        return mount("tmpfs", path, "tmpfs", flags, c"mode=755").doing(&path.to_string_lossy());
    }
    match keep(OsStr::new("/dev/null"))? {
        Some(null) => null.attach(path),
        None => Err(io::Error::other("there is no /dev/null")),
    }
}

/// A place to attach to, in case it was hidden.
fn make_place(kept: &Kept<'_>) -> io::Result<()> {
    let place = Path::new(kept.at);
    if place.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).doing(&parent.to_string_lossy())?;
    }
    if kept.is_dir { fs::create_dir(place) } else { File::create(place).map(drop) }
        .doing(&place.to_string_lossy())
}

/// Only the devices that any program may use; which others can be opened is otherwise Landlock's to say.
fn own_devices() -> io::Result<()> {
    let kept: Vec<_> = DEVICES.iter().map(|dev| keep(OsStr::new(dev))).collect::<Result<_, _>>()?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("tmpfs", "/dev", "tmpfs", flags, c"mode=755,size=64k").doing("/dev")?;
    for device in kept.iter().flatten() {
        make_place(device)?;
        device.attach(device.at)?;
    }
    ["/dev/pts", "/dev/shm"].iter().try_for_each(fs::create_dir).doing("/dev")?;
    File::create("/dev/ptmx").doing("/dev")?;
    for (at, to) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        std::os::unix::fs::symlink(format!("/proc/self/fd{to}"), format!("/dev/{at}")).doing("/dev")?;
    }
    Ok(())
}

/// An own set of pseudo-terminals: programs that need one find it, and nobody else's can be written to.
fn own_terminals() {
    let options = c"newinstance,ptmxmode=0666,mode=620";
    if mount("devpts", "/dev/pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, options).is_ok()
        && let Ok(Some(ptmx)) = keep(OsStr::new("/dev/pts/ptmx"))
    {
        let _ = ptmx.attach(OsStr::new("/dev/ptmx"));
    }
}

/// The command's part, just before it becomes the program.
pub(crate) fn restrict(order: &Order) -> io::Result<()> {
    let limits = &order.limits;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, limits.file_size)?;
    limit(Resource::Nofile, limits.open_files)?;
    // SIGXCPU says what happened; SIGKILL follows for who ignores it.
    limit(Resource::Cpu, limits.cpu_seconds.saturating_add(2))?;
    let hard = getrlimit(Resource::Cpu).maximum;
    let soft = Rlimit { current: Some(hard.unwrap_or(u64::MAX).min(limits.cpu_seconds)), maximum: hard };
    setrlimit(Resource::Cpu, soft).doing("setting a resource limit")?;
    // Counted per user namespace; elsewhere with everything else this user runs.
    let own_users = order.profile.namespaces && !order.profile.bubblewrap && order.user_namespace;
    let others = if own_users { 0 } else { OTHERS };
    limit(Resource::Nproc, limits.processes.saturating_add(others))?;
    let confined = order.profile != Profile::default();
    if confined && capabilities(None).doing("capabilities")?.effective.contains(CapabilitySet::SETPCAP) {
        drop_capabilities()?;
    }
    if order.profile.landlock {
        landlock(order)?;
    } else if order.profile.namespaces {
        rustix::thread::set_no_new_privs(true).doing("no_new_privs")?;
    }
    sys::close_descriptors_on_exec().doing("close_range")?;
    if order.profile.seccomp {
        syscalls::refuse(surroundings(order))?;
    }
    Ok(())
}

/// Without namespaces, what the filter does not stop reaches the machine's network, and any Unix socket that Landlock does not know of.
fn surroundings(order: &Order) -> Surroundings {
    let namespaces = order.profile.namespaces;
    let landlock = order.profile.landlock && sys::landlock_abi() >= Some(UNIX_SOCKETS);
    Surroundings {
        namespaces,
        internet: order.network == Network::Full || (namespaces && order.network == Network::Loopback),
        unix: namespaces || landlock,
    }
}

/// Lowers a limit; never raises one.
fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let current = getrlimit(resource);
    let lower = |old: Option<u64>| Some(old.map_or(value, |old| old.min(value)));
    let new = Rlimit { current: lower(current.current), maximum: lower(current.maximum) };
    setrlimit(resource, new).doing("setting a resource limit")
}

fn drop_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {} // this kernel does not know it
            Err(e) => return Err(e).doing("dropping capabilities"),
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
    // Rules cannot take away what a rule for a parent gives: where nothing can be mounted over secrets, /etc is given file by file.
    let leave_out = !order.profile.namespaces && !secrets.is_empty();
    let etc: Vec<OsString> = if leave_out {
        let entries = fs::read_dir("/etc").doing("/etc")?.flatten().map(|e| e.path().into_os_string());
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
                // What has gone since the view was made needs no rule.
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
