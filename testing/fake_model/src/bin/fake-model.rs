//! `fake-model [--port N] [--script FILE.json] [--personality NAME] [--record FILE]`: the scripted
//! model server as a program.
//!
//! Prints its URL as the first line and runs until it is killed. `src/script.rs` describes the
//! format of a script:
//!
//! ```json
//! {"replies": ["Hello.", {"steps": [{"text": "one "}, {"gate": "go"}, {"text": "two"}]}], "fallback": "That was all."}
//! ```
//!
//! `--record` appends each request as a line of JSON. Control paths: `POST /__fake/release/GATE`,
//! `POST /__fake/replies` (a JSON array of more replies), `GET /__fake/requests`, and `GET
//! /__fake/replies` (the record of each reply). Two more control paths wait before they answer:
//! `GET /__fake/reached/GATE` answers once a reply has reached the gate, and `GET
//! /__fake/ended/INDEX` once the reply to request number INDEX has ended. All times are in
//! milliseconds since the server started.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::ExitCode;

use fake_model::{Personality, Script, Server};

const USAGE: &str = "usage: fake-model [--port N] [--script FILE.json] [--record FILE]
                  [--personality ollama|deepseek|vllm|llama-server|lm-studio|generic]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "fake-model: {problem}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (mut port, mut script, mut record, mut personality) = (0, Script::default(), None, None);
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            writeln!(std::io::stdout(), "{USAGE}")?;
            return Ok(());
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"))?;
        match flag.as_str() {
            "--port" => port = value.parse().map_err(|_| format!("--port {value:?} is not a port number"))?,
            "--script" => {
                let text = std::fs::read_to_string(&value).map_err(|e| format!("{value}: {e}"))?;
                script = Script::parse(&text).map_err(|e| format!("{value}: {e}"))?;
            }
            "--record" => record = Some(OpenOptions::new().create(true).append(true).open(&value)?),
            "--personality" => {
                let known = Personality::ALL.into_iter().find(|(name, _)| *name == value);
                personality =
                    Some(known.ok_or_else(|| format!("--personality {value:?} is unknown\n{USAGE}"))?.1);
            }
            _ => return Err(format!("unknown flag {flag}\n{USAGE}").into()),
        }
    }
    if let Some(personality) = personality {
        script.config.personality = personality;
    }
    let server = Server::play(script, port)?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", server.url())?;
    out.flush()?;
    match record {
        Some(file) => write_requests(&server, file),
        None => loop {
            std::thread::park();
        },
    }
}

/// Writes each request as it arrives, until the process is killed.
fn write_requests(server: &Server, mut file: File) -> Result<(), Box<dyn Error>> {
    let mut written = 0;
    loop {
        server.block_until_requests(written + 1);
        for request in server.requests_json(written) {
            writeln!(file, "{request}")?;
            written += 1;
        }
        file.flush()?;
    }
}
