//! Measures throughput in MB/s and compares it with `serde_json::from_slice` on the same bytes.
//! Also measures the time per byte for inputs of increasing size that are fed one byte at a time.
//! Run with `cargo bench -p tool_stream`.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tool_stream::{End, Event, Options, Parser};

/// Returns a call whose patch is about `size` bytes of source code.
fn call(size: usize, lines: bool) -> Vec<u8> {
    let line = "        let value = lookup(&mut table, \"key\", index)?; // the usual way\n";
    let count = size / line.len() + 1;
    let patch = if lines { json!(vec![line.trim_end(); count]) } else { json!(line.repeat(count)) };
    json!({"tool": "apply_patch", "arguments": {"patch": patch}}).to_string().into_bytes()
}

fn run(bytes: &[u8], chunk: usize) -> usize {
    run_with(Options::default(), bytes, chunk)
}

/// Like `run`, but the parser reports text arguments line by line.
fn run_followed(bytes: &[u8], chunk: usize) -> usize {
    run_with(Options { followed: vec!["apply_patch".into()], ..Options::default() }, bytes, chunk)
}

fn run_with(options: Options, bytes: &[u8], chunk: usize) -> usize {
    let mut parser = Parser::new(options);
    let mut out = Vec::new();
    let mut calls = 0;
    for piece in bytes.chunks(chunk) {
        parser.feed(piece, &mut out);
        calls += out.drain(..).filter(|e| matches!(e, Event::CallComplete(_))).count();
    }
    parser.finish(End::Stop, &mut out);
    calls
}

/// Returns the best time out of several runs, each of which repeats the work long enough to be
/// measurable.
fn time(mut work: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        let mut rounds = 0;
        while start.elapsed() < Duration::from_millis(60) {
            work();
            rounds += 1;
        }
        best = best.min(start.elapsed() / rounds);
    }
    best
}

fn speed(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / 1e6 / took.as_secs_f64()
}

fn main() {
    println!("{:<34}{:>10}{:>12}{:>8}", "well-formed call, 1 MiB", "MB/s", "serde_json", "ratio");
    for (name, lines) in [("one string, fed whole", false), ("array of lines, fed whole", true)] {
        let bytes = call(1 << 20, lines);
        assert_eq!(run(&bytes, bytes.len()), 1);
        let ours = speed(bytes.len(), time(|| assert_eq!(black_box(run(&bytes, bytes.len())), 1)));
        let serde = speed(
            bytes.len(),
            time(|| {
                let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                black_box(value);
            }),
        );
        println!("{name:<34}{ours:>10.0}{serde:>12.0}{:>8.2}", ours / serde);
    }
    let bytes = call(1 << 20, false);
    for chunk in [4, 64, 4096] {
        let ours = speed(bytes.len(), time(|| assert_eq!(black_box(run(&bytes, chunk)), 1)));
        println!("{:<34}{ours:>10.0}", format!("one string, chunks of {chunk}"));
    }

    println!("\n{:<34}{:>10}", "one-byte chunks", "ns/byte");
    let deformed = |size: usize| {
        let text = String::from_utf8(call(size, false)).unwrap_or_default();
        text.replace("\\n", "\n").replace("\\\"", "\"").into_bytes()
    };
    let prose = |size: usize| "I look at `x` and {y} <z>, then \"go\" on.\n".repeat(size / 41).into_bytes();
    let hostile = |size: usize| "{\"a\":".repeat(size / 5).into_bytes();
    let blank = |size: usize| [b"{\"tool\": \"x y\"".as_slice(), &b" ".repeat(size)].concat();
    type Make<'a> = &'a dyn Fn(usize) -> Vec<u8>;
    let braces = |size: usize| "{tool:!".repeat(size / 7).into_bytes();
    let quotes = |size: usize| [b"{\"tool\": \"x y".as_slice(), &b"\", \"".repeat(size / 4)].concat();
    let one_line = |size: usize| {
        json!({"tool": "apply_patch", "arguments": {"patch": "x".repeat(size)}}).to_string().into_bytes()
    };
    type Run = fn(&[u8], usize) -> usize;
    let kinds: [(&str, Make<'_>, Run); 10] = [
        ("call", &|size| call(size, false), run),
        ("call, followed", &|size| call(size, false), run_followed),
        ("call of one long line, followed", &one_line, run_followed),
        ("call with lines", &|size| call(size, true), run),
        ("call with inner quotes", &deformed, run),
        ("prose", &prose, run),
        ("objects in objects", &hostile, run),
        ("braces that open no object", &braces, run),
        ("quotes that end nothing", &quotes, run),
        ("blanks after a quote", &blank, run),
    ];
    for (name, make, run) in kinds {
        for size in [1 << 10, 1 << 20, 16 << 20] {
            // Leave room for the JSON around the text: a call may be at most 16 MiB long.
            let bytes = make(size - size / 8);
            let runs = if size > 1 << 20 { 1 } else { 3 };
            let mut best = Duration::MAX;
            for _ in 0..runs {
                best = best.min(if size > 1 << 10 {
                    let start = Instant::now();
                    black_box(run(&bytes, 1));
                    start.elapsed()
                } else {
                    time(|| {
                        black_box(run(&bytes, 1));
                    })
                });
            }
            println!(
                "{:<34}{:>10.1}",
                format!("{name}, {} KiB", size >> 10),
                best.as_nanos() as f64 / bytes.len() as f64
            );
        }
    }
}
