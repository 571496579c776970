//! Model files from outside: headers of good and bad files, and pulls from scripted servers.

mod gguf;
mod pull;
