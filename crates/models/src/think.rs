//! The thinking switch: one setting for all servers.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Whether and how much a model reasons before it answers. Fixed for a session, because changing it
/// would lose the cached prefix (docs/model-apis.md#ollama-thinking).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Think {
    /// On if the model can think, unless thinking is known to break it.
    #[default]
    Auto,
    /// Off.
    Off,
    /// On, at the model's default level.
    On,
    /// On, with little effort.
    Low,
    /// On, with medium effort.
    Medium,
    /// On, with high effort.
    High,
    /// On, with maximum effort.
    Max,
}

impl Think {
    /// Returns the name used in settings and profiles.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Think::Auto => "auto",
            Think::Off => "off",
            Think::On => "on",
            Think::Low => "low",
            Think::Medium => "medium",
            Think::High => "high",
            Think::Max => "max",
        }
    }

    /// Returns the level's name; `None` for settings that are not levels.
    pub(crate) fn level(self) -> Option<&'static str> {
        (!matches!(self, Think::Auto | Think::Off | Think::On)).then(|| self.name())
    }

    /// Returns the value of Ollama's `think` field (docs/model-apis.md#ollama-thinking).
    pub(crate) fn ollama(self) -> Value {
        self.level().map_or(json!(self != Think::Off), |level| json!(level))
    }
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "auto" => Think::Auto,
            "off" | "false" | "no" => Think::Off,
            "on" | "true" | "yes" => Think::On,
            "low" => Think::Low,
            "medium" => Think::Medium,
            "high" => Think::High,
            "max" => Think::Max,
            other => return Err(format!("{other:?} is not one of auto, off, on, low, medium, high, max")),
        })
    }
}
