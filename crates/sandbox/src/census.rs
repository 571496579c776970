//! Measures how many processes and threads a running command has, and how much memory they use. The
//! kernel's own limits are not enough: they either apply to single processes or require control
//! groups, which few programs have permission to create.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::{Duration, Instant},
};

use crate::policy::ResourceLimits;

/// The time before the first measurement, and the minimum time between measurements.
const PERIOD: Duration = Duration::from_millis(100);

/// How long to pause after a measurement, as a multiple of its duration. Measuring takes a long
/// time on a machine with many processes.
const PAUSE: u32 = 20;

/// The longest pause. Without this limit, a command that keeps creating processes would be measured
/// less and less often, because each measurement would take longer.
const LONGEST: Duration = Duration::from_millis(300);

/// The limit that a command has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Excess {
    Memory,
    Processes,
}

/// Measures all descendants of a process.
pub(crate) struct Census {
    top: u32,
    limits: ResourceLimits,
    /// Bytes per memory page.
    page: u64,
    due: Instant,
}

impl Census {
    pub(crate) fn new(top: u32, limits: ResourceLimits) -> Self {
        let page = rustix::param::page_size() as u64;
        Self { top, limits, page, due: Instant::now() + PERIOD }
    }

    /// Returns the time until the next measurement.
    pub(crate) fn wait(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// If a measurement is due, takes it and returns the limit that the command exceeds, if any.
    pub(crate) fn look(&mut self) -> Option<Excess> {
        let now = Instant::now();
        if now < self.due {
            return None;
        }
        let excess = self.count();
        self.due = Instant::now() + (now.elapsed() * PAUSE).clamp(PERIOD, LONGEST);
        excess
    }

    fn count(&self) -> Option<Excess> {
        let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
        for process in processes() {
            children.entry(process.parent).or_default().push(process);
        }
        let mut found = Vec::new();
        let mut todo = vec![self.top];
        while let Some(parent) = todo.pop() {
            for process in children.remove(&parent).unwrap_or_default() {
                todo.push(process.id);
                found.push(process);
            }
        }
        if found.iter().map(|p| p.threads).sum::<u64>() > self.limits.processes {
            return Some(Excess::Processes);
        }
        // Resident memory counts shared pages once per process. Only take the slower, exact
        // measurement if this sum exceeds the limit.
        let resident: u64 = found.iter().map(|p| p.resident * self.page).sum();
        let share = || {
            let seen: BTreeSet<u32> = found.iter().map(|p| p.id).collect();
            seen.into_iter().map(|id| self.memory(id)).sum::<u64>()
        };
        (resident > self.limits.memory && share() > self.limits.memory).then_some(Excess::Memory)
    }

    /// Returns the memory of one process, including its share of shared pages if the kernel reports
    /// it.
    fn memory(&self, id: u32) -> u64 {
        let share = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok().and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("Pss:"))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
        });
        let own = || {
            let text = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
            let mut pages = text.split(' ').skip(1).map(|n| n.parse::<u64>().ok());
            Some(pages.next()??.saturating_sub(pages.next()??) * self.page)
        };
        share.or_else(own).unwrap_or(0)
    }
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    threads: u64,
    /// In pages.
    resident: u64,
}

/// Returns all visible processes.
pub(crate) fn processes() -> impl Iterator<Item = Process> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        parse(id, &fs::read(entry.path().join("stat")).ok()?)
    })
}

/// Parses "PID (name) state PPID …" as described in proc_pid_stat(5). The name may contain
/// anything.
fn parse(id: u32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Process { id, parent: u32::try_from(field(4)?).ok()?, threads: field(20)?, resident: field(24)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let rest = "S 17 1 1 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 3 0 5 1024 250 18446744073709551615";
        let expected = Process { id: 20, parent: 17, threads: 3, resident: 250 };
        for name in ["sh", "a) R 1 (b", "\n", ")))", ""] {
            let stat = format!("20 ({name}) {rest}");
            assert_eq!(parse(20, stat.as_bytes()).as_ref(), Some(&expected), "{name:?}");
        }
        assert_eq!(parse(20, b"20 (\xff) S"), None);
    }

    #[test]
    fn this_process_is_found_and_uses_memory() {
        let me = std::process::id();
        let found = processes().find(|p| p.id == me).unwrap();
        assert!(found.threads >= 1 && found.resident > 0, "{found:?}");
        // The parent may be a program with many other children.
        let none = ResourceLimits { memory: u64::MAX, processes: u64::MAX, ..ResourceLimits::default() };
        let census = Census::new(found.parent, ResourceLimits { memory: 1, ..none });
        assert_eq!(census.count(), Some(Excess::Memory));
        let census = Census::new(found.parent, ResourceLimits { processes: 0, ..none });
        assert_eq!(census.count(), Some(Excess::Processes));
        assert_eq!(Census::new(me, ResourceLimits::default()).count(), None);
    }
}
