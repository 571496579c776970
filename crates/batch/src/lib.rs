//! Many tasks: task files, scheduling, results.
