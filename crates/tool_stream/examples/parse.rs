//! Reads an answer from stdin and prints the verdict on it or, with `--events`, the parser's
//! events. Assumes that the model stopped on its own or, with `--length`, that the token limit cut
//! the answer off.
#![allow(clippy::print_stdout)]
use std::io::Read;

fn main() -> std::io::Result<()> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    let end = if std::env::args().any(|a| a == "--length") {
        tool_stream::End::Length
    } else {
        tool_stream::End::Stop
    };
    if std::env::args().any(|a| a == "--events") {
        let mut parser = tool_stream::Parser::new(tool_stream::Options::default());
        let mut out = Vec::new();
        for b in bytes.chunks(1) {
            parser.feed(b, &mut out);
        }
        parser.finish(end, &mut out);
        for e in out {
            println!("{e:?}");
        }
        return Ok(());
    }
    let verdict = tool_stream::parse(&bytes, end, tool_stream::Options::default());
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(())
}
