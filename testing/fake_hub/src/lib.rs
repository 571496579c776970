//! A scripted model hub and Python package index, and small GGUF files, for tests.
//!
//! ```
//! let server = fake_hub::Server::start();
//! let file = fake_hub::gguf::valid().bytes();
//! let path = server.put_on_hub("maker/tiny-GGUF", "tiny.gguf", &file);
//! // The first download is cut off after 100 bytes. The second is served normally.
//! server.once(&path, fake_hub::Act::Cut(100));
//! assert_eq!(server.requests(), Vec::<String>::new());
//! ```

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
#![allow(clippy::missing_panics_doc, reason = "a failing test may panic")]

pub mod gguf;

mod server;
mod wheel;

pub use server::{Act, Server, sha256};
pub use wheel::wheel;
