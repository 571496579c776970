//! Tests the limits on a command's memory, processes, files and time. Each limit must hold without
//! affecting commands that stay below it.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[allow(dead_code, reason = "each test file uses a different part")]
mod support;

use sandbox::{Command, Finished, Level, Policy, ResourceLimits, Status};
use support::{Fixture, alive};

async fn run(fixture: &Fixture, level: Level, limits: ResourceLimits, line: &str) -> Finished {
    let sandbox = fixture.with(Policy { level, limits, ..fixture.policy() });
    sandbox.run(Command::shell(line)).await.unwrap()
}

const BOTH: [Level; 2] = [Level::On, Level::Off];

#[tokio::test]
async fn memory_of_all_processes_together_is_limited() {
    let limits = ResourceLimits { memory: 400 << 20, ..ResourceLimits::default() };
    for level in BOTH {
        let fixture = Fixture::new();
        let mark = fixture.unique();
        let hold = |megabytes: u32| {
            format!("import time; b = b\"x\" * ({megabytes} << 20); time.sleep(1000) # {mark}")
        };
        let line = format!("echo started; python3 -c '{0}' & python3 -c '{0}' & python3 -c '{0}'", hold(200));
        let done = run(&fixture, level, limits, &line).await;
        assert_eq!(
            (done.status, done.output.text().as_str()),
            (Status::OutOfMemory, "started\n"),
            "{level:?}"
        );
        assert_eq!(alive(&mark), 0);
    }
}

#[tokio::test]
async fn shared_memory_counts_once() {
    let limits = ResourceLimits { memory: 400 << 20, ..ResourceLimits::default() };
    let line = r#"python3 -c '
import os, time
b = b"x" * (150 << 20)
for _ in range(4):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
for _ in range(4):
    os.wait()
print("ended")'"#;
    let done = run(&Fixture::new(), Level::On, limits, line).await;
    assert_eq!((done.status, done.output.text().as_str()), (Status::Exited(0), "ended\n"));
}

#[tokio::test]
async fn reserved_but_unused_memory_does_not_count() {
    let limits = ResourceLimits { memory: 100 << 20, ..ResourceLimits::default() };
    let line = "python3 -c 'import mmap, time; m = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | 0x4000); time.sleep(0.3); print(len(m) >> 40)'";
    let done = run(&Fixture::new(), Level::On, limits, line).await;
    assert_eq!((done.status, done.output.text().as_str()), (Status::Exited(0), "1\n"));
}

#[tokio::test]
async fn a_fork_bomb_is_stopped_with_all_its_processes() {
    let limits = ResourceLimits { processes: 200, ..ResourceLimits::default() };
    for level in BOTH {
        let fixture = Fixture::new();
        let mark = fixture.unique();
        // Without a kernel limit, create the processes slowly so as not to disturb other programs
        // on this machine.
        let pause = if level == Level::On { "" } else { "sleep 0.01;" };
        let line = format!("while :; do setsid sleep 1000.{mark} & {pause} done");
        let done = run(&fixture, level, limits, &line).await;
        // The kernel's process limit may stop the command first.
        let refused = done.output.text().contains("fork");
        assert!(done.status == Status::TooManyProcesses || refused, "{level:?}: {done:?}");
        assert_eq!(alive(&mark), 0);
    }
}

#[tokio::test]
async fn file_sizes_open_files_and_processor_time_are_limited() {
    let limits =
        ResourceLimits { file_size: 1 << 20, open_files: 40, cpu_seconds: 1, ..ResourceLimits::default() };
    for (line, end) in [
        ("head -c 2000000 /dev/zero > large", Status::Exited(153)), // 128 + SIGXFSZ
        ("head -c 1000000 /dev/zero > small", Status::Exited(0)),
        ("python3 -c 'f = [open(\"/dev/null\") for _ in range(50)]' 2>/dev/null", Status::Exited(1)),
        ("python3 -c 'f = [open(\"/dev/null\") for _ in range(20)]'", Status::Exited(0)),
        ("exec sh -c 'while :; do :; done'", Status::Signaled(24)),
        ("ulimit -f unlimited || ulimit -n 1000", Status::Exited(2)),
    ] {
        let fixture = Fixture::new();
        let done = run(&fixture, Level::On, limits, line).await;
        assert_eq!(done.status, end, "{line}: {}", done.output.text());
        let written = std::fs::metadata(fixture.root().join("large")).map_or(0, |m| m.len());
        assert!(written <= 1 << 20);
    }
}
