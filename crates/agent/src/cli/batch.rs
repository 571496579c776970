//! The flags of `agent batch` that control which tasks run, in what order, and when the batch
//! stops.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use batch::{BatchLimits, Filter, Selection, Shard, Slice};
use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};

#[derive(Debug, Args)]
pub(crate) struct BatchPlan {
    /// Run only tasks whose id matches PATTERN; `tag:PATTERN` selects tasks with a matching tag. May
    /// be repeated. `*` matches any text, `?` any single character
    #[arg(long = "filter", value_name = "PATTERN", help_heading = "Selection")]
    filters: Vec<Filter>,

    /// Run only the tasks at positions A to B-1, starting at 0
    #[arg(long, value_name = "A:B", help_heading = "Selection")]
    slice: Option<Slice>,

    /// Run the tasks in a random order, not repository by repository
    #[arg(long, help_heading = "Selection")]
    shuffle: bool,

    /// Seed for the random order [default: 0]
    #[arg(long, value_name = "N", requires = "shuffle", help_heading = "Selection")]
    seed: Option<u64>,

    /// Divide the tasks into N parts and run part I (the first part is 1); `auto` runs the part for
    /// this job in a Slurm, Kubernetes or AWS Batch job array. Results go to a subfolder
    /// `shard-I-of-N`
    #[arg(long, value_name = "I/N|auto[/N]", help_heading = "Selection")]
    pub(crate) shard: Option<String>,

    /// Rerun the tasks that the agent finished unsuccessfully in an earlier invocation
    #[arg(long, value_name = "WHAT", help_heading = "Selection")]
    pub(crate) retry: Option<Retry>,

    /// Start no more tasks after one ends unverified
    #[arg(long, help_heading = "Limits for the whole batch")]
    pub(crate) fail_fast: bool,

    /// Pause after this time (`90m`, `2h 30m`) or at this time (`2026-05-01T07:00+02:00`), and
    /// interrupt running tasks
    #[arg(long, value_name = "TIME", value_parser = deadline, help_heading = "Limits for the whole batch")]
    deadline: Option<Duration>,

    /// Start no more tasks once the batch has used this many tokens (prompts and answers together)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Limits for the whole batch")]
    batch_tokens: Option<u64>,

    /// Start no more tasks once the batch has cost this much, if the server's prices are known
    #[arg(long, value_name = "DOLLARS", value_parser = dollars, help_heading = "Limits for the whole batch")]
    batch_cost: Option<f64>,

    /// Keep trying for this long when the model, its server or this machine fails for every task,
    /// or when the queue cannot be reached at the start; 0s gives up immediately
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m", help_heading = "Limits for the whole batch")]
    pub(crate) wait: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BatchCommand {
    /// Merge the results of shards into one folder
    Merge {
        /// The folders with the results of the shards
        #[arg(required = true, value_name = "DIR")]
        from: Vec<PathBuf>,
        /// Write the merged results to this folder
        #[arg(short, long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// How many tasks to run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jobs {
    Auto,
    Number(u16),
}

impl Jobs {
    /// Maximum number of tasks that run at a time.
    pub(crate) const MAX: u16 = 256;
}

impl FromStr for Jobs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().ok().filter(|number| (1..=Self::MAX).contains(number));
        number
            .map(Self::Number)
            .ok_or_else(|| format!("is neither `auto` nor a number from 1 to {}", Self::MAX))
    }
}

/// Which tasks `--retry` runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Retry {
    // Tasks that the agent finished unsuccessfully.
    Failed,
}

impl BatchPlan {
    pub(crate) fn selection(&self, shard: Option<Shard>) -> Selection {
        let shuffle = self.shuffle.then(|| self.seed.unwrap_or(0));
        Selection { filters: self.filters.clone(), shuffle, slice: self.slice, shard }
    }

    pub(crate) fn limits(&self) -> BatchLimits {
        BatchLimits { time: self.deadline, tokens: self.batch_tokens, cost: self.batch_cost }
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| format!("{text:?} is not a time with units such as `90s`, `15m` or `2h 30m`"))
}

/// Parses a queue lease. A lease under one second would expire while a worker is merely busy.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < Duration::from_secs(1) { Err("is shorter than 1s".into()) } else { Ok(lease) }
}

/// Parses a duration, or a date and time with an offset. Returns the time left until then.
fn deadline(text: &str) -> Result<Duration, String> {
    let left =
        |time: Timestamp| Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
    duration(text).or_else(|_| text.parse().map(left)).map_err(|_| {
        format!("{text:?} is neither a time with units such as `90m` nor a date and time such as `2026-05-01T07:00Z`")
    })
}

fn dollars(text: &str) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|dollars: &f64| *dollars > 0.0 && dollars.is_finite());
    parsed.ok_or_else(|| format!("{text:?} is not an amount above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h 30m"), Ok(Duration::from_secs(9000)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["90", "-5m", "soon", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_deadline_is_a_duration_or_a_time_with_an_offset() {
        assert_eq!(deadline("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(deadline("2001-01-01T00:00Z"), Ok(Duration::ZERO), "a time that has passed");
        assert!(deadline("2999-01-01T07:00+02:00").unwrap() > Duration::from_secs(86_400));
        assert!(deadline("2999-01-01T07:00").is_err(), "no offset");
        assert!(deadline("tomorrow").is_err());
    }
}
