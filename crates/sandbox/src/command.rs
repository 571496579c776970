//! The lifecycle of a command: start it through the launcher, read its output, stop it, and wait
//! until it is gone.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, IoSlice, IoSliceMut, PipeReader, PipeWriter, Seek, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::PathBuf,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
    process::{Pid, Signal, kill_process_group},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, UnixStream, unix::pipe},
    process::Child,
    task::JoinSet,
    time::{Sleep, sleep},
};

use crate::{
    Capture, Captured, Level, OutputLimits, Sandbox, SandboxError, bubblewrap,
    census::Excess,
    home,
    order::{Event, Order, TERMINATE, Task},
    proxy::Proxy,
};

/// How long a command may take to terminate after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long a finished command's background processes may keep printing.
const LINGER: Duration = Duration::from_millis(200);

/// How long to keep reading the output of killed processes.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long killed processes may take to disappear. On a busy machine, this can take seconds. Only
/// a process that is stuck in the kernel exceeds this limit.
const GONE_TIMEOUT: Duration = Duration::from_secs(60);

/// The number of bytes to read at once, which is the capacity of a pipe.
const READ_SIZE: usize = 64 << 10;

/// A command to run.
#[derive(Debug, Clone)]
pub struct Command {
    /// The program: a path, or a name to look up in `PATH`.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// The directory to start in; defaults to the root of the work tree.
    pub cwd: Option<PathBuf>,
    /// Variables to add to the policy's, replacing any with the same name.
    pub env: Vec<(OsString, OsString)>,
    /// The text for its standard input; empty by default.
    pub input: String,
    /// How long it may run.
    pub timeout: Duration,
    /// How much of its output to keep.
    pub output: OutputLimits,
    /// A file to write all of its output to. Parent directories are created.
    pub log: Option<PathBuf>,
    /// Called with each piece of output as it arrives.
    pub echo: Option<fn(&[u8])>,
}

impl Command {
    /// Creates a command from a program and its arguments.
    pub fn new<S: Into<OsString>>(program: impl Into<OsString>, args: impl IntoIterator<Item = S>) -> Self {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            cwd: None,
            env: Vec::new(),
            input: String::new(),
            timeout: Duration::from_secs(120),
            output: OutputLimits::default(),
            log: None,
            echo: None,
        }
    }

    /// Creates a command from a line for `sh -c`.
    pub fn shell(line: impl Into<OsString>) -> Self {
        Self::new("/bin/sh", ["-c".into(), line.into()])
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exited(i32),
    /// It was terminated by a signal that the sandbox did not send.
    Signaled(i32),
    /// It was stopped because it exceeded its timeout.
    TimedOut,
    /// It was stopped because it printed too much.
    LimitReached,
    /// It was stopped because its processes together used too much memory.
    OutOfMemory,
    /// It was stopped because it had too many processes.
    TooManyProcesses,
}

impl Status {
    /// Whether it exited with 0.
    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Exited(0)
    }

    /// Returns the exit code as a shell reports it: 128 plus the signal's number if a signal
    /// terminated the command.
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(code),
            Self::Signaled(signal) => Some(128 + signal),
            Self::TimedOut | Self::LimitReached | Self::OutOfMemory | Self::TooManyProcesses => None,
        }
    }
}

/// The result of a command. The command and all of its processes have ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// Its standard output and standard error, in the order they were written.
    pub output: Captured,
    /// The time from start to end.
    pub duration: Duration,
    /// What the sandbox is known to have refused, one line each: writes below the home directory
    /// and, if the policy lists hosts, connections.
    pub refused: Vec<String>,
}

impl Sandbox {
    /// Runs a command to completion. Dropping the future kills the command and everything it
    /// started.
    ///
    /// # Errors
    /// Fails if the confinement cannot be set up. In that case, the agent's run must stop. Fails
    /// with [`SandboxError::Start`] if the program cannot be started, which is the caller's
    /// mistake.
    pub async fn run(&self, command: Command) -> Result<Finished, SandboxError> {
        let order = self.order_to_run(&command, !command.input.is_empty()).await?;
        let Command { program, input, timeout, output, log, echo, .. } = command;
        let input = (!input.is_empty()).then(|| in_memory(&input)).transpose();
        let input = input.map_err(|e| SandboxError::Setup(format!("standard input: {e}")))?;
        let capture = Capture::new(output, log.as_deref()).echoing(echo);
        let Launched { end, output, duration, network: mut refused } =
            self.launch_with(&order, capture, timeout, input).await?;
        let status = match end {
            End::Event(Event::Exited(code)) => Status::Exited(code),
            End::Event(Event::Signaled(signal)) => Status::Signaled(signal),
            End::TimedOut => Status::TimedOut,
            End::LimitReached => Status::LimitReached,
            End::Event(Event::Exceeded(Excess::Memory)) => Status::OutOfMemory,
            End::Event(Event::Exceeded(Excess::Processes)) => Status::TooManyProcesses,
            End::Event(Event::NotStarted { missing, why }) => {
                return Err(SandboxError::Start {
                    program: program.to_string_lossy().into_owned(),
                    missing,
                    why,
                });
            }
            End::Event(Event::Setup(why)) => return Err(SandboxError::Setup(why)),
            End::Event(Event::Tested { .. } | Event::Listening) => {
                return Err(SandboxError::Setup("the launcher is a different version".into()));
            }
            End::Lost => {
                return Err(SandboxError::Setup(
                    "the launcher exited without reporting how the command ended".into(),
                ));
            }
        };
        if !status.success() && self.policy().level == Level::On {
            refused.extend(home::refused(self.policy(), &output.text()));
        }
        Ok(Finished { status, output, duration, refused })
    }

    /// Creates the order to run a command.
    pub(crate) async fn order_to_run(&self, command: &Command, input: bool) -> Result<Order, SandboxError> {
        let (profile, report) = self.probed().await?;
        let mut env = self.environment(*profile, report);
        env.retain(|(name, _)| !command.env.iter().any(|(n, _)| n == name));
        env.extend(command.env.iter().cloned());
        let cwd = command.cwd.as_ref().map_or_else(|| self.root().into(), |cwd| cwd.clone().into_os_string());
        let (program, args) = (command.program.clone(), command.args.clone());
        Ok(self.order(*profile, Task::Run { program, args, cwd, env, input }))
    }

    /// Starts a launcher with this order and waits until the command and its output have ended.
    pub(crate) async fn launch(
        &self,
        order: &Order,
        capture: Capture,
        timeout: Duration,
    ) -> Result<Launched, SandboxError> {
        self.launch_with(order, capture, timeout, None).await
    }

    /// Same as [`Sandbox::launch`], but with a descriptor for standard input, which the order must
    /// announce.
    async fn launch_with(
        &self,
        order: &Order,
        capture: Capture,
        timeout: Duration,
        input: Option<OwnedFd>,
    ) -> Result<Launched, SandboxError> {
        let started = Instant::now();
        let mut running = self
            .start(order, capture, input)
            .await
            .map_err(|e| SandboxError::Setup(format!("starting the launcher: {e}")))?;
        let end = running.follow(timeout).await?;
        let network = running.proxy.map(|proxy| proxy.refusals()).unwrap_or_default();
        Ok(Launched { end, output: running.capture.finish(), duration: started.elapsed(), network })
    }

    /// Returns the command line that starts the launcher. If bubblewrap creates the namespaces, the
    /// launcher runs inside it.
    fn launcher_command(&self, order: &Order) -> io::Result<tokio::process::Command> {
        let [program, arguments @ ..] = self.launcher() else { return Err(io::ErrorKind::NotFound.into()) };
        if !order.profile.bubblewrap {
            let mut command = tokio::process::Command::new(program);
            command.args(arguments);
            return Ok(command);
        }
        // Inside bubblewrap, `/proc/self/exe` would refer to bubblewrap itself.
        let program = std::fs::canonicalize(program)?;
        let bubblewrap = bubblewrap::find().ok_or_else(|| io::Error::other("bubblewrap is not installed"))?;
        let mut command = tokio::process::Command::new(bubblewrap);
        command.args(bubblewrap::arguments(order, program.as_os_str())).args(arguments);
        Ok(command)
    }

    async fn start(&self, order: &Order, capture: Capture, input: Option<OwnedFd>) -> io::Result<Running> {
        let (reader, writer) = io::pipe()?;
        self.start_with(order, capture, reader, [writer.try_clone()?, writer], input).await
    }

    /// Starts a launcher. The command writes to `stdout` and `stderr` and reads from `input`. The
    /// output to capture is read from `reader`.
    pub(crate) async fn start_with(
        &self,
        order: &Order,
        capture: Capture,
        reader: PipeReader,
        [stdout, stderr]: [PipeWriter; 2],
        input: Option<OwnedFd>,
    ) -> io::Result<Running> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut control = UnixStream::from_std(ours)?;
        let output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
        let mut launcher = self.launcher_command(order)?;
        launcher
            .env_clear()
            .process_group(0)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        let child = launcher.spawn()?;
        drop(launcher); // closes our copies of the command's descriptors
        let proxy = order
            .proxy
            .then(|| Arc::new(Proxy::new(self.policy().hosts.clone(), self.0.overrides.names.clone())));
        let text = serde_json::to_vec(order)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let sent = async {
            control.write_all(&length.to_le_bytes()).await?;
            control.write_all(&text).await?;
            match &input {
                Some(input) => send(&control, input).await,
                None => Ok(()),
            }
        };
        // If the launcher fails immediately, the error it reports is more useful than "broken
        // pipe".
        let _ = sent.await;
        let group =
            child.id().filter(|_| order.profile.bubblewrap).and_then(|id| Pid::from_raw(id.cast_signed()));
        let (messages, serving) = (Vec::new(), JoinSet::new());
        Ok(Running { child, control, messages, output, capture, proxy, group, serving })
    }
}

/// Creates an in-memory file with this text. Unlike a pipe, a file does not need a writer while it
/// is being read.
fn in_memory(text: &str) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// The result of a launcher's [`Task`]: how it ended, its output, how long it took, and what the
/// proxy refused.
pub(crate) struct Launched {
    pub(crate) end: End,
    pub(crate) output: Captured,
    duration: Duration,
    network: Vec<String>,
}

/// Why the wait for a command ended.
#[derive(Debug)]
pub(crate) enum End {
    Event(Event),
    TimedOut,
    LimitReached,
    /// The launcher exited without reporting anything.
    Lost,
}

/// The next event while a command runs.
enum Next {
    Output(io::Result<usize>),
    Message(io::Result<usize>),
    Time,
}

pub(crate) struct Running {
    child: Child,
    control: UnixStream,
    messages: Vec<u8>,
    output: pipe::Receiver,
    pub(crate) capture: Capture,
    proxy: Option<Arc<Proxy>>,
    /// Bubblewrap's process group.
    group: Option<Pid>,
    /// The running proxy. Dropping this stops it.
    serving: JoinSet<()>,
}

impl Running {
    /// Reads until the command and its output have ended. Stops the command when it exceeds a
    /// limit.
    pub(crate) async fn follow(&mut self, timeout: Duration) -> Result<End, SandboxError> {
        let mut buffer = vec![0; READ_SIZE];
        let mut timer = Box::pin(sleep(timeout));
        let (mut stopped, mut killed) = (None, false);
        let (mut event, mut output_open, mut control_open) = (self.event(), true, true);
        while output_open || (control_open && event.is_none()) {
            match self.next(&mut buffer, output_open, control_open, timer.as_mut()).await {
                Next::Output(Ok(0) | Err(_)) => output_open = false,
                Next::Output(Ok(n)) => {
                    if !self.capture.feed(&buffer[..n]) && stopped.is_none() {
                        stopped = Some(End::LimitReached);
                        (killed, control_open) = (true, self.kill().await);
                        timer.set(sleep(KILL_TIMEOUT));
                    }
                }
                Next::Message(Ok(0) | Err(_)) => control_open = false,
                Next::Message(Ok(_)) => {
                    if event.is_none() {
                        event = self.event();
                        if event.is_some() && !killed {
                            timer.set(sleep(LINGER));
                        }
                    }
                }
                Next::Time if killed => break,
                Next::Time if stopped.is_none() && event.is_none() => {
                    stopped = Some(End::TimedOut);
                    let _ = self.control.write_all(&[TERMINATE]).await;
                    timer.set(sleep(GRACE));
                }
                Next::Time => {
                    self.kill().await;
                    killed = true;
                    timer.set(sleep(KILL_TIMEOUT));
                }
            }
        }
        self.wait_until_gone().await?;
        Ok(stopped.or(event.map(End::Event)).unwrap_or(End::Lost))
    }

    async fn next(&mut self, buffer: &mut [u8], output: bool, control: bool, timer: Pin<&mut Sleep>) -> Next {
        let received = tokio::select! {
            biased;
            read = self.output.read(buffer), if output => return Next::Output(read),
            received = receive(&self.control, &mut self.messages), if control => received,
            () = timer => return Next::Time,
            _ = self.child.wait(), if control && self.group.is_some() => {
                // Bubblewrap may fail and leave behind a waiting process that keeps our socket
                // open.
                if let Some(group) = self.group.take() {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                return Next::Message(Ok(0));
            }
        };
        Next::Message(received.and_then(|(length, descriptor)| {
            if let (Some(descriptor), Some(proxy)) = (descriptor, &self.proxy) {
                let listener = std::net::TcpListener::from(descriptor);
                listener.set_nonblocking(true)?;
                self.serving.spawn(Arc::clone(proxy).serve(TcpListener::from_std(listener)?));
            }
            Ok(length)
        }))
    }

    /// Returns the first event about the command in the messages received so far.
    fn event(&self) -> Option<Event> {
        let lines = self.messages.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n"));
        lines.filter_map(|line| serde_json::from_slice(line).ok()).find(|event| *event != Event::Listening)
    }

    /// Tells the launcher to kill everything. Messages from the launcher can still be read.
    async fn kill(&mut self) -> bool {
        let _ = self.control.shutdown().await;
        true
    }

    /// Waits until the launcher is gone, and with it every process of the command.
    async fn wait_until_gone(&mut self) -> Result<(), SandboxError> {
        let _ = self.control.shutdown().await;
        match tokio::time::timeout(GONE_TIMEOUT, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let _ = self.child.start_kill();
                Err(SandboxError::Undead)
            }
        }
    }
}

/// Sends a descriptor to the launcher.
async fn send(control: &UnixStream, descriptor: &OwnedFd) -> io::Result<()> {
    control
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor.as_fd()];
            rights.push(SendAncillaryMessage::ScmRights(&descriptors));
            sendmsg(control, &[IoSlice::new(&[0])], &mut rights, SendFlags::empty())?;
            Ok(())
        })
        .await
}

/// Appends a message from the launcher to `messages`. Returns the message's length and the
/// descriptor that came with it.
async fn receive(control: &UnixStream, messages: &mut Vec<u8>) -> io::Result<(usize, Option<OwnedFd>)> {
    control
        .async_io(Interest::READABLE, || {
            let mut bytes = [0; 4 << 10];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let into = &mut [IoSliceMut::new(&mut bytes)];
            let length = recvmsg(control, into, &mut rights, RecvFlags::CMSG_CLOEXEC)?.bytes;
            messages.extend_from_slice(&bytes[..length]);
            let descriptor = rights.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
                _ => None,
            });
            Ok((length, descriptor))
        })
        .await
}
