//! Measures the engine:
//! `cargo run --release -p engine --example engine_bench FILE.gguf [TOKENS [CACHE_FOLDER]]`.
//!
//! Prints a JSON object that includes the seconds it takes to load the model, the prompt and
//! generation rates in tokens per second, the number of tokens that a second turn evaluates, the
//! generation rates for tool calls with and without a constraint, and the peak memory usage.
//! `scripts/bench-engine` compares the engine with llama-server.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::sync::Arc;
use std::time::Instant;

use engine::{Embedded, Options};
use futures_util::StreamExt;
use models::profile::Profiles;
use models::{Delta, Message, Model, Request, Role, Think, Usage};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

fn message(role: Role, content: &str) -> Arc<Message> {
    Message::new(role, content).into()
}

/// Sends the request. Returns the text, the usage, the seconds until the first text, and the
/// seconds until the end.
async fn ask(model: &Embedded, request: &Request) -> Result<(String, Usage, f64, f64), Failure> {
    let from = Instant::now();
    let (mut text, mut usage, mut first) = (String::new(), Usage::default(), 0.0);
    let mut deltas = model.stream(request).await?;
    while let Some(delta) = deltas.next().await {
        match delta? {
            Delta::Text(more) => {
                if text.is_empty() {
                    first = from.elapsed().as_secs_f64();
                }
                text.push_str(&more);
            }
            Delta::End(end) => usage = end.usage,
            _ => {}
        }
    }
    Ok((text, usage, first, from.elapsed().as_secs_f64()))
}

/// The number of answer pairs used to compute the rates for tool calls. Each pair is one answer
/// with a constraint and one without. An additional pair runs first and is not included in the
/// rates.
const PAIRS: usize = 4;
const CALL_RULES: &str = "You act by calling tools. Answer with exactly one JSON object and nothing else:\n\
    {\"tool\": \"NAME\", \"arguments\": {...}}\n\nTools:\n\
    read_file: Show a file. {\"path\": string}\n\
    write_file: Write a file. {\"path\": string, \"content\": string}";
const CALL_TASK: &str = "Write account.py, a Python class for a bank account with tests.";

/// Returns the schema for the calls that `CALL_RULES` describes.
fn call_schema() -> Value {
    let call = |name: &str, arguments: &[&str]| {
        let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let texts: serde_json::Map<_, _> =
            arguments.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        let arguments = object(texts.into(), arguments);
        object(json!({"tool": {"const": name}, "arguments": arguments}), &["tool", "arguments"])
    };
    json!({"anyOf": [call("read_file", &["path"]), call("write_file", &["path", "content"])]})
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn rate(tokens: Option<u64>, ms: Option<f64>) -> f64 {
    tokens.unwrap_or(0) as f64 * 1e3 / ms.unwrap_or(f64::INFINITY)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: engine_bench FILE.gguf [TOKENS [CACHE_FOLDER]]")?;
    let tokens = arguments.next().map_or(Ok(128), |n| n.parse())?;
    let cache = arguments.next().map(Into::into);
    let from = Instant::now();
    let options = Options {
        file: file.clone().into(),
        name: String::from("bench"),
        window: Some(8192),
        gpu_layers: 0,
        think: Think::Auto,
        profiles: Profiles::default(),
        cache,
        trial: Vec::new(),
    };
    let model = Embedded::open(options).await?;
    let load = from.elapsed().as_secs_f64();
    let rules = "You repair programs. Answer with code only. ".repeat(40);
    let mut request = Request {
        messages: vec![
            message(Role::System, &rules),
            message(Role::User, "Write a Python class for a bank account with tests."),
        ],
        temperature: Some(0.0),
        max_tokens: tokens,
        ..Request::default()
    };
    let (text, one, first, _) = ask(&model, &request).await?;
    eprintln!("{text}");
    request.messages.push(message(Role::Assistant, &text));
    request.messages.push(message(Role::User, "Now add a method that transfers money."));
    let (_, two, second, _) = ask(&model, &request).await?;
    let call = Request {
        // Because the conversation already contains a call, the model writes the next one in the
        // same form, whether constrained or not.
        messages: vec![
            message(Role::System, CALL_RULES),
            message(Role::User, CALL_TASK),
            message(Role::Assistant, r#"{"tool": "read_file", "arguments": {"path": "account.py"}}"#),
            message(Role::User, "read_file account.py: refused\naccount.py does not exist"),
        ],
        max_tokens: tokens,
        ..request.clone()
    };
    let constrained = Request { constraint: Some(call_schema().into()), ..call.clone() };
    // The rates leave out the first pair, which compiles the schema and evaluates the prompt.
    let (mut rates, mut firsts) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for pair in 0..=PAIRS {
        // Alternate the order of the two kinds, so that a machine slowdown affects both.
        for kind in [pair % 2, 1 - pair % 2] {
            let (text, usage, first, _) = ask(&model, [&call, &constrained][kind]).await?;
            firsts[kind].push(first);
            if pair == 0 {
                eprintln!("{text}");
            } else {
                rates[kind].push(rate(usage.generated_tokens, usage.generation_ms));
            }
        }
    }
    let [call_rate, constrained_rate] = rates.map(median);
    let four = (0..4).map(|seed| Request { temperature: Some(0.8), seed: Some(seed), ..request.clone() });
    let from = Instant::now();
    let answers: Vec<Request> = four.collect();
    let together = futures_util::future::join_all(answers.iter().map(|request| ask(&model, request))).await;
    let generated: u64 = together.iter().flatten().filter_map(|(_, usage, ..)| usage.generated_tokens).sum();
    let batch = generated as f64 / from.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim().to_owned();
    println!(
        "{{\"load_s\":{load:.3},\"prompt_tokens\":{},\"prompt_rate\":{:.1},\"first_s\":{first:.3},\"rate\":{:.2},\
         \"second_cached\":{},\"second_evaluated\":{},\"second_first_s\":{second:.3},\"second_rate\":{:.2},\"four_rate\":{batch:.2},\
         \"call_rate\":{call_rate:.2},\"constrained_rate\":{constrained_rate:.2},\"schema_s\":{:.3},\
         \"peak\":\"{}\",\"anon\":\"{}\"}}",
        one.prompt_tokens.unwrap_or(0),
        rate(one.prompt_tokens.map(|all| all - one.cached_tokens.unwrap_or(0)), one.prompt_ms),
        rate(one.generated_tokens, one.generation_ms),
        two.cached_tokens.unwrap_or(0),
        two.prompt_tokens.unwrap_or(0) - two.cached_tokens.unwrap_or(0),
        rate(two.generated_tokens, two.generation_ms),
        firsts[1][0] - firsts[1][1],
        kib("VmHWM:"),
        kib("RssAnon:"),
    );
    Ok(())
}
