//! OpenTelemetry: what the agent sends to a collector, and what it does if a collector misbehaves.
//! `scripts/otel-test` uses a real collector.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::{self, World, json_lines, snapshot};
use fake_model::{Reply, Server};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;

const CAPTURE: (&str, &str) = ("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true");

/// How a collector responds to a request.
#[derive(Clone, Copy)]
enum Answer {
    Accept,
    Refuse,
    /// Reads the request and never answers.
    Nothing,
    /// Answers with endless data.
    Endless,
}

/// A request: its path, its head, and its body.
type Request = (String, String, Vec<u8>);

/// A collector that keeps the requests it receives.
struct Collector {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Collector {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::default();
        let all = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let all = Arc::clone(&all);
                thread::spawn(move || serve(stream.unwrap(), answer, &all));
            }
        });
        Self { url, requests }
    }

    fn bodies<T: Message + Default>(&self, path: &str) -> Vec<T> {
        let requests = self.requests.lock().unwrap();
        let bodies = requests.iter().filter(|request| request.0 == path);
        bodies.map(|(_, _, body)| T::decode(body.as_slice()).unwrap()).collect()
    }

    /// Returns each span with its resource, ordered by start time.
    fn spans(&self) -> Vec<(Resource, Span)> {
        let bodies = self.bodies::<ExportTraceServiceRequest>("/v1/traces");
        let mut spans = Vec::new();
        for resource in bodies.into_iter().flat_map(|body| body.resource_spans) {
            let about = resource.resource.unwrap();
            let all = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(all.map(|span| (about.clone(), span)));
        }
        // If a parent starts at the same time as its children, it sorts before them.
        spans.sort_by_key(|(_, span)| (span.start_time_unix_nano, !span.parent_span_id.is_empty()));
        spans
    }

    fn roots(&self) -> Vec<Span> {
        let spans = self.spans().into_iter().map(|(_, span)| span);
        spans.filter(|span| span.name == "invoke_agent agent").collect()
    }

    /// Returns one number for each metric: the sum of a counter's values, or the number of values
    /// in a histogram.
    fn metrics(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        let bodies = self.bodies::<ExportMetricsServiceRequest>("/v1/metrics");
        let resources = bodies.into_iter().flat_map(|body| body.resource_metrics);
        let metrics = resources.flat_map(|r| r.scope_metrics).flat_map(|scope| scope.metrics);
        for metric in metrics {
            let sum: u64 = match metric.data.unwrap() {
                Data::Histogram(histogram) => histogram.data_points.iter().map(|point| point.count).sum(),
                Data::Sum(sum) => sum
                    .data_points
                    .iter()
                    .map(|point| match point.value.unwrap() {
                        Number::AsInt(n) => u64::try_from(n).unwrap(),
                        Number::AsDouble(_) => 0,
                    })
                    .sum(),
                other => panic!("{other:?}"),
            };
            *sums.entry(metric.name).or_default() += sum;
        }
        sums
    }

    /// Returns whether any request contains this text.
    fn has(&self, text: &str) -> bool {
        let requests = self.requests.lock().unwrap();
        requests.iter().any(|(_, _, body)| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

fn serve(stream: TcpStream, answer: Answer, all: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    all.lock().unwrap().push((path, head, body));
    let mut stream = stream;
    let _ = match answer {
        Answer::Accept => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Answer::Refuse => stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
        // Wait until the agent closes the connection.
        Answer::Nothing => stream.read(&mut [0]).map(|_| ()),
        Answer::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b' '; 4096]).is_ok() {}
            Ok(())
        }
    };
}

fn text(value: &AnyValue) -> String {
    match value.value.as_ref().unwrap() {
        Any::StringValue(text) => text.clone(),
        Any::BoolValue(value) => value.to_string(),
        Any::IntValue(value) => value.to_string(),
        Any::DoubleValue(value) => value.to_string(),
        Any::ArrayValue(array) => array.values.iter().map(text).collect::<Vec<_>>().join(","),
        other => panic!("{other:?}"),
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    attributes.iter().find(|a| a.key == name).map(|a| text(a.value.as_ref().unwrap()))
}

/// Returns the tree of spans with their attributes. If an attribute varies between runs, the tree
/// contains only its name.
fn tree(spans: &[(Resource, Span)]) -> String {
    const VARIES: [&str; 6] = [
        "agent.request.estimated_tokens",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.conversation.id",
    ];
    let mut out = String::new();
    for (_, span) in spans {
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
        let parent = spans.iter().find(|(_, other)| other.span_id == span.parent_span_id);
        let indent = if parent.is_some() { "  " } else { "" };
        let status = span.status.as_ref().map_or(0, |status| status.code);
        let names: BTreeSet<_> = span.attributes.iter().map(|a| &a.key).collect();
        assert_eq!(names.len(), span.attributes.len(), "an attribute is set twice");
        let attributes: BTreeMap<&str, String> =
            span.attributes.iter().map(|a| (a.key.as_str(), text(a.value.as_ref().unwrap()))).collect();
        out += &format!("{indent}{} kind={} status={status}\n", span.name, span.kind);
        let names: Vec<_> = attributes
            .iter()
            .map(
                |(name, value)| {
                    if VARIES.contains(name) { (*name).to_owned() } else { format!("{name}={value}") }
                },
            )
            .collect();
        out += &format!("{indent}  {}\n", names.join(" "));
        for event in &span.events {
            let names: Vec<_> = event
                .attributes
                .iter()
                .map(|a| format!("{}={}", a.key, text(a.value.as_ref().unwrap())))
                .collect();
            out += &format!("{indent}  [{}] {}\n", event.name, names.join(" "));
        }
    }
    out
}

fn agent(world: &World, server: &Server, collector: &str, args: &[&str]) -> Command {
    let mut command = world.agent(args);
    command.env("OLLAMA_HOST", server.url()).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector);
    command
}

const RUN: [&str; 6] =
    ["run", "--model", "deepseek-coder:6.7b", "--approach", "tools", "Make the tests pass. Zebra."];

fn run(world: &World, server: &Server, collector: &str, variables: &[(&str, &str)]) -> Output {
    agent(world, server, collector, &RUN).envs(variables.iter().copied()).output().unwrap()
}

fn call(tool: &str, arguments: serde_json::Value) -> Reply {
    Reply::text(support::call(tool, arguments))
}

/// Starts a model server whose answers read a file, fix the bug and finish.
fn repairing() -> Server {
    let server = Server::start();
    server.enqueue(call("read_file", json!({"path": "add.sh"})));
    server.enqueue(call(
        "apply_patch",
        json!({"edits": [{"path": "add.sh", "search": "$1 - $2", "replace": "$1 + $2"}]}),
    ));
    server.enqueue(call("finish", json!({})));
    server
}

#[test]
fn a_run_is_one_trace_of_requests_tools_and_verifications() {
    let (world, server, collector) = (World::with_a_bug(), repairing(), Collector::start(Answer::Accept));
    let output = run(&world, &server, &collector.url, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let spans = collector.spans();
    snapshot!(tree(&spans), @r"
    invoke_agent agent kind=1 status=0
      agent.ending=verified agent.files_changed=1 agent.lines_added=1 agent.lines_removed=1 agent.session.turns=3 gen_ai.agent.name=agent gen_ai.conversation.id gen_ai.operation.name=invoke_agent gen_ai.request.model=deepseek-coder:6.7b gen_ai.usage.output_tokens
      verify kind=1 status=0
        agent.verification.passed=false gen_ai.conversation.id
      chat deepseek-coder:6.7b kind=3 status=0
        agent.cut_reason=call agent.request.attempts=1 agent.request.estimated_tokens agent.turn=1 gen_ai.conversation.id gen_ai.operation.name=chat gen_ai.provider.name=ollama gen_ai.request.max_tokens=4096 gen_ai.request.model=deepseek-coder:6.7b gen_ai.request.stream=true gen_ai.request.temperature=0 gen_ai.response.finish_reasons=tool_call gen_ai.response.time_to_first_chunk gen_ai.usage.output_tokens
      execute_tool read_file kind=1 status=0
        agent.tool.effect=read agent.turn=1 gen_ai.conversation.id gen_ai.operation.name=execute_tool gen_ai.tool.call.id=1.0 gen_ai.tool.name=read_file gen_ai.tool.type=function
      chat deepseek-coder:6.7b kind=3 status=0
        agent.cut_reason=call agent.request.attempts=1 agent.request.estimated_tokens agent.turn=2 gen_ai.conversation.id gen_ai.operation.name=chat gen_ai.provider.name=ollama gen_ai.request.max_tokens=4096 gen_ai.request.model=deepseek-coder:6.7b gen_ai.request.stream=true gen_ai.request.temperature=0 gen_ai.response.finish_reasons=tool_call gen_ai.response.time_to_first_chunk gen_ai.usage.output_tokens
      execute_tool apply_patch kind=1 status=0
        agent.tool.effect=write agent.turn=2 gen_ai.conversation.id gen_ai.operation.name=execute_tool gen_ai.tool.call.id=2.0 gen_ai.tool.name=apply_patch gen_ai.tool.type=function
      verify kind=1 status=0
        agent.verification.passed=true gen_ai.conversation.id
      chat deepseek-coder:6.7b kind=3 status=0
        agent.cut_reason=call agent.request.attempts=1 agent.request.estimated_tokens agent.turn=3 gen_ai.conversation.id gen_ai.operation.name=chat gen_ai.provider.name=ollama gen_ai.request.max_tokens=4096 gen_ai.request.model=deepseek-coder:6.7b gen_ai.request.stream=true gen_ai.request.temperature=0 gen_ai.response.finish_reasons=tool_call gen_ai.response.time_to_first_chunk gen_ai.usage.output_tokens
      execute_tool finish kind=1 status=0
        agent.tool.effect=read agent.turn=3 gen_ai.conversation.id gen_ai.operation.name=execute_tool gen_ai.tool.call.id=3.0 gen_ai.tool.name=finish gen_ai.tool.type=function
    ");
    let session = world.journal()[0]["id"].as_str().unwrap().to_owned();
    for (resource, span) in &spans {
        assert_eq!(span.trace_id, spans[0].1.trace_id);
        assert_eq!(attribute(&span.attributes, "gen_ai.conversation.id").as_ref(), Some(&session));
        assert_eq!(attribute(&resource.attributes, "service.name").unwrap(), "agent");
        assert_eq!(attribute(&resource.attributes, "service.instance.id").unwrap().len(), 36);
    }
    let times: Vec<u64> = world.journal().iter().map(|r| r["time_ms"].as_u64().unwrap()).collect();
    let nanos = |ms: u64| ms * 1_000_000;
    let root = &spans[0].1;
    assert_eq!(root.start_time_unix_nano, nanos(times[0]));
    assert_eq!(root.end_time_unix_nano, nanos(*times.last().unwrap()));
}

#[test]
fn metrics_count_requests_tokens_tools_and_runs() {
    let (world, collector) = (World::with_a_bug(), Collector::start(Answer::Accept));
    let server = Server::start();
    server.enqueue("I am thinking."); // the answer is not cut off, so the server reports its tokens
    for _ in 0..9 {
        server.enqueue(call("finish", json!({})));
    }
    run(&world, &server, &collector.url, &[]);
    let journal = world.journal();
    let of = |event: &str| journal.iter().filter(|r| r["event"] == event).count() as u64;
    let tokens = |name: &str| -> u64 { journal.iter().filter_map(|r| r["counts"][name].as_u64()).sum() };
    let metrics = collector.metrics();
    assert_eq!(metrics["gen_ai.client.inference.duration"], of("request"));
    assert_eq!(metrics["gen_ai.client.inference.time_to_first_chunk"], of("output"));
    assert_eq!(metrics["gen_ai.client.inference.usage.input_tokens"], tokens("prompt_tokens"));
    assert_eq!(metrics["gen_ai.client.inference.usage.output_tokens"], tokens("generated_tokens"));
    assert!(tokens("prompt_tokens") > 0 && tokens("generated_tokens") > 0);
    assert_eq!(metrics["gen_ai.execute_tool.duration"], of("tool_finished"));
    assert_eq!(metrics["gen_ai.invoke_agent.duration"], 1);
}

#[test]
fn content_is_exported_only_if_it_is_asked_for() {
    let in_content =
        ["Zebra.", "echo $(($1", "You are a coding agent", "sh check.sh", "is -1, not 5", "$1 + $2"];
    let (world, server, collector) = (World::with_a_bug(), repairing(), Collector::start(Answer::Accept));
    run(&world, &server, &collector.url, &[]);
    assert!(collector.has("read_file"));
    for content in in_content {
        assert!(!collector.has(content), "{content}");
    }
    let (world, server, collector) = (World::with_a_bug(), repairing(), Collector::start(Answer::Accept));
    run(&world, &server, &collector.url, &[CAPTURE]);
    for content in in_content {
        assert!(collector.has(content), "{content}");
    }
    let spans = collector.spans();
    let chats: Vec<_> = spans.iter().filter(|(_, span)| span.name.starts_with("chat ")).collect();
    let messages = |n: usize, name: &str| -> serde_json::Value {
        serde_json::from_str(&attribute(&chats[n].1.attributes, name).unwrap()).unwrap()
    };
    assert_eq!(messages(1, "gen_ai.input.messages").as_array().unwrap().len(), 3);
    assert_eq!(messages(1, "gen_ai.input.messages")[1], messages(0, "gen_ai.output.messages")[0]);
}

#[test]
fn exported_content_is_masked() {
    const KEY: &str = "Zx81-spectrum-48k";
    let (world, server, collector) = (World::new(), Server::start(), Collector::start(Answer::Accept));
    server.enqueue(Reply::text(format!("The key is {KEY}, I think.")));
    let headers = format!("x-team-key={KEY}");
    let variables = [CAPTURE, ("OTEL_EXPORTER_OTLP_HEADERS", headers.as_str())];
    for _ in 0..9 {
        server.enqueue(call("run_command", json!({"command": "env; true $RANDOM"})));
    }
    run(&world, &server, &collector.url, &variables);
    assert!(collector.has("The key is [secret-") && !collector.has(KEY));
    assert!(collector.has("PATH=/") && !collector.has("OTEL_"), "commands must not get the variable");
    let requests = collector.requests.lock().unwrap();
    assert!(!requests.is_empty() && requests.iter().all(|(_, head, _)| head.contains(KEY)));
}

#[test]
fn a_retried_request_is_one_span_with_an_event_for_each_retry() {
    let (world, server, collector) = (World::new(), Server::start(), Collector::start(Answer::Accept));
    server.enqueue(Reply::error(503, "server busy, please try again"));
    for _ in 0..9 {
        server.enqueue(call("finish", json!({})));
    }
    run(&world, &server, &collector.url, &[]);
    let spans = collector.spans();
    let first = &spans.iter().find(|(_, span)| span.name.starts_with("chat ")).unwrap().1;
    assert_eq!(attribute(&first.attributes, "agent.request.attempts").unwrap(), "2");
    assert_eq!(first.events.len(), 1);
    assert_eq!(first.events[0].name, "agent.retry");
    assert_eq!(attribute(&first.events[0].attributes, "error.type").unwrap(), "busy");
}

#[test]
fn a_run_without_a_model_is_a_trace_with_an_error() {
    let (world, collector) = (World::new(), Collector::start(Answer::Accept));
    let output = world
        .agent(&RUN)
        .env("OLLAMA_HOST", "127.0.0.1:9")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let roots = collector.roots();
    assert_eq!(roots.len(), 1);
    assert_eq!(attribute(&roots[0].attributes, "error.type").unwrap(), "unavailable");
    assert_eq!(attribute(&roots[0].attributes, "agent.ending").unwrap(), "unavailable");
    assert_eq!(roots[0].status.as_ref().unwrap().code, 2);
}

#[test]
fn a_resumed_run_is_another_trace_with_the_same_conversation_id() {
    let (world, collector) = (World::with_a_bug(), Collector::start(Answer::Accept));
    let server = repairing();
    let mut args = RUN.to_vec();
    args.insert(1, "--max-turns=1");
    let first = agent(&world, &server, &collector.url, &args).output().unwrap();
    assert_eq!(first.status.code(), Some(4), "{}", world.tell(&first));
    let args = ["resume", "last", "--max-turns=9"];
    let second = agent(&world, &server, &collector.url, &args).env(CAPTURE.0, CAPTURE.1).output().unwrap();
    assert_eq!(second.status.code(), Some(0), "{}", world.tell(&second));
    let roots = collector.roots();
    assert_eq!(roots.len(), 2);
    assert_ne!(roots[0].trace_id, roots[1].trace_id);
    let id = |span: &Span| attribute(&span.attributes, "gen_ai.conversation.id").unwrap();
    assert_eq!(id(&roots[0]), id(&roots[1]));
    let endings = roots.iter().map(|root| attribute(&root.attributes, "agent.ending").unwrap());
    assert_eq!(endings.collect::<Vec<_>>(), ["budget_turns", "verified"]);
    assert!(roots[1].start_time_unix_nano >= roots[0].end_time_unix_nano);
    let spans = collector.spans();
    let resumed: Vec<_> = spans.iter().filter(|(_, span)| span.parent_span_id == roots[1].span_id).collect();
    let chat = &resumed.iter().find(|(_, span)| span.name.starts_with("chat ")).unwrap().1;
    assert_eq!(chat.name, "chat deepseek-coder:6.7b");
    let input = attribute(&chat.attributes, "gen_ai.input.messages").unwrap();
    assert!(input.contains("Zebra."), "the first run's messages are part of the request: {input}");
}

#[test]
fn a_run_belongs_to_the_span_of_its_caller() {
    let (world, server, collector) = (World::with_a_bug(), repairing(), Collector::start(Answer::Accept));
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let variables =
        [("TRACEPARENT", caller), ("OTEL_SERVICE_NAME", "ci"), ("OTEL_RESOURCE_ATTRIBUTES", "team=shop")];
    run(&world, &server, &collector.url, &variables);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (resource, root) = &collector.spans()[0];
    assert_eq!(hex(&root.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&root.parent_span_id), "b7ad6b7169203331");
    assert_eq!(attribute(&resource.attributes, "service.name").unwrap(), "ci");
    assert_eq!(attribute(&resource.attributes, "team").unwrap(), "shop");
}

#[test]
fn each_task_of_a_batch_is_a_trace() {
    let (world, server, collector) = (World::with_a_bug(), Server::start(), Collector::start(Answer::Accept));
    let tasks = crate::batch::tasks(&world, &["one", "two"]);
    crate::batch::fix(&server);
    crate::batch::fix(&server);
    let args = ["batch", "--model", "deepseek-coder:6.7b", "--approach", "tools", &tasks];
    let output = agent(&world, &server, &collector.url, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
    let roots = collector.roots();
    let mut ids: Vec<_> =
        roots.iter().map(|root| attribute(&root.attributes, "agent.task.id").unwrap()).collect();
    ids.sort();
    assert_eq!(ids, ["one", "two"]);
    assert_ne!(roots[0].trace_id, roots[1].trace_id);
    assert_eq!(collector.metrics()["gen_ai.invoke_agent.duration"], 2);
}

#[test]
fn a_collector_that_fails_changes_neither_the_result_nor_the_exit_code() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (collector, why) in [
        (format!("http://{closed}"), "Connection refused"),
        (Collector::start(Answer::Refuse).url, "answered 401 Unauthorized"),
        (Collector::start(Answer::Nothing).url, "not everything was exported within 2s"),
        (Collector::start(Answer::Endless).url, "the response is longer than 64 KiB"),
        ("http://not a host".to_owned(), "telemetry is off: "),
    ] {
        let (world, server) = (World::with_a_bug(), repairing());
        let output = run(&world, &server, &collector, &[]);
        let seen = world.tell(&output);
        assert_eq!(output.status.code(), Some(0), "{seen}");
        assert!(world.read("add.sh").contains("$1 + $2"), "{seen}");
        let warnings: Vec<_> = seen.lines().filter(|line| line.contains("telemetry")).collect();
        assert_eq!(warnings.len(), 1, "{seen}");
        assert!(warnings[0].starts_with("warning: telemetry") && warnings[0].contains(why), "{seen}");
    }
}

#[test]
fn nothing_is_sent_if_the_export_is_turned_off() {
    let collector = Collector::start(Answer::Accept);
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str());
    for variables in [
        vec![("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.url.as_str())],
        vec![endpoint, ("OTEL_SDK_DISABLED", "true")],
        vec![endpoint, ("OTEL_TRACES_EXPORTER", "none"), ("OTEL_METRICS_EXPORTER", "none")],
        vec![endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
    ] {
        let (world, server) = (World::with_a_bug(), repairing());
        let output =
            world.agent(&RUN).env("OLLAMA_HOST", server.url()).envs(variables.clone()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", world.tell(&output));
        assert!(collector.requests.lock().unwrap().is_empty(), "{variables:?}");
    }
    let (world, server) = (World::with_a_bug(), repairing());
    run(&world, &server, &collector.url, &[("OTEL_METRICS_EXPORTER", "none")]);
    assert!(!collector.spans().is_empty() && collector.metrics().is_empty());
}

#[test]
fn the_journal_and_the_events_do_not_depend_on_the_export() {
    let collector = Collector::start(Answer::Accept);
    let events = |collector: &str| {
        let (world, server) = (World::with_a_bug(), repairing());
        let mut args = RUN.to_vec();
        args.insert(1, "--json");
        let output = agent(&world, &server, collector, &args).output().unwrap();
        let lines = json_lines(&String::from_utf8(output.stdout).unwrap());
        lines.iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(events(&collector.url), events(""));
}
