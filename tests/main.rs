//! End-to-end tests, which run the real binary as a child process and observe it from the outside.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod support;

mod acp;
mod ask;
mod batch;
mod batch_kills;
mod batch_trees;
mod changes;
mod command_line;
mod confinement;
mod crashes;
mod dry_run;
mod early;
mod edit_formats;
mod embedded;
mod environment;
mod exports;
mod faults;
mod full_disk;
mod git_hosts;
mod hooks;
mod hostile;
mod images;
mod inspection;
mod language_servers;
mod mcp;
mod model_files;
mod models;
mod other_models;
mod own_files;
mod patch;
mod prices;
mod profiles;
mod replay;
mod replay_differences;
mod reports;
mod resume;
mod run;
mod sandbox;
mod secrets;
mod servers;
mod sessions;
mod settings;
mod skills;
mod soak;
mod symbols;
mod telemetry;
mod terminal;
mod text_views;
mod tries;
