//! `--shard`: decides which part of the tasks this job runs. This module does no I/O.

use batch::Shard;

/// Resolves the value of `--shard`: `I/N`, `auto` or `auto/N`. `variable` reads an environment
/// variable. Job schedulers set these variables to tell a job its index in the array.
///
/// # Errors
/// If the value is invalid or a variable is missing. The error is a message for the user.
pub(super) fn resolve(value: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let count = match value.strip_prefix("auto") {
        None => return value.parse(),
        Some("") => None,
        Some(count) => {
            let count = count.strip_prefix('/').and_then(|count| count.parse::<usize>().ok());
            Some(count.ok_or_else(|| format!("{value:?} is not of the form auto/N"))?)
        }
    };
    let number = |name: &str| variable(name).and_then(|value| value.trim().parse::<usize>().ok());
    let unknown = |name: &str| format!("{name} does not say how many jobs there are; write auto/N");
    if let Some(id) = number("SLURM_ARRAY_TASK_ID") {
        // With `auto/N`, the array's ids must be 0 to N-1. This form also works when a single job
        // is resubmitted, in which case Slurm reports an array of one job.
        if let Some(count) = count {
            return Shard::new(id, count);
        }
        let first = number("SLURM_ARRAY_TASK_MIN").unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP").unwrap_or(1).max(1);
        let count = number("SLURM_ARRAY_TASK_COUNT").ok_or_else(|| unknown("Slurm"))?;
        return Shard::new(id.saturating_sub(first) / step, count);
    }
    if let Some(index) = number("JOB_COMPLETION_INDEX") {
        return Shard::new(index, count.ok_or_else(|| unknown("Kubernetes"))?);
    }
    if let Some(index) = number("AWS_BATCH_JOB_ARRAY_INDEX") {
        let count = count.or_else(|| number("AWS_BATCH_JOB_ARRAY_SIZE"));
        return Shard::new(index, count.ok_or_else(|| unknown("AWS Batch"))?);
    }
    Err("none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX and AWS_BATCH_JOB_ARRAY_INDEX is set; write I/N"
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        resolve(value, variable).map(|shard| shard.to_string())
    }

    #[test]
    fn a_part_is_given_or_comes_from_the_job_scheduler() {
        let is = |shard: &str| Ok(shard.to_owned());
        assert_eq!(of("2/3", &[]), is("shard-2-of-3"));
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "5"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
        ];
        assert_eq!(of("auto", &slurm), is("shard-3-of-4"));
        assert_eq!(of("auto/8", &slurm), is("shard-6-of-8"));
        assert_eq!(of("auto/8", &[("JOB_COMPLETION_INDEX", "0")]), is("shard-1-of-8"));
        let aws = [("AWS_BATCH_JOB_ARRAY_INDEX", "9"), ("AWS_BATCH_JOB_ARRAY_SIZE", "10")];
        assert_eq!(of("auto", &aws), is("shard-10-of-10"));
    }

    #[test]
    fn an_error_names_the_missing_variable_or_number() {
        assert!(of("auto", &[("JOB_COMPLETION_INDEX", "0")]).unwrap_err().contains("write auto/N"));
        assert!(of("auto/8", &[]).unwrap_err().contains("SLURM_ARRAY_TASK_ID"));
        assert!(of("auto/2", &[("JOB_COMPLETION_INDEX", "2")]).unwrap_err().contains("no part 3 of 2"));
        assert!(of("auto8", &[]).is_err() && of("automatic", &[]).is_err());
    }
}
