#!/bin/bash
# Runs a batch as a Slurm job array: sbatch slurm.sh
#SBATCH --job-name=agent-batch
#SBATCH --array=0-7
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

# A deadline before the time limit of the job lets the batch end cleanly.
agent batch tasks.jsonl --shard auto/8 --deadline 3h45m
code=$?

# Requeue the job if the batch paused at the deadline (4), if its server failed (5), or if it was
# interrupted (130) or killed (137), for example because it ran out of memory. The job then
# continues the batch. --requeue alone covers only preemption and node failures.
case $code in
  4 | 5 | 130 | 137)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
      scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
    fi
    ;;
esac

# Failed tasks are results, not a failed job.
[ "$code" -le 1 ]

# When all jobs have ended: agent batch merge tasks.results/shard-* --out results
