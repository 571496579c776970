//! Bytes in, tool objects out, while they arrive.
//!
//! A model answers with JSON objects, one per step: `{"tool": "read_file", "arguments": {"path": "src/lib.rs"}}`. This
//! crate finds them in the stream of its answer and says what is certain as soon as it is: the tool's name while the object
//! is open, each argument when it closes, the call at its closing brace. It knows no tool, no file and no clock.
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
//!
//! # The protocol as understood
//!
//! `fixtures/streams` holds an example of every rule; `tests/properties.rs` and the tests of
//! `dialects.rs` hold the rules that have no examples.
//!
//! **What is a call.** An object with a `"tool"`, or one of the wrappers of other model families
//! (`shape.rs` has the table): `name` with `arguments` or `parameters`, `function`, `function_call`,
//! `tool_calls`, `action` with `action_input`, MCP's `tools/call`. Several calls may follow each other,
//! with or without an array around them. An unknown tool under `"tool"` is a call if it has arguments,
//! so that it can be refused; without arguments it is data.
//!
//! **The dialects of model families.** `dialects.rs` has one row for each: its tokens, and a call
//! written in it. Behind an opening token every form of arguments is read, since models mix the forms:
//! JSON, elements with values as text, pairs of key and value, calls as Python writes them. Some forms
//! need no token: ReAct's `Action:` lines, the element of a known tool (Cline), a call in Python that is
//! the whole answer or stands in a fence of `tool_code`, and the name of a known tool right before an
//! object, where the server has stripped the tokens.
//!
//! **What is around it.** Prose, Markdown fences, a byte order mark, end tokens.
//!
//! **What is never a call.** What stands in a thought (below); in a string or another object; in inline
//! code; in quotes, brackets or behind an equals sign in prose; in a quoted line; in code; in a sentence
//! that offers an example (`prose.rs` judges by the words before it), up to the end of that example;
//! behind words that neither announce it nor end their sentence, if more text follows it; in the row of a table, an item of a list, a footnote, a line of a log; beside a
//! result or a time, which make it a record; in a turn or a tool result that the model invents, and behind
//! one that follows its call; directly behind a token that no row knows. A schema or
//! a result that is echoed. An object that was cut off.
//!
//! **Thoughts.** `dialects.rs` has the marks of all families. Nothing between them is a call, with one
//! exception, which `thoughts.rs` explains: calls in a family's own tokens at the very end of the
//! thoughts, when nothing stands outside. A closing mark that nothing opened makes everything before it a
//! thought ([`Event::OrphanThink`]).
//!
//! **What is repaired.** See [`Repair`]; each is classified as having one reading or several ([`Call::unambiguous`]). Valid
//! JSON is never read otherwise. A forgotten backslash before a quote inside a string is told from what follows the quote
//! (`quote.rs`); where two readings make sense the call is refused.
//!
//! **What is cut off** is [`Event::Malformed`], wherever it was cut and however the stream ended; nothing is closed by
//! guessing. One exception, and it is not JSON: where calls are written as tags, the closing tag of the call may be missing at the
//! end of an answer that the model ended itself ([`Repair::MissingCloser`], ambiguous); a value must have its own.
//!
//! **Behind a broken call** the parser does not know whether it is inside one of its strings. From there on a call counts
//! only if it begins in the first column, or behind the broken call's closing tag or token.
//!
//! **Spans.** A call runs from its opening brace, or from the tag or token that names its tool, to just behind its closing
//! brace, or behind the closing tag where there is none. In a list each call has its own span.
//!
//! **Early events** are never taken back by a later reading: a call that was opened completes under that name or is
//! malformed, and its fields are those of its arguments. A known tool is opened with the first key of its arguments, an
//! unknown one with the closing quote of its name. A string argument is closed at its quote if it is a name or a path, else when what
//! follows has shown that the quote was its end. The one exception is [`Event::OrphanThink`].
//!
//! # Whole files
//!
//! With [`Options::whole_file`] a fence that holds no call is a call of `apply_patch` with `content` and, where it can be told,
//! `path`: from the info string (```` ```python src/a.py ````, `title="src/a.py"`) or from the line before, if that is
//! nothing but a path. It ends at a line with just a fence of the same kind; a fence with a label inside opens a nested one. An
//! empty fence, and one of a shell or a diff without a path, is text. Without its closing fence the file is cut off.
//!
//! # Cost
//!
//! Linear in the bytes, whatever they are and however they are cut: no byte is looked at twice but for the few behind a
//! quote, a tag's or a fence line's first few hundred, and a budget for looking again into what turned out not to be an object.
//! Memory: the open call (at most [`Options::max_call_bytes`]) and its values. `benches/throughput.rs` measures both.
//!
//! Layers: `parser.rs`, with `tokens.rs` for tags, `braces.rs` for objects, `turns.rs` for turns and
//! `blocks.rs` for Markdown, splits the stream into regions; `dialects.rs` says what a token means, and `tags.rs` finds it in every spelling;
//! `thoughts.rs` reads thoughts, `head.rs` what stands between an opening token and the arguments,
//! `harmony.rs` the headers of gpt-oss, `markup.rs` and `nested.rs` arguments written as elements,
//! `python.rs` calls written in Python; `object.rs` makes calls of objects, which `json.rs`, `literal.rs`,
//! `quote.rs` and `text.rs` read and `shape.rs` recognizes; `whole_file.rs` reads files; `verdict.rs` judges a
//! whole answer.

mod blocks;
mod braces;
mod dialects;
mod event;
mod fence;
mod follow;
mod harmony;
mod head;
mod json;
mod literal;
mod markup;
mod nested;
mod object;
mod parser;
mod prose;
mod python;
mod quote;
mod shape;
mod tags;
mod text;
mod thoughts;
mod tokens;
mod turns;
mod verdict;
mod whole_file;
mod window;

pub use event::{Call, End, Event, Malformed, Options, Repair};
pub use parser::Parser;
pub use thoughts::call_at_end;
pub use verdict::{Status, Verdict, VerdictCall, parse, verdict};
