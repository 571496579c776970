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

/// How the model is asked to write an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// By what was measured for the model's family and size.
    #[default]
    Auto,
    /// JSON tool calls only; edits as search and replace, or as a patch.
    Json,
    /// For small models: the file to mend is shown, and asked for back whole in a Markdown fence; JSON calls are understood all
    /// the same.
    WholeFile,
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
    /// How edits are asked for.
    pub dialect: Dialect,
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
            dialect: Dialect::Auto,
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
