//! The run_command tool.
