//! The run_tests tool: finds the test command, runs it, reports counts and failures first.
