//! Loads a model file in a child process before this process loads it. Some broken files have a
//! valid header, yet make llama.cpp abort the process that loads them.
//!
//! The child is the program itself ([`crate::Options::trial`]), which calls [`load`]. A file that
//! passes is remembered by its path, size and modification time, and by the engine's version.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use models::Error;

use crate::Options;
use crate::open;
use crate::saved::file_key;

/// A subfolder of the cache folder. It holds an empty file for each model file that passed the
/// trial.
const TRIED: &str = "tried";
/// How often to check whether the model is still wanted.
const PAUSE: Duration = Duration::from_millis(50);
/// Maximum number of bytes to read from the child's standard error.
const MESSAGES: u64 = 64 << 10;

/// Loads the file and evaluates one token. Call this only in the child process: it aborts the
/// process when standard input is closed, which means that the parent has exited.
///
/// # Errors
/// Same as [`crate::Embedded::open`].
pub fn load(options: &Options) -> Result<(), Error> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::abort();
    });
    open::trial(options)
}

/// Runs the trial, unless the file has already passed one.
///
/// # Errors
/// [`Error::Refused`] if the child crashed or refused the file.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> Result<(), Error> {
    let Some((program, arguments)) = options.trial.split_first() else { return Ok(()) };
    let passed = options.cache.as_ref().zip(file_key(&options.file));
    let passed = passed.map(|(cache, key)| cache.join(TRIED).join(key));
    if passed.as_ref().is_some_and(|file| file.is_file()) {
        return Ok(());
    }
    let (status, messages) = child(program, arguments, &options.file, stop)
        .map_err(|why| Error::Refused(format!("cannot start the trial of the model file: {why}")))?;
    if !status.success() {
        let file = options.file.display();
        let assertion = messages.lines().find_map(|line| line.get(line.find("GGML_ASSERT")?..));
        let said = assertion.or(messages.lines().last());
        let said = said.map_or_else(|| status.to_string(), |said| said.chars().take(200).collect());
        return Err(Error::Refused(format!("{file}: the engine cannot load this file: {said}")));
    }
    if let Some(file) = passed {
        // If this file cannot be written, the next run repeats the trial.
        let noted = file.parent().map(std::fs::create_dir_all).transpose();
        let _ = noted.and_then(|_| std::fs::write(&file, ""));
    }
    Ok(())
}

/// Runs the child until it ends. Kills it if this process no longer wants the model.
fn child(
    program: &OsString,
    arguments: &[OsString],
    file: &Path,
    stop: &AtomicBool,
) -> std::io::Result<(ExitStatus, String)> {
    let mut child = Command::new(program)
        .args(arguments)
        .arg(file)
        .env("GGML_NO_BACKTRACE", "1")
        // Keep Ctrl-C from reaching the child, which ends when the parent does.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take();
    let (sender, messages) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut rest = stderr.map(|stderr| stderr.take(MESSAGES));
        let _ = rest.as_mut().map(|rest| rest.read_to_end(&mut text));
        let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
    });
    // The child closes its standard error when it ends.
    let messages = loop {
        match messages.recv_timeout(PAUSE) {
            Ok(messages) => break messages,
            Err(RecvTimeoutError::Timeout) if stop.load(Ordering::Relaxed) => child.kill()?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break String::new(),
        }
    };
    Ok((child.wait()?, messages))
}
