//! Measures the sandbox's overhead per command, compared with spawning the same program directly.
//! Run with `cargo bench -p sandbox`.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use sandbox::{Command, Level, Policy, Sandbox, clean_environment};

const ROUNDS: usize = 300;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn sandbox(root: &std::path::Path, level: Level) -> Result<Sandbox, sandbox::SandboxError> {
    let env = clean_environment(std::env::vars_os(), &[]);
    let launcher = env!("CARGO_BIN_EXE_sandbox-launcher");
    Sandbox::new(Policy { env, level, ..Policy::new(root) }, vec![launcher.into()])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = tempfile::tempdir()?;
    let (on, off) = (sandbox(root.path(), Level::On)?, sandbox(root.path(), Level::Off)?);
    let mut out = std::io::stdout().lock();
    let started = Instant::now();
    for line in &on.probe().await?.lines {
        writeln!(out, "{line}")?;
    }
    off.probe().await?;
    writeln!(out, "the probes took {:.1} ms", started.elapsed().as_secs_f64() * 1e3)?;
    let (mut bare, mut confined, mut unconfined) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        tokio::process::Command::new("/bin/true").current_dir(root.path()).output().await?;
        bare.push(start.elapsed());
        let start = Instant::now();
        on.run(Command::new("/bin/true", [""; 0])).await?;
        confined.push(start.elapsed());
        let start = Instant::now();
        off.run(Command::new("/bin/true", [""; 0])).await?;
        unconfined.push(start.elapsed());
    }
    let bare = median(bare);
    writeln!(out, "median of {ROUNDS}: bare spawn {bare:.2} ms")?;
    for (name, times) in [("sandbox on", confined), ("sandbox off (launcher only)", unconfined)] {
        let time = median(times);
        writeln!(out, "  {name}: {time:.2} ms, {:+.2} ms", time - bare)?;
    }
    Ok(())
}
