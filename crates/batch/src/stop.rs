//! Why a batch stopped before all of its tasks were done.

use journal::{Budget, Ending};
use serde::{Deserialize, Serialize};

/// The reason a batch stopped. Running the same command again continues the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The user or the system interrupted the batch.
    Interrupted,
    /// The deadline has passed.
    Deadline,
    /// The token limit has been reached.
    Tokens,
    /// The cost limit has been reached.
    Cost,
    /// The server or this machine kept failing.
    Infrastructure,
    /// A task was not verified, and the batch was configured to stop in that case.
    FailFast,
}

impl Stop {
    /// Whether running attempts are interrupted. Otherwise the batch waits for them to end.
    pub(crate) fn interrupts(self) -> bool {
        matches!(self, Stop::Interrupted | Stop::Deadline)
    }

    /// Returns the exit code of a batch that stopped for this reason, or `None` if the exit code
    /// depends on the results.
    pub(crate) fn exit_code(self) -> Option<u8> {
        match self {
            Stop::Interrupted => Some(Ending::Interrupted.exit_code()),
            Stop::Deadline => Some(Ending::Budget { budget: Budget::Time }.exit_code()),
            Stop::Tokens => Some(Ending::Budget { budget: Budget::Tokens }.exit_code()),
            Stop::Cost => Some(Ending::Budget { budget: Budget::Cost }.exit_code()),
            Stop::Infrastructure => Some(Ending::Unavailable.exit_code()),
            Stop::FailFast => None,
        }
    }

    /// Describes what happened and how to continue, in one sentence.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Stop::Interrupted => "interrupted; run the same command to continue",
            Stop::Deadline => "paused at the deadline; run the same command to continue",
            Stop::Tokens => {
                "paused at the batch's token limit; run the same command with a higher --batch-tokens to continue"
            }
            Stop::Cost => {
                "paused at the batch's cost limit; run the same command with a higher --batch-cost to continue"
            }
            Stop::Infrastructure => {
                "stopped because the model, its server or this machine kept failing; run the same command to continue"
            }
            Stop::FailFast => {
                "stopped at a task that is not verified (--fail-fast); run the same command to continue"
            }
        }
    }
}
