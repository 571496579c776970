//! A span and the values of its attributes.

use std::time::{Duration, SystemTime};

use journal::Ending;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use serde::Serialize;

use crate::content;
use crate::metrics::Usage;
use crate::names;

/// The maximum length of an error message, in bytes.
pub(crate) const MAX_MESSAGE: usize = 1 << 10;

/// A span that has not ended.
pub(crate) struct Open {
    pub(crate) span: Span,
    start_ms: u64,
    /// The attributes of the corresponding metric.
    pub(crate) attributes: Vec<KeyValue>,
}

impl Open {
    /// Starts a span. `of_metric` contains the attributes of the corresponding metric.
    pub(crate) fn start(
        tracer: &SdkTracer,
        parent: &Context,
        (name, kind): (String, SpanKind),
        start_ms: u64,
        attributes: Vec<KeyValue>,
        of_metric: Vec<KeyValue>,
    ) -> Self {
        let builder = SpanBuilder::from_name(name)
            .with_kind(kind)
            .with_start_time(time(start_ms))
            .with_attributes(attributes);
        Self { span: tracer.build_with_context(builder, parent), start_ms, attributes: of_metric }
    }

    /// Ends the span. `error` is an error class and a message. Returns the duration in seconds.
    pub(crate) fn end(&mut self, at_ms: u64, error: Option<(&'static str, &str)>) -> f64 {
        if let Some((class, message)) = error {
            let class = KeyValue::new(names::ERROR, class);
            self.span.set_attribute(class.clone());
            self.attributes.push(class);
            self.span.set_status(Status::error(content::shortened_to(message, MAX_MESSAGE).into_owned()));
        }
        self.span.end_with_timestamp(time(at_ms));
        Duration::from_millis(at_ms.saturating_sub(self.start_ms)).as_secs_f64()
    }
}

pub(crate) fn usage_attributes(usage: Usage) -> impl Iterator<Item = KeyValue> {
    let counts = [
        (names::INPUT_TOKENS, usage.input),
        (names::CACHED_TOKENS, usage.cached),
        (names::OUTPUT_TOKENS, usage.output),
    ];
    counts.into_iter().filter_map(|(name, count)| Some(KeyValue::new(name, integer(count?))))
}

/// Returns the error class of an ending; `None` if the run ended normally.
pub(crate) fn error_class(ending: &Ending) -> Option<&'static str> {
    match ending {
        Ending::Verified | Ending::Answered | Ending::Unverified | Ending::NoChange => None,
        Ending::GaveUp => Some("gave_up"),
        Ending::Budget { .. } => Some("budget"),
        Ending::Unavailable => Some("unavailable"),
        Ending::Refused => Some("refused"),
        Ending::Interrupted => Some("interrupted"),
    }
}

/// Returns the name of an ending as it appears in the journal. If a budget was exhausted, the name
/// also identifies the budget.
pub(crate) fn ending_name(ending: &Ending) -> String {
    let value = serde_json::to_value(ending).unwrap_or_default();
    let words = ["kind", "budget"].iter().filter_map(|key| value[key].as_str());
    words.collect::<Vec<_>>().join("_")
}

/// Returns the name of an enum variant as it appears in the journal.
pub(crate) fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(crate) fn strings(one: &'static str) -> Value {
    Value::Array(Array::String(vec![StringValue::from(one)]))
}

pub(crate) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(crate) fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

pub(crate) fn time(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}
