//! OpenTelemetry: turns the events of a session into spans and metrics, and sends them to a
//! collector using OTLP over HTTP.
//!
//! [`Telemetry::observer`] returns an observer of a session's journal. Spans take their timestamps
//! from the journal's records, so no other part of the program needs instrumentation, and `tracing`
//! is not used. Names follow the GenAI semantic conventions, version 0.1.0 (`names.rs`).
//!
//! Each run is a separate trace, because a resumed run may start days later and under a different
//! parent, and collectors group spans by time. The `gen_ai.conversation.id` attribute, which
//! contains the session id, connects the runs of a session.
//!
//! Exporting happens on the SDK's threads and never delays a session. The queue holds up to
//! [`MAX_SPANS`] spans; any that do not fit are dropped. [`Telemetry::close`] waits at most
//! [`CLOSE`].
//!
//! This crate does not read the environment, but the SDK does: the collector's address and headers
//! (`OTEL_EXPORTER_OTLP_*`), the resource (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`),
//! sampling (`OTEL_TRACES_SAMPLER*`) and intervals (`OTEL_BSP_*`, `OTEL_METRIC_EXPORT_INTERVAL`).

mod content;
mod metrics;
mod names;
mod sender;
mod span;
mod trace;

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use journal::{Observer, Record};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};

use crate::metrics::Instruments;
pub use crate::sender::Connect;
use crate::sender::{Failure, Sender};
use crate::trace::RunTrace;

/// The maximum number of spans waiting to be exported.
pub const MAX_SPANS: usize = 2048;
/// The maximum number of spans in one request. Even with content, a request of this size stays
/// below 20 MiB.
const MAX_BATCH: usize = 128;
/// How long a process waits for the last export before it exits.
pub const CLOSE: Duration = Duration::from_secs(2);

/// Why some or all data was not exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is unusable.
    #[error("{0}")]
    Setup(String),
    /// An exporter's last request to the collector failed.
    #[error("not everything was exported: {0}")]
    NotSent(String),
    /// The collector was too slow.
    #[error("not everything was exported within {CLOSE:?}")]
    Slow,
}

/// What to export, and how.
pub struct Options {
    /// Creates the HTTP client once there is something to export.
    pub connect: Connect,
    /// The time limit for each request to the collector.
    pub timeout: Duration,
    /// The agent's version.
    pub version: &'static str,
    /// Whether to export spans.
    pub spans: bool,
    /// Whether to export metrics.
    pub metrics: bool,
    /// Whether to export messages, arguments and results.
    pub content: bool,
    /// The parent span of runs, given as the values of the HTTP headers `traceparent` and
    /// `tracestate`.
    pub parent: HashMap<String, String>,
}

/// The exporters of this process.
#[derive(Debug)]
pub struct Telemetry {
    spans: SdkTracerProvider,
    metrics: SdkMeterProvider,
    tracer: SdkTracer,
    instruments: Instruments,
    parent: Context,
    captures_content: bool,
    failures: Vec<Failure>,
}

impl Telemetry {
    /// Starts the exporters. Does not contact the collector until there is something to export.
    ///
    /// # Errors
    /// If the collector's address is invalid, or if the configuration asks for a feature that is
    /// not compiled in.
    pub fn start(options: Options) -> Result<Self, Error> {
        let setup = |error: opentelemetry_otlp::ExporterBuildError| Error::Setup(error.to_string());
        let mut failures = Vec::new();
        let mut sender = || {
            let (sender, failure) = Sender::new(options.connect.clone(), options.timeout);
            failures.push(failure);
            sender
        };
        let resource = resource(options.version);
        let mut spans = SdkTracerProvider::builder().with_resource(resource.clone());
        if options.spans {
            let exporter = SpanExporter::builder().with_http().with_http_client(sender());
            let exporter = exporter.with_protocol(Protocol::HttpBinary).with_timeout(options.timeout);
            let bounds = BatchConfigBuilder::default().with_max_queue_size(MAX_SPANS);
            let bounds = bounds.with_max_export_batch_size(MAX_BATCH).build();
            let exporter = exporter.build().map_err(setup)?;
            spans = spans
                .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(bounds).build());
        }
        let mut metrics = SdkMeterProvider::builder().with_resource(resource);
        if options.metrics {
            let exporter = MetricExporter::builder().with_http().with_http_client(sender());
            let exporter = exporter.with_protocol(Protocol::HttpBinary).with_timeout(options.timeout);
            let exporter = exporter.build().map_err(setup)?;
            metrics = metrics.with_reader(PeriodicReader::builder(exporter).build());
        }
        let (spans, metrics) = (spans.build(), metrics.build());
        let scope = InstrumentationScope::builder("agent").with_version(options.version).build();
        Ok(Self {
            tracer: spans.tracer_with_scope(scope.clone()),
            instruments: Instruments::new(&metrics.meter_with_scope(scope)),
            parent: TraceContextPropagator::new().extract_with_context(&Context::new(), &options.parent),
            captures_content: options.content,
            spans,
            metrics,
            failures,
        })
    }

    /// Returns an observer that exports the next run of a session. `past` contains the records of
    /// the session's earlier runs. In a batch, `task` is the id of the task.
    #[must_use]
    pub fn observer(&self, session: &str, task: Option<&str>, past: &[Record]) -> Observer {
        let mut trace = RunTrace::new(
            self.tracer.clone(),
            self.instruments.clone(),
            self.parent.clone(),
            (session.to_owned(), task.map(str::to_owned)),
            self.captures_content,
        );
        past.iter().for_each(|record| trace.recall(record));
        Box::new(move |record| trace.record(record))
    }

    /// Exports whatever is left. Drop the observers first, since that ends their spans.
    ///
    /// # Errors
    /// If the last export failed or did not finish in time.
    pub fn close(self) -> Result<(), Error> {
        let until = Instant::now() + CLOSE;
        let (done, finished) = mpsc::channel();
        let (spans, metrics, done_too) = (self.spans, self.metrics, done.clone());
        // The SDK may wait longer than [`CLOSE`], so let it wait on separate threads, which end
        // with the process.
        let flush_spans = move || drop((spans.shutdown_with_timeout(CLOSE), done.send(())));
        let flush_metrics = move || drop((metrics.shutdown(), done_too.send(())));
        let threads =
            [thread::Builder::new().spawn(flush_spans), thread::Builder::new().spawn(flush_metrics)];
        for thread in threads {
            let in_time = finished.recv_timeout(until.saturating_duration_since(Instant::now()));
            if thread.is_err() || in_time.is_err() {
                return Err(Error::Slow);
            }
        }
        let failure = self
            .failures
            .iter()
            .find_map(|failure| failure.lock().unwrap_or_else(PoisonError::into_inner).clone());
        failure.map_or(Ok(()), |why| Err(Error::NotSent(why)))
    }
}

/// Describes this process. The service name can be overridden by the user's environment variables.
fn resource(version: &'static str) -> Resource {
    let instance = u128::from_be_bytes(std::array::from_fn(|_| fastrand::u8(..)));
    let attributes =
        [KeyValue::new("service.version", version), KeyValue::new("service.instance.id", uuid(instance))];
    let named = Resource::builder()
        .build()
        .get_ref(&Key::new("service.name"))
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attributes(attributes);
    if named { builder.build() } else { builder.with_service_name("agent").build() }
}

/// Formats a version 4 UUID.
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
