//! The metrics of all sessions in this process.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use crate::names;

/// The bucket boundaries that the conventions specify for the durations of requests and tool calls,
/// in seconds.
const SECONDS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
/// The bucket boundaries that the conventions specify for the durations of agent invocations, in
/// seconds.
const AGENT_SECONDS: [f64; 13] = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6];

/// The token counts of a request. A value is `None` if the server did not report it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) input: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) output: Option<u64>,
}

impl Usage {
    /// Adds two counts. If only one of the values is known, the sum is that value.
    pub(crate) fn plus(self, other: Usage) -> Usage {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (known, None) | (None, known) => known,
        };
        Usage {
            input: sum(self.input, other.input),
            cached: sum(self.cached, other.cached),
            output: sum(self.output, other.output),
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Instruments {
    requests: Histogram<f64>,
    first_chunks: Histogram<f64>,
    input: Counter<u64>,
    cached: Counter<u64>,
    output: Counter<u64>,
    tools: Histogram<f64>,
    runs: Histogram<f64>,
}

impl Instruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, boundaries: &[f64], what: &'static str| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(what);
            histogram.with_boundaries(boundaries.to_vec()).build()
        };
        let tokens = |name: &'static str, what: &'static str| {
            meter.u64_counter(name).with_unit("{token}").with_description(what).build()
        };
        Self {
            requests: seconds(
                "gen_ai.client.inference.duration",
                &SECONDS,
                "Duration of requests to models, including retries.",
            ),
            first_chunks: seconds(
                "gen_ai.client.inference.time_to_first_chunk",
                &SECONDS,
                "Time from sending a request to the first token.",
            ),
            input: tokens(
                "gen_ai.client.inference.usage.input_tokens",
                "Prompt tokens, including cached ones.",
            ),
            cached: tokens(
                "gen_ai.client.inference.usage.cache_read.input_tokens",
                "Prompt tokens from the server's cache.",
            ),
            output: tokens("gen_ai.client.inference.usage.output_tokens", "Generated tokens."),
            tools: seconds("gen_ai.execute_tool.duration", &SECONDS, "Duration of tool calls."),
            runs: seconds("gen_ai.invoke_agent.duration", &AGENT_SECONDS, "Duration of runs."),
        }
    }

    /// Adds the tokens of an answer to the counters.
    pub(crate) fn count_tokens(&self, usage: Usage, model: &[KeyValue]) {
        let with_modality: Vec<_> =
            model.iter().cloned().chain([KeyValue::new(names::TOKEN_MODALITY, "text")]).collect();
        let counts = [(&self.input, usage.input), (&self.cached, usage.cached), (&self.output, usage.output)];
        for (counter, count) in counts {
            if let Some(count) = count {
                counter.add(count, &with_modality);
            }
        }
    }

    pub(crate) fn count_first_chunk(&self, seconds: f64, model: &[KeyValue]) {
        self.first_chunks.record(seconds, model);
    }

    pub(crate) fn count_request(&self, seconds: f64, attributes: &[KeyValue]) {
        self.requests.record(seconds, attributes);
    }

    pub(crate) fn count_tool(&self, seconds: f64, attributes: &[KeyValue]) {
        self.tools.record(seconds, attributes);
    }

    pub(crate) fn count_run(&self, seconds: f64, attributes: &[KeyValue]) {
        self.runs.record(seconds, attributes);
    }
}
