#!/bin/bash
# Runs a batch as an array of HyperQueue tasks: hq submit --wait hyperqueue.sh
#HQ --name=agent-batch
#HQ --array=1-8
#HQ --crash-limit=5
set -uo pipefail

# When a worker is lost, its tasks get SIGTERM and run again on another worker. Pass the signal on:
# an agent that keeps running would keep the results locked.
trap 'kill "$agent"; wait "$agent"; exit 130' TERM

# HyperQueue does not retry failed tasks. So run the agent again here if its server failed or the
# agent of a lost worker still holds the lock on the results (exit code 5), or if the agent was
# interrupted (130) or killed (137).
for _ in 1 2 3 4 5; do
  agent batch tasks.jsonl --shard "$HQ_TASK_ID/8" &
  agent=$!
  wait "$agent"
  code=$?
  case "$code" in
    # Exit code 1 means that the batch has finished but some of its tasks are not verified.
    0 | 1) exit 0 ;;
    5 | 130 | 137) sleep 10 ;;
    *) exit "$code" ;;
  esac
done
exit "$code"

# `hq submit --wait` succeeds even if tasks have failed. List the failed tasks:
#   hq job task-ids last --filter=failed
# If there are none:
#   agent batch merge tasks.results/shard-* --out results
