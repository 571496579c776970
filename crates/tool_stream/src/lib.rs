//! Bytes in, tool objects out, while they arrive.
//!
//! ```
//! use tool_stream::{End, Event, Options, Parser};
//!
//! let mut parser = Parser::new(Options::default());
//! let mut events = Vec::new();
//! parser.feed(br#"Let me look. {"tool": "read_file", "argum"#, &mut events);
//! parser.feed(br#"ents": {"path": "src/lib.rs"}}"#, &mut events);
//! let Some(Event::CallComplete(call)) = events.last() else { panic!("no call") };
//! assert_eq!((call.tool.as_str(), call.start), ("read_file", 13));
//! parser.finish(End::Stop, &mut events);
//! ```

mod blocks;
mod event;
mod fence;
mod json;
mod markup;
mod object;
mod parser;
mod prose;
mod quote;
mod shape;
mod tags;
mod text;
mod tokens;
mod verdict;
mod whole_file;
mod window;

pub use event::{Call, End, Event, Malformed, Options, Repair};
pub use parser::Parser;
pub use verdict::{Status, Verdict, VerdictCall, parse, verdict};
