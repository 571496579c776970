//! The launcher is the agent's own binary, started again with a single thread. It confines a
//! process, which then becomes the command.
//!
//! There are three processes, so that no process of the command can be left behind:
//!
//! ```text
//! supervisor   waits for the agent; kills everything when told to, or when the agent is gone
//!  └─ init     process 1 of its namespace (or a subreaper): adopts every orphan, reports the end
//!      └─ command   confined, then replaced by the program
//! ```
//!
//! The supervisor exits only when it has no descendants left. Once it has exited, everything that
//! the command started is gone.

use std::{
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Command, ExitCode},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
    process::{
        Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, pidfd_open,
        set_child_subreaper, set_parent_process_death_signal, setsid, wait,
    },
};

use crate::{
    caches,
    census::{Census, processes},
    confine,
    order::{Event, MAX_ORDER, Order, TERMINATE, Task},
    overlay_probe, proxy, self_test,
    sys::{self, Fork},
};

/// Runs a launcher process. Call this function before anything else, while the process still has
/// only one thread, and return its exit code from `main`.
#[must_use]
pub fn launcher_main() -> ExitCode {
    let Ok(mut control) = take_control() else { return ExitCode::FAILURE };
    match supervise(&mut control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&control, &Event::Setup(e.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// Prefixes an error's message with the action that failed.
pub(crate) trait Context<T> {
    fn context(self, what: &str) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: &str) -> io::Result<T> {
        self.map_err(|e| {
            let e = e.into();
            io::Error::new(e.kind(), format!("{what}: {e}"))
        })
    }
}

/// Takes the agent's socket from standard input and replaces standard input with `/dev/null`.
fn take_control() -> io::Result<UnixStream> {
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(control))
}

fn read_order(control: &mut UnixStream) -> io::Result<Order> {
    let mut length = [0; 4];
    control.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_ORDER {
        return Err(io::Error::other("the order is too long"));
    }
    let mut order = vec![0; length];
    control.read_exact(&mut order)?;
    Ok(serde_json::from_slice(&order)?)
}

/// Receives the descriptor for the command's standard input, if the order announces one.
fn receive_input(control: &UnixStream, order: &Order) -> io::Result<Option<OwnedFd>> {
    let Task::Run { input: true, .. } = order.task else { return Ok(None) };
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let input = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    input.map(Some).ok_or_else(|| io::Error::other("the descriptor is missing"))
}

fn report(mut control: &UnixStream, event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        // If the agent is gone, no one needs the event.
        let _ = control.write_all(&line);
    }
}

/// Creates the proxy's socket in the command's network namespace and sends it to the agent.
fn hand_over_listener(control: &UnixStream) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, proxy::PORT))?;
    let mut line = serde_json::to_vec(&Event::Listening)?;
    line.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    rights.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(control, &[IoSlice::new(&line)], &mut rights, SendFlags::empty())?;
    Ok(())
}

/// Closes our copies of standard output and error. Otherwise, the agent would not see the end of
/// the command's output while this process is still running.
fn close_output() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn supervise(control: &mut UnixStream) -> io::Result<()> {
    let order = read_order(control).context("reading the order")?;
    let input = receive_input(control, &order).context("receiving standard input")?;
    if let Task::Overlay { root, dir } = &order.task {
        overlay_probe::check(root, dir)?;
        report(control, &Event::Exited(0));
        return Ok(());
    }
    if order.profile.namespaces {
        if !order.profile.bubblewrap {
            confine::enter_namespaces(&order)?;
        }
        if order.proxy {
            hand_over_listener(control).context("the proxy's socket")?;
        }
    } else if order.proxy {
        return Err(io::Error::other("the proxy needs a network namespace"));
    }
    let alone = order.profile.namespaces && !order.profile.bubblewrap;
    set_child_subreaper(Some(rustix::process::getpid())).context("becoming a subreaper")?;
    let init = match sys::fork().context("fork")? {
        Fork::Child => return init(control, &order, input),
        Fork::Parent(init) => init,
    };
    drop(input);
    close_output()?;
    let mut census = Census::new(std::process::id(), order.limits);
    drop(order);
    let ended = pidfd_open(init, PidfdFlags::empty()).context("pidfd_open")?;
    while !listen(control, &ended, init, census.wait())? {
        if let Some(excess) = census.look() {
            report(control, &Event::Exceeded(excess));
            break;
        }
    }
    // Sending SIGKILL to process 1 kills its namespace, and process 1 is not reaped until
    // everything in the namespace is dead.
    let _ = kill_process_group(init, Signal::KILL);
    let _ = kill_process(init, Signal::KILL);
    reap_all(!alone);
    Ok(())
}

/// Waits for a message from the agent, for `init` to end, or for the timeout. Returns true if the
/// supervisor should stop waiting and kill the remaining processes.
fn listen(control: &mut UnixStream, ended: &OwnedFd, init: Pid, timeout: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(&*control, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
    match poll(&mut fds, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => return Ok(false),
        other => other?,
    };
    let [said, over] = fds.map(|fd| !fd.revents().is_empty());
    if over {
        return Ok(true);
    }
    let mut byte = [0];
    match said.then(|| control.read(&mut byte)) {
        Some(Ok(1)) if byte[0] == TERMINATE => {
            let _ = kill_process_group(init, Signal::TERM);
            Ok(false)
        }
        Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

/// Reaps descendants until none are left. With `kill`, also kills this process's children. This is
/// unnecessary if the launcher created a PID namespace, because all processes in a namespace end
/// with its first one. The children of a killed process become children of this process, which
/// kills them next.
fn reap_all(kill: bool) {
    loop {
        // Reap processes that have already ended first, because searching `/proc` for children
        // takes longer.
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => continue,
            Ok(None) if kill => children().for_each(|pid| {
                let _ = kill_process(pid, Signal::KILL);
            }),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let _ = wait(WaitOptions::empty());
    }
}

/// Returns this process's children, according to `/proc`.
fn children() -> impl Iterator<Item = Pid> {
    let me = std::process::id();
    let mine = processes().filter(move |p| p.parent == me);
    mine.filter_map(|p| Pid::from_raw(i32::try_from(p.id).ok()?))
}

/// Runs as process 1 of the command's namespace. Starts the command, reaps processes, and reports
/// how the command ended.
fn init(control: &UnixStream, order: &Order, input: Option<OwnedFd>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("setting the parent-death signal")?;
    set_child_subreaper(Some(rustix::process::getpid())).context("becoming a subreaper")?;
    setsid().context("setsid")?;
    if order.profile.namespaces && !order.profile.bubblewrap {
        confine::arrange(order)?;
    }
    let command = match sys::fork().context("fork")? {
        Fork::Child => return become_command(control, order, input),
        Fork::Parent(pid) => pid,
    };
    drop(input);
    // SIGTERM is sent to the command's process group, which includes this process.
    sys::ignore_sigterm();
    close_output()?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => report_end(control, status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Ok(()), // no child is left
        }
    }
}

fn report_end(control: &UnixStream, status: WaitStatus) {
    if let Some(signal) = status.terminating_signal() {
        report(control, &Event::Signaled(signal));
    } else if let Some(code) = status.exit_status() {
        report(control, &Event::Exited(code));
    }
}

/// Confines this process and replaces it with the program.
fn become_command(control: &UnixStream, order: &Order, input: Option<OwnedFd>) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .context("setting the parent-death signal of the command")?;
    // If memory runs out, the kernel should kill commands first.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    if let Some(input) = input {
        rustix::stdio::dup2_stdin(&input).context("standard input")?;
    }
    confine::restrict(order)?;
    match &order.task {
        Task::Run { program, args, cwd, env, .. } => {
            let error = Command::new(program)
                .args(args)
                .current_dir(cwd)
                .env_clear()
                .envs(env.iter().cloned())
                .exec();
            report(
                control,
                &Event::NotStarted {
                    missing: error.kind() == io::ErrorKind::NotFound,
                    why: error.to_string(),
                },
            );
        }
        Task::SelfTest { forbidden_write, forbidden_read, tcp, udp } => {
            let filtered = order.profile.seccomp;
            let mut violations = self_test::attempt(forbidden_write, forbidden_read, *tcp, *udp, filtered);
            if order.proxy {
                violations.extend(self_test::attempt_proxy(*tcp));
            }
            let read_only_caches = caches::read_only(&order.view.caches);
            report(control, &Event::Tested { violations, read_only_caches });
        }
        // `supervise` handles this task before it confines anything.
        Task::Overlay { .. } => {}
    }
    Ok(())
}
