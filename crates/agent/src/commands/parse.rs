//! `agent parse`: what the agent would make of a model's output. For people who debug a model, and for tests of the parser from
//! outside: `--chunks` reads JSON lines and answers each with one line, as soon as it has it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use tool_stream::{End, Options, Parser, Status, Verdict};

use crate::cli::Parse;
use crate::console;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::sanitize;

/// The most bytes of one output or one line of `--chunks`: several times the longest call that is accepted.
const LIMIT: u64 = 128 << 20;

/// Judges a file, standard input, or lines of chunks.
pub(crate) fn run(command: &Parse) -> Result<Exit> {
    let path = command.file.as_deref().filter(|path| *path != Path::new("-"));
    let mut input: Box<dyn Read> = match path {
        None => Box::new(io::stdin().lock()),
        Some(path) => Box::new(
            File::open(path).map_err(|e| Failure::misuse(format!("cannot open {}: {e}", path.display())))?,
        ),
    };
    if command.chunks {
        return lines(BufReader::new(input));
    }
    let mut bytes = Vec::new();
    input.by_ref().take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::misuse(format!("the output is longer than {} MiB", LIMIT >> 20)));
    }
    let verdict = tool_stream::parse(&bytes, End::Stop, Options::default());
    let text = if command.json { format!("{}\n", answer(&verdict)) } else { describe(&verdict) };
    console::print(text)?;
    Ok(if verdict.status == Status::Calls { Exit::Success } else { Exit::Negative })
}

fn answer(verdict: &Verdict) -> Value {
    json!({"status": verdict.status, "calls": verdict.calls, "why": verdict.why})
}

fn describe(verdict: &Verdict) -> String {
    let mut text = match verdict.status {
        Status::Calls => format!("{}\n", plural(verdict.calls.len() as u64, "call")),
        Status::None => "no call\n".to_owned(),
        Status::Malformed => "malformed\n".to_owned(),
    };
    for call in &verdict.calls {
        let repairs: Vec<String> = call
            .repairs
            .iter()
            .filter_map(|r| serde_json::to_value(r).ok()?.as_str().map(str::to_owned))
            .collect();
        let repaired =
            if repairs.is_empty() { String::new() } else { format!(", repaired: {}", repairs.join(", ")) };
        let arguments = format!("{:#}", call.arguments).replace('\n', "\n  ");
        text.push_str(&format!(
            "{} at bytes {} to {}{repaired}\n  {}\n",
            sanitize::line(&call.tool),
            call.start,
            call.end,
            sanitize::text(&arguments)
        ));
    }
    if let Some(why) = &verdict.why {
        text.push_str(&format!("why: {}\n", sanitize::line(why)));
    }
    text
}

/// One line of `--chunks`. Other keys are let through, so that a file of cases may hold what is expected.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    id: Value,
    chunks: Vec<Chunk>,
    #[serde(default)]
    end: CaseEnd,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a chunk is a string or {\"hex\": \"…\"}")]
enum Chunk {
    Text(String),
    Hex { hex: String },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CaseEnd {
    #[default]
    Stop,
    Length,
}

fn lines(mut input: impl BufRead) -> Result<Exit> {
    let mut out = io::stdout().lock();
    let (mut line, mut number, mut bad) = (Vec::new(), 0u64, false);
    loop {
        line.clear();
        number += 1;
        if input.by_ref().take(LIMIT).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let too_long = line.len() as u64 == LIMIT && line.last() != Some(&b'\n');
        if too_long {
            input.skip_until(b'\n')?;
        } else if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let judged =
            if too_long { Err(format!("it is longer than {} MiB", LIMIT >> 20)) } else { judge(&line) };
        let reply = judged.unwrap_or_else(|why| {
            bad = true;
            // The id helps to find the line, where there is one.
            let id = serde_json::from_slice::<Value>(&line).map_or(Value::Null, |v| v["id"].clone());
            json!({"id": id, "error": format!("line {number}: {why}")})
        });
        serde_json::to_writer(&mut out, &reply).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    if bad {
        return Err(Failure::misuse("some lines are not cases; their answers say why"));
    }
    Ok(Exit::Success)
}

fn judge(line: &[u8]) -> Result<Value, String> {
    let case: Case = serde_json::from_slice(line).map_err(|e| format!("not a case: {e}"))?;
    let end = match case.end {
        CaseEnd::Stop => End::Stop,
        CaseEnd::Length => End::Length,
    };
    let mut parser = Parser::new(Options::default());
    let mut events = Vec::new();
    for chunk in &case.chunks {
        match chunk {
            Chunk::Text(text) => parser.feed(text.as_bytes(), &mut events),
            Chunk::Hex { hex } => parser.feed(&unhex(hex)?, &mut events),
        }
    }
    parser.finish(end, &mut events);
    let verdict = tool_stream::verdict(events);
    let mut reply = answer(&verdict);
    if let Value::Object(map) = &mut reply {
        map.shift_insert(0, "id".into(), case.id);
    }
    Ok(reply)
}

fn unhex(hex: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => Ok(digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()),
        _ => Err("\"hex\" must be pairs of hexadecimal digits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_come_in_pairs() {
        assert_eq!(unhex("00fF7b"), Ok(vec![0, 255, 123]));
        assert!(unhex("0").is_err() && unhex("0g").is_err() && unhex("é").is_err());
    }

    #[test]
    fn a_chunk_border_inside_a_character_is_no_matter() {
        // "é" in two pieces, in a string of a call
        let line = br#"{"id":7,"chunks":["{\"tool\":\"t\",\"arguments\":{\"a\":\"",{"hex":"c3"},{"hex":"a9"},"\"}}"]}"#;
        let reply = judge(line).unwrap();
        assert_eq!(reply["id"], 7);
        assert_eq!(reply["calls"][0]["arguments"]["a"], "é");
        assert_eq!(reply["calls"][0]["end"], 35);
    }
}
