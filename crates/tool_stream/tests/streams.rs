//! Checks the parser against every recorded stream in `fixtures/streams`, chunked in different
//! ways.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tool_stream::{End, Event, Options, Parser, verdict};

struct Fixture {
    id: String,
    chunks: Vec<Vec<u8>>,
    end: End,
    options: Options,
    expect: Value,
}

fn fixtures() -> Vec<Fixture> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/streams");
    let list = |dir| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut paths: Vec<_> = list(dir.clone()).chain(list(dir.join("families"))).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines() {
            let v: Value = serde_json::from_str(line).unwrap();
            all.push(fixture(&v));
        }
    }
    all
}

fn fixture(v: &Value) -> Fixture {
    let chunks = v["chunks"].as_array().unwrap().iter().map(|c| match c {
        Value::String(text) => text.clone().into_bytes(),
        other => {
            let hex = other["hex"].as_str().unwrap();
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
        }
    });
    let options = Options {
        whole_file: v["whole_file"] == true,
        starts_thinking: v["starts_thinking"] == true,
        known_tools: v["tools"]
            .as_array()
            .map(|t| t.iter().map(|t| t.as_str().unwrap().to_owned()).collect()),
        ..Options::default()
    };
    Fixture {
        id: v["id"].as_str().unwrap().to_owned(),
        chunks: chunks.collect(),
        end: match v["end"].as_str().unwrap() {
            "stop" => End::Stop,
            "length" => End::Length,
            _ => End::Cut,
        },
        options,
        expect: v["expect"].clone(),
    }
}

/// Returns the events of a stream, with adjacent pieces of text joined.
fn events<'a>(fixture: &Fixture, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut parser = Parser::new(fixture.options.clone());
    let mut joined: Vec<Event> = Vec::new();
    let mut out = Vec::new();
    for chunk in chunks {
        parser.feed(chunk, &mut out);
        join(&mut joined, &mut out);
    }
    parser.finish(fixture.end, &mut out);
    join(&mut joined, &mut out);
    joined
}

fn join(joined: &mut Vec<Event>, out: &mut Vec<Event>) {
    for event in out.drain(..) {
        match (joined.last_mut(), event) {
            (Some(Event::Text(a)), Event::Text(b)) | (Some(Event::Thinking(a)), Event::Thinking(b)) => {
                a.push_str(&b)
            }
            (_, event) => joined.push(event),
        }
    }
}

/// Converts events to the format of a fixture's `expect`.
fn observed(events: Vec<Event>, expect: &Value) -> Value {
    let mut text = String::new();
    let mut thinking = String::new();
    for event in &events {
        match event {
            Event::Text(t) => text.push_str(t),
            Event::Thinking(t) => thinking.push_str(t),
            _ => {}
        }
    }
    let verdict = verdict(events);
    let mut seen = json!({"status": verdict.status, "calls": verdict.calls});
    // Compare spans and repairs only if the fixture specifies them.
    for (i, call) in seen["calls"].as_array_mut().into_iter().flatten().enumerate() {
        if let (Some(call), Some(wanted)) = (call.as_object_mut(), expect["calls"][i].as_object()) {
            call.retain(|key, _| wanted.contains_key(key) || key == "tool" || key == "arguments");
        }
    }
    if let Some(want) = expect["why"].as_str() {
        let why = verdict.why.unwrap_or_default();
        seen["why"] = if why.contains(want) { want.into() } else { why.into() };
    }
    if expect.get("text").is_some() {
        seen["text"] = text.into();
    }
    if expect.get("thinking").is_some() {
        seen["thinking"] = thinking.into();
    }
    seen
}

/// A small deterministic random number generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[test]
fn every_stream_is_read_as_its_fixture_expects() {
    let all = fixtures();
    assert!(all.len() >= 200, "only {} fixtures", all.len());
    let mut wrong = Vec::new();
    for fixture in &all {
        let seen = observed(events(fixture, fixture.chunks.iter().map(Vec::as_slice)), &fixture.expect);
        if seen != fixture.expect {
            wrong.push(format!("{}\n  expected {}\n  observed {seen}", fixture.id, fixture.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {} fixtures failed:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

#[test]
fn chunk_boundaries_do_not_change_events() {
    for fixture in fixtures() {
        let whole = fixture.chunks.concat();
        let reference = events(&fixture, std::iter::once(whole.as_slice()));
        assert_eq!(events(&fixture, whole.chunks(1)), reference, "{} in one-byte chunks", fixture.id);
        assert_eq!(
            events(&fixture, fixture.chunks.iter().map(Vec::as_slice)),
            reference,
            "{} in its own chunks",
            fixture.id
        );
        let mut random = Random(7);
        for round in 0..if whole.len() > 2000 { 4 } else { 20 } {
            let mut rest = whole.as_slice();
            let mut chunks = Vec::new();
            while !rest.is_empty() {
                let (chunk, more) = rest.split_at(1 + random.below(rest.len().min(1 + 5 * round)));
                chunks.push(chunk);
                rest = more;
            }
            assert_eq!(events(&fixture, chunks.into_iter()), reference, "{} in random chunks", fixture.id);
        }
    }
}

/// Damage makes the parser wait for more bytes in unusual places.
#[test]
fn chunk_boundaries_do_not_change_the_events_of_damaged_streams() {
    let all = fixtures();
    let mut random = Random(11);
    for fixture in &all {
        let whole = fixture.chunks.concat();
        for _ in 0..6 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                let to = (at + 1 + random.below(12)).min(bytes.len());
                match random.below(4) {
                    _ if bytes.is_empty() => {}
                    0 => drop(bytes.drain(at..to)),
                    1 => bytes[at] = [b'<', b'>', b'\\', b'"', b'\n', b'(', b'`', 0xFF][random.below(8)],
                    2 => bytes.insert(at, [b' ', b'{', b'}', b'[', b'|', b'\'', b'/', 0xE2][random.below(8)]),
                    _ => {
                        let other = all[random.below(all.len())].chunks.concat();
                        let from = random.below(other.len().max(1)).min(other.len());
                        let piece = &other[from..(from + 40).min(other.len())];
                        bytes.splice(at..at, piece.iter().copied());
                    }
                }
            }
            let reference = events(fixture, std::iter::once(bytes.as_slice()));
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(events(fixture, bytes.chunks(1)), reference, "{} damaged: {text:?}", fixture.id);
            assert_eq!(events(fixture, bytes.chunks(7)), reference, "{} damaged: {text:?}", fixture.id);
        }
    }
}

/// A truncated answer never contains a call that the full answer does not.
#[test]
fn truncation_never_creates_a_call() {
    let mut wrong = Vec::new();
    for fixture in fixtures() {
        let whole = fixture.chunks.concat();
        let calls = |bytes: &[u8], end| {
            let calls = tool_stream::parse(bytes, end, fixture.options.clone()).calls;
            calls.into_iter().map(|call| (call.tool, call.arguments)).collect::<Vec<_>>()
        };
        // Text before an orphaned closing tag becomes thinking only when the tag arrives, so do not
        // truncate the answer before the tag.
        let orphan = events(&fixture, std::iter::once(whole.as_slice()))
            .iter()
            .find_map(|event| if let Event::OrphanThink { at } = event { Some(*at) } else { None });
        let from = orphan.map_or(0, |at| at + 32).min(whole.len());
        let all = calls(&whole, fixture.end);
        let step = 1 + whole.len() / 200;
        for cut in (from..whole.len()).step_by(step) {
            let some = calls(&whole[..cut], End::Length);
            if !all.starts_with(&some) {
                wrong.push(format!("{} cut at {cut}: {some:?}", fixture.id));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A call that was opened either completes under the same name or is reported as malformed. If it
/// completes, its arguments match the fields that were reported earlier.
#[test]
fn early_events_are_never_contradicted() {
    for fixture in fixtures() {
        let mut open: Option<(usize, String, serde_json::Map<String, Value>)> = None;
        for event in events(&fixture, fixture.chunks.iter().map(Vec::as_slice)) {
            match event {
                Event::CallOpened { call, tool } => {
                    assert!(open.is_none(), "{}: opened twice", fixture.id);
                    open = Some((call, tool, serde_json::Map::new()));
                }
                Event::FieldClosed { call, name, value } => {
                    let (number, _, fields) =
                        open.as_mut().unwrap_or_else(|| panic!("{}: field without a call", fixture.id));
                    assert_eq!(*number, call, "{}", fixture.id);
                    fields.insert(name, value);
                }
                Event::CallComplete(call) => {
                    let (number, tool, fields) =
                        open.take().unwrap_or_else(|| panic!("{}: completed but never opened", fixture.id));
                    assert_eq!((number, tool), (call.call, call.tool), "{}", fixture.id);
                    if let Value::Object(arguments) = call.arguments
                        && fixture.id != "clean/duplicate-arguments"
                    {
                        assert_eq!(fields, arguments, "{}", fixture.id);
                    }
                }
                Event::Malformed { .. } => open = None,
                _ => {}
            }
        }
        assert!(open.is_none(), "{}: a call was opened but never completed", fixture.id);
    }
}
