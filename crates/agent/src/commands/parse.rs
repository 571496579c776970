//! `agent parse`: shows which tool calls a run in this repository would find in a model's output.
//! This is useful for debugging a model, and for testing the parser from the outside: `--chunks`
//! reads JSON lines and responds to each one immediately.
//!
//! It uses the same tools, parser options and validation as a run ([`planner::judge`]).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use planner::judge::{self, Judged, JudgedCall};
use serde::Deserialize;
use serde_json::{Value, json};
use tool_api::Registry;
use tool_stream::{End, Status};
use workspace::Workspace;

use crate::cli::Parse;
use crate::confinement;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Failure, Result};
use crate::figures::plural;
use crate::masking;
use crate::sanitize;
use crate::session::{self, Additions};

/// Maximum size, in bytes, of the input or, with `--chunks`, of each line. It is several times the
/// size of the longest valid call.
const LIMIT: u64 = 128 << 20;

/// Parses a file, standard input, or lines of chunks.
pub(crate) fn run(command: &Parse, context: &Context) -> Result<Exit> {
    let tools = tools(context)?;
    let path = command.file.as_deref().filter(|path| *path != Path::new("-"));
    let mut input: Box<dyn Read> = match path {
        None => Box::new(io::stdin().lock()),
        Some(path) => Box::new(
            File::open(path).map_err(|e| Failure::misuse(format!("cannot open {}: {e}", path.display())))?,
        ),
    };
    if command.chunks {
        return lines(&tools, BufReader::new(input));
    }
    let mut bytes = Vec::new();
    input.by_ref().take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Failure::misuse(format!("the input is larger than {} MiB", LIMIT >> 20)));
    }
    let judged = judge::answer(&tools, [bytes.as_slice()], End::Stop);
    let text = if command.json { format!("{}\n", answer(&judged)) } else { describe(&judged) };
    console::print(text)?;
    Ok(if judged.calls.iter().any(|call| call.judged.is_ok()) { Exit::Success } else { Exit::Negative })
}

/// Returns the tools that a run in this repository would offer. They are never called, so they do
/// not need a state folder.
fn tools(context: &Context) -> Result<Registry> {
    let settings = context.resolve(&[])?.settings()?;
    let root = context.repository.as_ref().unwrap_or(&context.directory);
    let variables: Vec<_> = std::env::vars_os().collect();
    let secrets = masking::secrets(&settings, &variables, "parse");
    let sandbox = confinement::sandbox(&settings, root, None, variables)?;
    let workspace = Workspace::open(root).map_err(Failure::refused)?;
    let nowhere = Path::new("");
    let toolbox =
        session::toolbox_on(workspace, &settings, &secrets, nowhere, sandbox, Additions::default(), |tool| {
            tool
        });
    Ok(toolbox?.registry)
}

fn answer(judged: &Judged) -> Value {
    let calls: Vec<Value> = judged.calls.iter().map(call).collect();
    json!({"status": judged.status, "calls": calls, "why": judged.why})
}

/// Describes a call. An accepted call is shown as it would run, and also as written if the two
/// differ. A refused call is shown as written, with the reason.
fn call(call: &JudgedCall) -> Value {
    let JudgedCall { found, repairs, judged } = call;
    let mut value = json!({
        "tool": found.tool, "arguments": found.arguments, "start": found.start, "end": found.end,
        "repaired": found.repaired,
    });
    match judged {
        Ok(accepted) => {
            if (&accepted.spec.name, &accepted.arguments) != (&found.tool, &found.arguments) {
                value["written"] = json!({"tool": found.tool, "arguments": found.arguments});
                value["tool"] = accepted.spec.name.as_str().into();
                value["arguments"] = accepted.arguments.clone();
            }
            let notes: Vec<&String> = repairs.iter().chain(&accepted.notes).collect();
            if !notes.is_empty() {
                value["repaired"] = true.into();
                value["repairs"] = json!(notes);
            }
        }
        Err(why) => {
            if !repairs.is_empty() {
                value["repairs"] = json!(repairs);
            }
            value["refused"] = why.as_str().into();
        }
    }
    value
}

fn describe(judged: &Judged) -> String {
    let mut text = match judged.status {
        Status::Calls => format!("{}\n", plural(judged.calls.len() as u64, "call")),
        Status::None => "no call\n".to_owned(),
        Status::Malformed => "malformed\n".to_owned(),
    };
    for JudgedCall { found, repairs, judged } in &judged.calls {
        let (tool, arguments, notes) = match judged {
            Ok(accepted) => (accepted.spec.name.as_str(), &accepted.arguments, accepted.notes.as_slice()),
            Err(_) => (found.tool.as_str(), &found.arguments, &[][..]),
        };
        let notes: Vec<&str> = repairs.iter().chain(notes).map(String::as_str).collect();
        let repaired =
            if notes.is_empty() { String::new() } else { format!(", repaired: {}", notes.join(", ")) };
        let arguments = format!("{arguments:#}").replace('\n', "\n  ");
        text.push_str(&format!(
            "{} at bytes {} to {}{}\n  {}\n",
            sanitize::line(tool),
            found.start,
            found.end,
            sanitize::line(&repaired),
            sanitize::text(&arguments)
        ));
        if let Err(why) = judged {
            text.push_str(&format!("  refused: {}\n", sanitize::line(why)));
        }
    }
    if let Some(why) = &judged.why {
        text.push_str(&format!("why: {}\n", sanitize::line(why)));
    }
    text
}

/// A line of `--chunks` input. Unknown keys are ignored, so that a file of cases can also contain
/// the expected results.
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

fn lines(tools: &Registry, mut input: impl BufRead) -> Result<Exit> {
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
            if too_long { Err(format!("longer than {} MiB", LIMIT >> 20)) } else { judge(tools, &line) };
        let reply = judged.unwrap_or_else(|why| {
            bad = true;
            // An invalid line may still have an id, which helps the caller find the line.
            let id = serde_json::from_slice::<Value>(&line).map_or(Value::Null, |v| v["id"].clone());
            json!({"id": id, "error": format!("line {number}: {why}")})
        });
        serde_json::to_writer(&mut out, &reply).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    if bad {
        return Err(Failure::misuse("some lines are invalid; see their answers for details"));
    }
    Ok(Exit::Success)
}

fn judge(tools: &Registry, line: &[u8]) -> Result<Value, String> {
    let case: Case = serde_json::from_slice(line).map_err(|e| format!("invalid case: {e}"))?;
    let end = match case.end {
        CaseEnd::Stop => End::Stop,
        CaseEnd::Length => End::Length,
    };
    let chunks = case.chunks.into_iter().map(|chunk| match chunk {
        Chunk::Text(text) => Ok(text.into_bytes()),
        Chunk::Hex { hex } => replay::unhex(&hex).ok_or("\"hex\" must be pairs of hexadecimal digits"),
    });
    let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
    let mut reply = answer(&judge::answer(tools, chunks.iter().map(Vec::as_slice), end));
    if let Value::Object(map) = &mut reply {
        map.shift_insert(0, "id".into(), case.id);
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_may_end_inside_a_character() {
        // "é" in two pieces, in a string of a call
        let line = br#"{"id":7,"chunks":["{\"tool\":\"t\",\"arguments\":{\"a\":\"",{"hex":"c3"},{"hex":"a9"},"\"}}"]}"#;
        let reply = judge(&Registry::default(), line).unwrap();
        assert_eq!(reply["id"], 7);
        assert_eq!(reply["calls"][0]["arguments"]["a"], "é");
        assert_eq!(reply["calls"][0]["end"], 35);
    }
}
