//! Tests the public API: headers of good and bad files, and pulls from scripted servers.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod gguf;
mod pull;
