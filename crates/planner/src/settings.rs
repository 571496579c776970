//! The settings of a run. The defaults are chosen for a model that runs on the user's own machine.

use serde::{Deserialize, Serialize};

/// When to stop reading an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// For local models, stop after the first complete call, because every additional token costs
    /// time. For remote models, read to the end of the answer.
    #[default]
    Auto,
    /// Stop after the first complete call.
    First,
    /// Read to the end of the answer, and use all of its calls.
    ReadOn,
}

impl Cut {
    /// Whether to stop reading this model's answers after the first complete call.
    pub(crate) fn after_first_call(self, model: &models::Identity) -> bool {
        match self {
            Cut::Auto => model.local,
            Cut::First => true,
            Cut::ReadOn => false,
        }
    }
}

/// How the model works on the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approach {
    /// The approach that suits the model ([`models::Identity::prefers_whole_files`]).
    #[default]
    Auto,
    /// The model calls tools until it calls `finish`.
    #[serde(alias = "json")]
    Tools,
    /// For small models: the request shows up to three files, and the model returns the corrected
    /// files in full, in Markdown fences. Tool calls still work.
    WholeFile,
}

impl Approach {
    /// Resolves `Auto` for a model.
    #[must_use]
    pub fn resolve(self, model: &models::Identity) -> Self {
        match self {
            Approach::Auto if model.prefers_whole_files => Approach::WholeFile,
            Approach::Auto => Approach::Tools,
            set => set,
        }
    }

    /// Returns the name used in settings and in the journal.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Approach::Auto => "auto",
            Approach::Tools => "tools",
            Approach::WholeFile => "whole-file",
        }
    }
}

/// Whether a model's tool calls are constrained to the tools' schemas during generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Constrain {
    /// Yes, if that suits the model ([`models::Identity::constrained`]).
    #[default]
    Auto,
    /// Yes, if the server supports it.
    On,
    /// No.
    Off,
}

impl Constrain {
    /// Resolves `Auto` for a model.
    #[must_use]
    pub fn resolve(self, model: &models::Identity) -> bool {
        match self {
            Constrain::Auto => model.constrained,
            Constrain::On => true,
            Constrain::Off => false,
        }
    }
}

/// The limits of a run, measured from its start, from the user's last message, or from the start of
/// the try with another model, whichever is latest. `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Maximum number of answered requests.
    pub turns: u32,
    /// Maximum total number of prompt and generated tokens. Prompt tokens that come from the
    /// server's cache are not counted if the server reports them.
    pub tokens: Option<u64>,
    /// Maximum wall-clock time, in seconds.
    pub seconds: Option<u64>,
    /// Maximum cost in dollars. Applies only if the model's prices are known.
    pub cost: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { turns: 40, tokens: None, seconds: None, cost: None }
    }
}

/// How to work on a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The limits of the run.
    pub limits: Limits,
    /// When to stop reading an answer.
    pub cut: Cut,
    /// How the model works on the task.
    #[serde(alias = "dialect")]
    pub approach: Approach,
    /// Whether tool calls are constrained to the tools' schemas. Files and other text are never
    /// constrained.
    #[serde(skip_serializing_if = "is_auto")]
    pub constrain: Constrain,
    /// Sampling temperature for the first request. It rises in later tries, when whole files are
    /// requested again, and when the model repeats itself. `None` selects the temperature that
    /// suits the model ([`models::Identity::temperature`]).
    pub temperature: Option<f32>,
    /// Maximum number of tries. Each try starts with the original files, and the run ends as soon
    /// as a try passes the verification. The limits apply to all tries combined.
    #[serde(skip_serializing_if = "is_one")]
    pub attempts: u32,
    /// Whether another model ([`crate::Parts::escalation`]) makes one more try, with its own
    /// limits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub escalates: bool,
    /// Maximum number of tokens in an answer, including thinking.
    pub max_answer_tokens: u32,
    /// Whether to assume that a model accepts images if that is unknown
    /// ([`models::Identity::sees_images`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub assume_vision: bool,
    /// Whether commands are forbidden. If they are, there is no verification, and the run ends as
    /// soon as the model asks to run a command.
    pub plan_only: bool,
    /// Whether the task is a question. If it is, the run changes nothing and ends with the model's
    /// answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub question: bool,
    /// Whether the model must pass a result to `finish` ([`crate::finish_tool`]).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_result: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            cut: Cut::Auto,
            approach: Approach::Auto,
            constrain: Constrain::Auto,
            temperature: None,
            attempts: 1,
            escalates: false,
            max_answer_tokens: 4096,
            assume_vision: false,
            plan_only: false,
            question: false,
            has_result: false,
        }
    }
}

fn is_auto(constrain: &Constrain) -> bool {
    *constrain == Constrain::Auto
}

fn is_one(n: &u32) -> bool {
    *n == 1
}
