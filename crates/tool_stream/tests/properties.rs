//! Properties that hold for any call. Valid JSON is read as `serde_json` reads it, a damaged call
//! is either refused or read like the undamaged one, and a truncated call is never completed.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tool_stream::{End, Event, Options, Parser, Status, parse};

/// Generates strings that occur in arguments: code, prose, paths, quotes, brackets, and letters
/// from all scripts.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_./]{0,12}",
        "[ -~\\n\\t]{0,40}",
        "\\PC{0,12}",
        Just("fn main() {\n    println!(\"hi, {}\", x);\n}\n".to_owned()),
        Just("d = {\"a\": \"b\", 'c': [1, 2]}\n".to_owned()),
        Just("</think> ```json\n{\"tool\": \"x\", \"arguments\": {}}\n``` <｜tool▁sep｜>".to_owned()),
        Just("\\d+ \\\"x\\\" \u{8}\u{c}\u{0}".to_owned()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6..1e6f64).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(("[a-z_ é:,]{1,8}", inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn arguments() -> impl Strategy<Value = Value> {
    prop::collection::vec(("[a-z_]{1,8}", value()), 0..5)
        .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
        .prop_filter("a schema is not a call", |v| {
            v.get("properties").is_none() && v.get("$schema").is_none()
        })
}

fn call(arguments: &Value) -> Value {
    json!({"tool": "some_tool", "arguments": arguments})
}

fn parsed(text: &str, end: End) -> tool_stream::Verdict {
    parse(text.as_bytes(), end, Options::default())
}

/// Checks that `text` is either refused or read as a call with these arguments.
fn same_or_refused(text: &str, arguments: &Value) -> Result<(), TestCaseError> {
    for call in parsed(text, End::Stop).calls {
        prop_assert_eq!(&call.tool, "some_tool", "in {}", text);
        prop_assert_eq!(&call.arguments, arguments, "in {}", text);
    }
    Ok(())
}

fn same(text: &str, arguments: &Value) -> Result<(), TestCaseError> {
    let verdict = parsed(text, End::Stop);
    prop_assert_eq!(verdict.calls.len(), 1, "in {}: {:?}", text, verdict);
    same_or_refused(text, arguments)
}

/// Applies `f` to the characters of `text` outside of strings.
fn outside_strings(text: &str, mut f: impl FnMut(char) -> String) -> String {
    let (mut out, mut inside, mut escaped) = (String::new(), false, false);
    for c in text.chars() {
        if inside {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => inside = false,
                _ => {}
            }
        } else {
            inside = c == '"';
            out.push_str(&f(c));
        }
    }
    out
}

fn python(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(b) => out.push_str(if *b { "True" } else { "False" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(s) => {
            // Like Python's `repr`, use double quotes only if that avoids an escape.
            let quote = if s.contains('\'') && !s.contains('"') { '"' } else { '\'' };
            out.push(quote);
            for c in s.chars() {
                match c {
                    '\n' => out.push_str("\\n"),
                    '\t' => out.push_str("\\t"),
                    '\r' => out.push_str("\\r"),
                    '\\' => out.push_str("\\\\"),
                    c if c == quote => {
                        out.push('\\');
                        out.push(c);
                    }
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                python(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                python(&Value::from(key.as_str()), out);
                out.push_str(": ");
                python(item, out);
            }
            out.push('}');
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn valid_json_is_read_as_serde_reads_it(args in arguments(), pretty: bool) {
        let call = call(&args);
        let text = if pretty { serde_json::to_string_pretty(&call).unwrap() } else { call.to_string() };
        let verdict = parsed(&text, End::Length);
        prop_assert_eq!(verdict.calls.len(), 1, "{:?} {}", verdict, text);
        prop_assert_eq!(&verdict.calls[0].arguments, &args);
        prop_assert_eq!((verdict.calls[0].start, verdict.calls[0].end), (0, text.len()));
        prop_assert!(!verdict.calls[0].repaired, "{:?} in {}", verdict.calls[0].repairs, text);
    }

    #[test]
    fn unambiguous_repairs_keep_the_arguments(args in arguments()) {
        let text = serde_json::to_string_pretty(&call(&args)).unwrap();
        // Strings with raw newlines and tabs. An `n` after an escaped backslash is not a newline,
        // so it stays.
        let mut raw = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find('\\') {
            raw.push_str(&rest[..at]);
            match &rest[at..at + 2] {
                "\\n" => raw.push('\n'),
                "\\t" => raw.push('\t'),
                other => raw.push_str(other),
            }
            rest = &rest[at + 2..];
        }
        raw.push_str(rest);
        same(&raw, &args)?;
        // In pretty JSON, a closing bracket directly follows an opening bracket only in an empty
        // object or array.
        let mut before = ' ';
        let trailing = outside_strings(&text, |c| {
            let empty = matches!(std::mem::replace(&mut before, c), '{' | '[');
            if matches!(c, '}' | ']') && !empty { format!(",{c}") } else { c.to_string() }
        });
        same_or_refused(&trailing, &args)?;
        let commented = outside_strings(&text, |c| if matches!(c, '{' | ',' | '[') { format!("{c} // \"note\" }}\n/* , */ # x\n") } else { c.to_string() });
        same(&commented, &args)?;
        let mut repr = String::new();
        python(&call(&args), &mut repr);
        same_or_refused(&repr, &args)?;
    }

    #[test]
    fn missing_backslashes_before_quotes_are_repaired_or_refused(args in arguments()) {
        for text in [call(&args).to_string(), serde_json::to_string_pretty(&call(&args)).unwrap()] {
            if !text.contains("\\\\") {
                same_or_refused(&text.replace("\\\"", "\""), &args)?;
            }
        }
    }

    #[test]
    fn removing_or_repeating_a_byte_never_silently_changes_a_call(args in arguments(), at in 0..200usize, twice: bool) {
        let text = call(&args).to_string();
        let at = at % text.len();
        if !text.is_ascii() {
            return Ok(());
        }
        let mut bytes = text.into_bytes();
        if twice { bytes.insert(at, bytes[at]) } else { bytes.remove(at); }
        // If the text is still valid JSON, it may be a different call, which no parser can detect.
        if serde_json::from_slice::<Value>(&bytes).is_err() {
            for call in parse(&bytes, End::Stop, Options::default()).calls {
                prop_assert!(call.repaired || call.end - call.start < bytes.len(), "{:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn chunk_boundaries_do_not_change_the_events_of_any_input(pieces in prop::collection::vec(piece(), 0..12), cut in 1..9usize, whole_file: bool, known: bool) {
        let bytes: Vec<u8> = pieces.concat();
        let known_tools = known.then(|| vec!["f".to_owned(), "read_file".to_owned()]);
        let options = Options { whole_file, known_tools, ..Options::default() };
        let run = |size: usize| in_chunks(&options, &bytes, size);
        let whole = run(bytes.len().max(1));
        prop_assert_eq!(&run(1), &whole);
        prop_assert_eq!(&run(cut), &whole);
        // Later events must not contradict early ones.
        let mut open: Option<(usize, String)> = None;
        let mut end = 0;
        for event in whole {
            match event {
                Event::CallOpened { call, tool } => {
                    prop_assert!(open.is_none(), "opened twice");
                    open = Some((call, tool));
                }
                Event::FieldClosed { call, .. } => prop_assert_eq!(open.as_ref().map(|o| o.0), Some(call)),
                Event::CallComplete(call) => {
                    prop_assert_eq!(open.take(), Some((call.call, call.tool)));
                    prop_assert!(end <= call.start && call.start < call.end && call.end <= bytes.len());
                    end = call.end;
                }
                Event::Malformed { .. } => open = None,
                _ => {}
            }
        }
        prop_assert!(open.is_none(), "opened but never completed");
    }
}

proptest! {
    // Fewer cases, because each one is truncated at every byte.
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_truncated_call_is_never_completed(args in arguments(), single: bool) {
        let mut text = call(&args).to_string();
        if single {
            text.clear();
            python(&call(&args), &mut text);
        }
        for end in [End::Stop, End::Length, End::Cut] {
            for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
                let verdict = parsed(&text[..at], end);
                prop_assert!(verdict.calls.is_empty(), "{:?} from {}", verdict, &text[..at]);
                let expected = if at == 0 { Status::None } else { Status::Malformed };
                prop_assert_eq!(verdict.status, expected, "{}", &text[..at]);
            }
        }
    }
}

/// Generates pieces of a stream, both intact and broken.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "{\"tool\": \"a\", \"arguments\": {\"x\": \"y z\"}}",
        "{\"tool\": \"a\", ",
        "\"arguments\": {\"x\": \"say \"hi\" now\"}}",
        "{'tool': 'a', 'arguments': {'x': 'don't'}}",
        "{\"tool_calls\": [{\"name\": \"a\", \"arguments\": \"{}\"}, ",
        "```json\n",
        "```\n",
        "```",
        "~~~\n",
        "`",
        "``",
        "````md\n",
        "src/a.py\n",
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<function=f>",
        "<parameter=p>",
        "</parameter>",
        "</function>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜DSML｜invoke name=\"f\">",
        "<｜DSML｜parameter name=\"p\" string=\"true\">",
        "</｜DSML｜parameter>",
        "</｜DSML｜invoke>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<|channel|>",
        "<|message|>",
        "<|im_start|>",
        "user",
        "assistant",
        "[TOOL_CALLS]",
        "[ARGS]",
        "functools[",
        "[THINK]",
        "[/THINK]",
        "[THINKING]",
        "◁think▷",
        "◁/think▷",
        "<|think_start|>",
        "<|think_end|>",
        "<tool_call>f",
        "<arg_key>path</arg_key>",
        "<arg_value>a.py</arg_value>",
        "<|channel|>commentary to=functions.f ",
        "<|channel|>analysis<|message|>",
        "<|start|>assistant",
        "<|end|>",
        "<|call|>",
        "<|tool_call>call:f{p:",
        "<|\"|>",
        "<tool_call|>",
        "<|channel>",
        "<channel|>",
        "]<]minimax[>[",
        "<|open|>call tool=\"f\"<|sep|>",
        "<|open|>argument key=\"p\"<|sep|>",
        "<|close|>argument<|sep|>",
        "<|close|>call<|sep|>",
        "[f(a=\"b\")]",
        "f(a='b', c=[1, (2)])",
        "print(f(",
        "```tool_code\n",
        "<f>",
        "<a>b</a>",
        "</f>",
        "<name>f</name>",
        "<item>",
        "Observation: ",
        "### User:",
        "Let me look:\n",
        "Such a call:\n",
        "✿FUNCTION✿",
        "✿ARGS✿",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "'",
        "\"\"\"",
        "“",
        "”",
        "\n",
        "\r\n",
        " ",
        "\\",
        "//",
        "/*",
        "*/",
        "#",
        "tool",
        "For example: ",
        "Action: f\nAction Input: ",
        "True",
        "1.",
        "### Instruction:",
    ]);
    prop_oneof![
        8 => known.prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..6),
        1 => "[a-z \n]{1,6}".prop_map(String::into_bytes),
    ]
}

/// Feeds the bytes to a parser in chunks of `size` bytes. Joins consecutive pieces of text.
fn in_chunks(options: &Options, bytes: &[u8], size: usize) -> Vec<Event> {
    let mut parser = Parser::new(options.clone());
    let mut all = Vec::new();
    bytes.chunks(size).for_each(|chunk| parser.feed(chunk, &mut all));
    parser.finish(End::Stop, &mut all);
    let mut joined: Vec<Event> = Vec::new();
    for event in all {
        match (joined.last_mut(), event) {
            (Some(Event::Text(a)), Event::Text(b)) | (Some(Event::Thinking(a)), Event::Thinking(b)) => {
                a.push_str(&b)
            }
            (_, event) => joined.push(event),
        }
    }
    joined
}

/// The bug: when a gpt-oss header became too long, the parser continued at the end of the chunk
/// instead of the start of the header, and dropped a semicolon there.
#[test]
fn bug_a_header_that_never_ends_lost_a_character_at_its_limit() {
    let call = r#"<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>"#;
    let openers = [
        "<|channel|>commentary to=functions.g",
        "<|start|>assistant to=functions.g",
        "<|tool_call_begin|>functions.g:0",
        "<tool_call>",
        "<function=g",
        "<invoke name=\"g",
        "[TOOL_CALLS]g",
        "```json",
        "f(a=",
        "{\"tool\": ",
        "{ab",
        "<｜tool▁call▁begin｜>function",
    ];
    for opener in openers {
        for filler in [";", "x; ", " ,", "é"] {
            let text = format!("{call}{opener}{}\n{call}", filler.repeat(6_000 / filler.len()));
            let run = |size: usize| in_chunks(&Options::default(), text.as_bytes(), size);
            let whole = run(text.len());
            for size in [1, 2, 3, 5, 7, 17, 64, 255, 511, 512, 513, 600, 4_095, 4_097] {
                assert_eq!(run(size), whole, "{opener} {filler:?} in chunks of {size}");
            }
        }
    }
}

/// Feeds the text to the parser in chunks of `n` bytes. Returns the strings that the parser
/// reported, keyed by path. Fails if the parser did not report the end of one of them.
fn followed(text: &str, n: usize) -> std::collections::BTreeMap<String, String> {
    let mut parser = Parser::new(Options { followed: vec!["edit".into()], ..Options::default() });
    let mut events = Vec::new();
    text.as_bytes().chunks(n).for_each(|chunk| parser.feed(chunk, &mut events));
    parser.finish(End::Stop, &mut events);
    let (mut open, mut closed) =
        (std::collections::BTreeMap::<String, String>::new(), std::collections::BTreeMap::new());
    for event in events {
        if let Event::FieldText { path, text, closed: end, .. } = event {
            open.entry(path.clone()).or_default().push_str(&text);
            if end {
                let text = open.remove(&path).unwrap_or_default();
                assert!(closed.insert(path, text).is_none());
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    closed
}

proptest! {
    #[test]
    fn followed_texts_equal_the_arguments(
        texts in prop::collection::vec("[ab\\\\\"\n\té😀]{0,12}", 1..6), lines in prop::collection::vec("[ab\\\\\"\n]{0,6}", 0..4), n in 1usize..9,
    ) {
        let edits: Vec<Value> = texts.iter().map(|t| json!({"path": "x", "search": t, "replace": lines})).collect();
        let call = json!({"tool": "edit", "arguments": {"patch": texts[0], "edits": edits, "lines": lines, "n": 1}}).to_string();
        let found = followed(&format!("Well.\n{call}\n"), n);
        let mut wanted = std::collections::BTreeMap::from([("patch".to_owned(), texts[0].clone())]);
        for (i, text) in texts.iter().enumerate() {
            wanted.insert(format!("edits/{i}/path"), "x".into());
            wanted.insert(format!("edits/{i}/search"), text.clone());
            wanted.extend(lines.iter().enumerate().map(|(k, line)| (format!("edits/{i}/replace/{k}"), line.clone())));
        }
        wanted.extend(lines.iter().enumerate().map(|(k, line)| (format!("lines/{k}"), line.clone())));
        prop_assert_eq!(found, wanted);
    }
}

#[test]
fn a_text_is_reported_line_by_line_while_it_is_open() {
    let mut parser = Parser::new(Options { followed: vec!["edit".into()], ..Options::default() });
    let mut events = Vec::new();
    parser.feed(br#"{"tool": "edit", "arguments": {"patch": "one\ntwo\nthr"#, &mut events);
    let texts: Vec<&Event> = events.iter().filter(|e| matches!(e, Event::FieldText { .. })).collect();
    assert_eq!(
        texts,
        [&Event::FieldText { call: 0, path: "patch".into(), text: "one\ntwo\n".into(), closed: false }]
    );
}
