//! How a run ended. This type alone determines the exit code, the JSON result, the batch status and
//! the report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The budget that was exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// The number of turns.
    Turns,
    /// Prompt plus generated tokens.
    Tokens,
    /// Wall-clock time.
    Time,
    /// Cost.
    Cost,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Ending {
    /// The task is done, and the verification passes on the final tree.
    Verified,
    /// The task was a question, and the model answered it.
    Answered,
    /// The model says it is done, but the verification fails or there is none.
    Unverified,
    /// The model says it is done but changed nothing. The verification may pass, but it also passed
    /// before the run.
    NoChange,
    /// The agent stopped because it made no progress.
    GaveUp,
    /// A budget was exhausted.
    Budget {
        /// The budget.
        budget: Budget,
    },
    /// The model or its server was unreachable or failed permanently.
    Unavailable,
    /// The agent itself could not continue (no sandbox, full disk), or refused the request.
    Refused,
    /// The run was interrupted by the user or the system.
    Interrupted,
}

impl Ending {
    /// Returns the process exit code, as listed by `agent run --help`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Ending::Verified | Ending::Answered => 0,
            Ending::Unverified | Ending::NoChange => 1,
            Ending::Refused => 2,
            Ending::GaveUp => 3,
            Ending::Budget { .. } => 4,
            Ending::Unavailable => 5,
            Ending::Interrupted => 130,
        }
    }

    /// Returns a short, human-readable label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Ending::Verified => "verified",
            Ending::Answered => "answered",
            Ending::Unverified => "unverified",
            Ending::NoChange => "no change",
            Ending::GaveUp => "gave up",
            Ending::Budget { budget: Budget::Turns } => "turn budget reached",
            Ending::Budget { budget: Budget::Tokens } => "token budget reached",
            Ending::Budget { budget: Budget::Time } => "time budget reached",
            Ending::Budget { budget: Budget::Cost } => "cost budget reached",
            Ending::Unavailable => "model unavailable",
            Ending::Refused => "refused",
            Ending::Interrupted => "interrupted",
        }
    }

    /// Whether the run can be resumed, because something external stopped it.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        matches!(self, Ending::Unavailable | Ending::Refused | Ending::Interrupted | Ending::Budget { .. })
    }

    /// Whether the run ended for a reason other than the agent's work: the infrastructure failed, or
    /// somebody stopped it. If so, a batch may try the task again.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        matches!(self, Ending::Unavailable | Ending::Refused | Ending::Interrupted)
    }
}
