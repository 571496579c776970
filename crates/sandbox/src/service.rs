//! A program that runs in the sandbox alongside the agent. The two exchange messages over the
//! program's standard input and output.

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::{net::unix::pipe, sync::oneshot, task::JoinHandle};

use crate::{
    Capture, Captured, Command, OutputLimits, Sandbox, SandboxError,
    command::{End, Running},
    order::Event,
};

/// How long a service may run, which is longer than any session.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How long a service may take to exit after its input is closed. After that, it is sent SIGTERM
/// and later SIGKILL, like a command that exceeds its timeout.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running program with pipes to its standard input and output. It is confined like a command.
/// The program and everything it started are killed when the service is dropped or the agent exits.
#[derive(Debug)]
pub struct Service {
    stop: oneshot::Sender<()>,
    end: JoinHandle<(String, Captured)>,
}

impl Sandbox {
    /// Starts a program. Returns its standard input, its standard output, and the service itself.
    /// The service collects standard error within the limits in `command.output`, except that
    /// `total_bytes` does not apply. The command's timeout, log and echo are not used.
    ///
    /// If the program cannot be started, the output stream ends immediately and [`Service::stop`]
    /// returns the reason.
    ///
    /// # Errors
    /// Fails if the confinement cannot be set up.
    pub async fn serve(
        &self,
        command: Command,
    ) -> Result<(pipe::Sender, pipe::Receiver, Service), SandboxError> {
        let order = self.order_to_run(&command, true).await?;
        let setup = |e: io::Error| SandboxError::Setup(format!("starting the launcher: {e}"));
        let pipes = || Ok::<_, io::Error>((io::pipe()?, io::pipe()?, io::pipe()?));
        let ((input, stdin), (stdout, output), (errors, stderr)) = pipes().map_err(setup)?;
        let ends = || {
            let stdin = pipe::Sender::from_owned_fd(OwnedFd::from(stdin))?;
            Ok::<_, io::Error>((stdin, pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?))
        };
        let (stdin, stdout) = ends().map_err(setup)?;
        let capture = Capture::new(OutputLimits { total_bytes: u64::MAX, ..command.output }, None);
        let running = self.start_with(&order, capture, errors, [output, stderr], Some(input.into())).await;
        let (stop, stopped) = oneshot::channel();
        let program = command.program.to_string_lossy().into_owned();
        let end = tokio::spawn(attend(running.map_err(setup)?, stopped, program));
        Ok((stdin, stdout, Service { stop, end }))
    }
}

impl Service {
    /// Waits until the program and everything it started are gone. The caller must already have
    /// closed the program's input. A program that does not exit is killed. Returns a short
    /// description of how the program ended, along with its standard error.
    pub async fn stop(self) -> (String, Captured) {
        let _ = self.stop.send(());
        let lost = |_| ("its launcher was lost".to_owned(), Captured::default());
        self.end.await.unwrap_or_else(lost)
    }
}

/// Reads the program's standard error until the program ends. When told to stop, gives the program
/// `EXIT_TIMEOUT` to exit.
async fn attend(mut running: Running, stopped: oneshot::Receiver<()>, program: String) -> (String, Captured) {
    let end = tokio::select! {
        end = running.follow(LIFETIME) => Ok(end),
        told = stopped => Err(told),
    };
    let end = match end {
        Ok(end) => end,
        Err(Ok(())) => running.follow(EXIT_TIMEOUT).await,
        // The service was dropped, and dropping `running` kills the program.
        Err(Err(_)) => return Default::default(),
    };
    let how = match end {
        Ok(End::Event(Event::Exited(code))) => format!("it exited with code {code}"),
        Ok(End::Event(Event::Signaled(signal))) => format!("signal {signal} terminated it"),
        Ok(End::Event(Event::Exceeded(excess))) => format!("it exceeded a limit ({excess:?})"),
        Ok(End::Event(Event::NotStarted { why, .. })) => format!("cannot start {program:?}: {why}"),
        Ok(End::Event(Event::Setup(why))) => format!("cannot set up the sandbox: {why}"),
        Ok(End::TimedOut) => "it did not exit and was killed".to_owned(),
        Ok(_) => "its launcher was lost".to_owned(),
        Err(error) => error.to_string(),
    };
    (how, running.capture.finish())
}
