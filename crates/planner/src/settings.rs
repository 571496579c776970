//! How a run goes about its task. Every value has a default that suits a model on one's own machine.

use serde::{Deserialize, Serialize};

/// When to stop reading an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// Behind the first complete call for local models, where each further token costs time; read on for remote ones.
    #[default]
    Auto,
    /// Behind the first complete call.
    First,
    /// Read the answer to its end; all its calls count.
    ReadOn,
}

/// Models up to this many billions of parameters are asked for whole files. Measured at 0.5 and 1.5 billion. Nothing was measured
/// above 4 billion, where models generally follow the tool protocol.
const SMALL_MODEL_B: f32 = 4.0;

/// How the model works on the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approach {
    /// Chosen by the size of the model.
    #[default]
    Auto,
    /// The model calls tools until it calls `finish`.
    #[serde(alias = "json")]
    Tools,
    /// For small models: the request shows one file, and the model returns it whole in a Markdown fence. Tool calls still work.
    WholeFile,
}

impl Approach {
    /// Resolves `Auto` for a model.
    #[must_use]
    pub fn resolve(self, model: &models::Identity) -> Self {
        match self {
            Approach::Auto if model.parameters_b.is_some_and(|b| b <= SMALL_MODEL_B) => Approach::WholeFile,
            Approach::Auto => Approach::Tools,
            set => set,
        }
    }

    /// The name used in settings and in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Approach::Auto => "auto",
            Approach::Tools => "tools",
            Approach::WholeFile => "whole-file",
        }
    }
}

/// What a run may use up. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Requests answered by the model.
    pub turns: u32,
    /// Prompt (evaluated anew, where told) and generated tokens.
    pub tokens: Option<u64>,
    /// Seconds by the wall clock.
    pub seconds: Option<u64>,
    /// Dollars, where the model's prices are known.
    pub cost: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { turns: 40, tokens: None, seconds: None, cost: None }
    }
}

/// How to go about a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What it may use up.
    pub limits: Limits,
    /// When to stop reading an answer.
    pub cut: Cut,
    /// How the model works on the task.
    #[serde(alias = "dialect")]
    pub approach: Approach,
    /// Sampling temperature of the first try; later ones vary it when the model repeats itself.
    pub temperature: f32,
    /// The most tokens of one answer, thinking included.
    pub max_answer_tokens: u32,
    /// Answers in a row that may go wrong (no call, a refused call) before the run gives up.
    pub max_corrections: u32,
    /// Equal calls with equal results before the model is told.
    pub warn_repeats: u32,
    /// Equal calls with equal results before the run gives up.
    pub max_repeats: u32,
    /// How often `finish` is turned down while the verification fails.
    pub max_finish_refusals: u32,
    /// Requests for a whole file, for small models, where their doubts cannot be followed.
    pub fresh_starts: u32,
    /// Attempts at one request when the server fails.
    pub max_retries: u32,
    /// Nothing is run: no verification, and the first command that the model asks for ends the run.
    pub plan_only: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            cut: Cut::Auto,
            approach: Approach::Auto,
            temperature: 0.0,
            max_answer_tokens: 4096,
            max_corrections: 4,
            warn_repeats: 3,
            max_repeats: 5,
            max_finish_refusals: 2,
            fresh_starts: 2,
            max_retries: 5,
            plan_only: false,
        }
    }
}
