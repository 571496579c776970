//! Telemetry export, which is disabled unless `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::sync::Arc;
use std::time::Duration;

use ::telemetry::{Options, Telemetry};
use journal::{Journal, Record};

use crate::context::Context;
use crate::exit::{Failure, Result};
use crate::layers::Environment;
use crate::masking;
use crate::model;
use crate::sanitize;
use crate::settings::Settings;

/// The variable that enables the export.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The only supported protocol.
const PROTOCOL: &str = "http/protobuf";
/// The default and the maximum request timeout, in milliseconds.
const TIMEOUT: (u64, u64) = (10_000, 60_000);

/// The telemetry export of a command. Dropping it sends whatever is left, so drop it after closing
/// the sessions that it observes.
pub(crate) struct Export(Option<Started>);

struct Started {
    telemetry: Option<Telemetry>,
    environment: Environment,
    say: Box<dyn Fn(&str) + Send + Sync>,
}

impl Export {
    /// Starts the exporter if export is enabled. `say` shows a warning; problems with the export
    /// never stop a run.
    pub(crate) fn start(
        context: &Context,
        settings: &Settings,
        say: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let Some(endpoint) = context.environment.get(ENDPOINT) else { return Self(None) };
        let environment = context.environment.clone();
        let mut started = Started { telemetry: None, environment, say: Box::new(say) };
        match telemetry(endpoint, &context.environment, settings) {
            Ok(telemetry) => started.telemetry = telemetry,
            Err(failure) => started.warn(&format!("telemetry is off: {:#}", failure.error)),
        }
        Self(Some(started))
    }

    /// Exports the run that is starting in a session. `task` is the task's id in a batch; `past`
    /// holds the records of the session's earlier runs.
    pub(crate) fn observe(&self, journal: &mut Journal, task: Option<&str>, past: &[Record]) {
        if let Some(Started { telemetry: Some(telemetry), .. }) = &self.0 {
            journal.observe(telemetry.observer(journal.id(), task, past));
        }
    }
}

impl Started {
    fn warn(&self, message: &str) {
        let secrets = masking::of_variables(&self.environment);
        (self.say)(&sanitize::line(&masking::known_masked(&secrets, message)));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.telemetry.take().map(Telemetry::close) {
            self.warn(&format!("telemetry: {error}"));
        }
    }
}

/// Creates the exporter. Returns `None` if the user's variables disable it.
fn telemetry(endpoint: &str, environment: &Environment, settings: &Settings) -> Result<Option<Telemetry>> {
    let is = |name: &str, value: &str| {
        environment.get(name).is_some_and(|set| set.trim().eq_ignore_ascii_case(value))
    };
    let (spans, metrics) = (!is("OTEL_TRACES_EXPORTER", "none"), !is("OTEL_METRICS_EXPORTER", "none"));
    if is("OTEL_SDK_DISABLED", "true") || !(spans || metrics) {
        return Ok(None);
    }
    for name in ["", "_TRACES", "_METRICS"].map(|signal| format!("OTEL_EXPORTER_OTLP{signal}_PROTOCOL")) {
        if let Some(protocol) = environment.get(&name).filter(|protocol| protocol.trim() != PROTOCOL) {
            return Err(Failure::misuse(format!(
                "{name} is {protocol:?}; set it to {PROTOCOL:?}, which collectors usually offer on port 4318"
            )));
        }
    }
    let timeout = environment.get("OTEL_EXPORTER_OTLP_TIMEOUT").and_then(|text| text.trim().parse().ok());
    let timeout = Duration::from_millis(timeout.unwrap_or(TIMEOUT.0).min(TIMEOUT.1));
    let parent = ["traceparent", "tracestate"].map(|name| {
        let value = environment.get(&name.to_ascii_uppercase())?;
        Some((name.to_owned(), value.to_owned()))
    });
    // One client sends everything, so it needs certificates if any address uses HTTPS.
    let addresses = ["_TRACES", "_METRICS"].map(|signal| format!("OTEL_EXPORTER_OTLP{signal}_ENDPOINT"));
    let mut addresses = addresses.iter().filter_map(|name| environment.get(name));
    let base = addresses.find(|address| address.starts_with("https:")).unwrap_or(endpoint).to_owned();
    let settings = settings.clone();
    let connect = move || {
        let access = model::access(&settings).map_err(|failure| format!("{:#}", failure.error))?;
        models::plain_client(&base, timeout, &access).map_err(|error| error.to_string())
    };
    let options = Options {
        connect: Arc::new(connect),
        timeout,
        version: env!("CARGO_PKG_VERSION"),
        spans,
        metrics,
        content: is("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true"),
        parent: parent.into_iter().flatten().collect(),
    };
    Telemetry::start(options).map(Some).map_err(Failure::misuse)
}
