//! Flags, help and exit codes.
