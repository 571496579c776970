//! Parses arbitrary bytes with several chunk sizes. The parser must not panic, must emit the same
//! events for every chunk size, and must never retract an event. The first byte selects the chunk
//! size and the options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tool_stream::{End, Event, Options, Parser};

fn events(options: &Options, bytes: &[u8], chunk: usize) -> Vec<Event> {
    let mut parser = Parser::new(options.clone());
    let mut joined: Vec<Event> = Vec::new();
    let mut out = Vec::new();
    for piece in bytes.chunks(chunk) {
        parser.feed(piece, &mut out);
        join(&mut joined, &mut out);
    }
    parser.finish(End::Stop, &mut out);
    join(&mut joined, &mut out);
    joined
}

fn join(joined: &mut Vec<Event>, out: &mut Vec<Event>) {
    for event in out.drain(..) {
        match (joined.last_mut(), event) {
            (Some(Event::Text(a)), Event::Text(b)) | (Some(Event::Thinking(a)), Event::Thinking(b)) => a.push_str(&b),
            (_, event) => joined.push(event),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let options = Options {
        whole_file: choice & 0x40 != 0,
        starts_thinking: choice & 0x20 != 0,
        known_tools: (choice & 0x80 != 0).then(|| vec!["read_file".into(), "apply_patch".into()]),
        max_call_bytes: 4096,
        ..Options::default()
    };
    let whole = events(&options, bytes, bytes.len().max(1));
    assert_eq!(whole, events(&options, bytes, 1), "one-byte chunks");
    assert_eq!(whole, events(&options, bytes, 2 + usize::from(choice & 0x1F)), "chunks");
    let mut open = None;
    for event in whole {
        match event {
            Event::CallOpened { call, tool } => assert!(open.replace((call, tool)).is_none(), "opened twice"),
            Event::FieldClosed { call, .. } => assert_eq!(open.as_ref().map(|o| o.0), Some(call)),
            Event::CallComplete(call) => {
                assert_eq!(open.take(), Some((call.call, call.tool)));
                assert!(call.start < call.end && call.end <= bytes.len());
            }
            Event::Malformed { .. } => open = None,
            _ => {}
        }
    }
    assert!(open.is_none(), "every opened call should be closed");
});
