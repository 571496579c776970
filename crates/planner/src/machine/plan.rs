//! The plan that a machine is built from. The planner defines its format.

use serde::{Deserialize, Deserializer, Serialize};

use crate::blocks::Focus;
use crate::prompts::Opening;
use crate::settings::{Approach, Settings};

/// The starting point of a run, or of its continuation with another model. It is stored in the
/// journal ([`journal::Event::RunStarted`], [`journal::Event::ModelChanged`]), so that a resumed
/// run builds the same machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) opening: Opening,
    /// The model's window in tokens, if known.
    pub(crate) window: Option<u64>,
    pub(crate) has_verifier: bool,
    /// Whether the conversation keeps the reasoning of answers
    /// ([`models::Identity::repeats_thinking`]).
    #[serde(alias = "send_thinking")]
    pub(crate) repeats_thinking: bool,
    /// Whether the server reports alternative tokens and can continue an incomplete answer
    /// ([`models::Identity::branches`]).
    pub(crate) branches: bool,
    /// Whether a question is asked without describing the tools, which works best for small models.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) plain: bool,
    /// The files that the model is asked to return in full. Empty for the tools approach.
    #[serde(deserialize_with = "none_one_or_several")]
    pub(crate) focus: Vec<Focus>,
}

impl Plan {
    /// Returns the approach that the model starts with.
    pub(crate) fn approach(&self) -> Approach {
        if self.focus.is_empty() { Approach::Tools } else { Approach::WholeFile }
    }
}

/// Deserializes the requested files. Earlier versions of the agent wrote a single file or `null`.
fn none_one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Focus>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Files {
        Several(Vec<Focus>),
        One(Focus),
        None,
    }
    Ok(match Files::deserialize(deserializer)? {
        Files::Several(files) => files,
        Files::One(file) => vec![file],
        Files::None => Vec::new(),
    })
}
