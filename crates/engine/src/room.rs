//! Determines the free memory, the number of threads, and the context window that fits in memory.

use std::path::Path;

/// Memory reserved for compute buffers, the agent, and the commands it runs, in bytes.
pub(crate) const RESERVE: u64 = 768 << 20;
/// The smallest useful window, in tokens.
pub(crate) const LEAST_WINDOW: u64 = 2_048;

/// Returns how much memory, in bytes, this process may still allocate: the machine's available
/// memory or the unused part of the control group's limit, whichever is less. Returns `None` if the
/// system reports neither.
#[must_use]
pub fn free_memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let group = || {
        let folder = Path::new("/sys/fs/cgroup");
        let read = |name| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let limit = read("memory.max")?;
        Some(limit.saturating_sub(read("memory.current")?))
    };
    [machine, group()].into_iter().flatten().min()
}

/// Parses `MemAvailable` from `/proc/meminfo`, and returns it in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Returns the number of threads to use: one for each core that this process may use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The inputs that determine the window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The window that the user asked for.
    pub(crate) asked: Option<u64>,
    /// The window, in tokens, to use if the user did not ask for one and enough memory is free.
    pub(crate) usual: u64,
    /// The window that the model was trained with; 0 if unknown.
    pub(crate) trained: u64,
    /// Size of a token in the KV cache, in bytes.
    pub(crate) per_token: u64,
    /// Size of the model's weights, in bytes.
    pub(crate) model: u64,
    /// Free memory before the model is loaded, in bytes.
    pub(crate) free: Option<u64>,
}

/// Returns the window, in tokens, and a warning if it is smaller than usual or than requested.
///
/// # Errors
/// Returns a message if the model does not fit in memory with the requested window or, if no window
/// was requested, with the smallest useful one.
pub(crate) fn window(wanted: Wanted) -> Result<(u64, Option<String>), String> {
    let Wanted { asked, usual, trained, per_token, model, free } = wanted;
    let trained = if trained == 0 { usual } else { trained };
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let fixed = model.saturating_add(RESERVE);
    let fits = free.map_or(u64::MAX, |free| free.saturating_sub(fixed) / per_token.max(1));
    let lacks = |window: u64, advice: &str| {
        let needed = fixed.saturating_add(window.saturating_mul(per_token));
        let free = gib(free.unwrap_or(0));
        format!(
            "the model with a window of {window} tokens needs {} of memory, but only {free} is free; {advice}",
            gib(needed)
        )
    };
    if let Some(asked) = asked {
        let window = asked.min(trained);
        if window > fits {
            return Err(lacks(window, "set a smaller --num-ctx"));
        }
        let said = (window < asked)
            .then(|| format!("the window is {window} tokens, the largest that the model was trained with"));
        return Ok((window, said));
    }
    let usual = usual.min(trained);
    let least = LEAST_WINDOW.min(usual);
    if fits < least {
        return Err(lacks(least, "free some memory or choose a smaller model"));
    }
    let window = usual.min((fits / 256 * 256).max(least));
    let said = (window < usual).then(|| {
        format!("the window is {window} tokens, because only {} of memory is free", gib(free.unwrap_or(0)))
    });
    Ok((window, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn wanted(asked: Option<u64>, free_mib: u64) -> Wanted {
        let free = Some((1000 + free_mib) * MIB);
        Wanted { asked, usual: 16_384, trained: 32_768, per_token: 28 << 10, model: 1000 * MIB, free }
    }

    #[test]
    fn the_window_shrinks_with_the_free_memory_and_a_warning_says_so() {
        assert_eq!(window(wanted(None, 8192)), Ok((16_384, None)));
        let (tokens, said) = window(wanted(None, 768 + 224)).unwrap();
        assert_eq!(tokens, 8_192);
        assert!(said.unwrap().contains("8192 tokens"));
        let error = window(wanted(None, 780)).unwrap_err();
        assert!(error.contains("2048 tokens") && error.contains("smaller model"), "{error}");
    }

    #[test]
    fn a_requested_window_is_limited_to_the_trained_one_and_refused_if_it_does_not_fit() {
        assert_eq!(window(wanted(Some(20_000), 8192)), Ok((20_000, None)));
        assert_eq!(window(wanted(Some(40_000), 8192)).unwrap().0, 32_768);
        assert!(window(wanted(Some(20_000), 1024)).unwrap_err().contains("smaller --num-ctx"));
        let unknown = Wanted { trained: 0, free: None, ..wanted(None, 0) };
        assert_eq!(window(unknown), Ok((16_384, None)));
    }

    #[test]
    fn available_memory_is_parsed() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 * MIB));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
    }
}
