#!/bin/bash
# A batch as a HyperQueue job with eight tasks: ./hyperqueue.sh
set -euo pipefail

shards=8
# Single quotes: the worker expands the variables. Failed tasks are results, not a failed job.
hq submit --array "1-$shards" --crash-limit 5 --wait -- \
  bash -c 'agent batch tasks.jsonl --shard "$HQ_TASK_ID/'"$shards"'" || [ $? -eq 1 ]'
agent batch merge tasks.results/shard-*-of-"$shards" --out results
