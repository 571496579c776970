//! Settings. Each setting has one definition, which yields its flag, its environment variable, its
//! key in the two settings files, its help text, its line in `agent config show` and its section in
//! `docs/configuration.md`.

mod definition;
#[cfg(test)]
mod reference;
mod table;

use serde::Deserialize;

use crate::hooks::Hook;
use crate::language_servers::Configured;

pub(crate) use definition::{Definition, Flag, Group, Kind, Tables, Trust};
pub(crate) use table::{DEFINITIONS, definition, recorded, trust_help};

/// What the code index is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) enum SymbolIndex {
    Off,
    Map,
    Tool,
    All,
}

impl SymbolIndex {
    /// Returns whether the first turn may show a map.
    pub(crate) fn has_map(self) -> bool {
        matches!(self, Self::Map | Self::All)
    }

    /// Returns whether the model is offered the tool.
    pub(crate) fn has_tool(self) -> bool {
        matches!(self, Self::Tool | Self::All)
    }
}

/// The resolved settings. Each field has the same name as a row of [`DEFINITIONS`]; a test checks
/// that the two match.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(crate) struct Settings {
    pub(crate) model: Option<String>,
    pub(crate) base_url: Option<String>,
    pub(crate) ollama_host: Option<String>,
    pub(crate) openai_base_url: Option<String>,
    pub(crate) ollama_api_key: Option<String>,
    pub(crate) deepseek_api_key: Option<String>,
    pub(crate) openai_api_key: Option<String>,
    pub(crate) api_key_file: Option<String>,
    pub(crate) api_key_command: Option<String>,
    pub(crate) headers: Option<Vec<String>>,
    pub(crate) ca_file: Option<String>,
    pub(crate) client_cert_file: Option<String>,
    pub(crate) client_key_file: Option<String>,
    pub(crate) proxy: Option<String>,
    pub(crate) connect_seconds: Option<u64>,
    pub(crate) first_byte_seconds: Option<u64>,
    pub(crate) idle_seconds: Option<u64>,
    pub(crate) pull: bool,
    pub(crate) num_ctx: Option<u32>,
    pub(crate) gpu_layers: u32,
    pub(crate) temperature: Option<f32>,
    pub(crate) max_answer_tokens: u32,
    pub(crate) think: String,
    pub(crate) constrain: String,
    pub(crate) assume_vision: bool,
    pub(crate) verify: Option<String>,
    pub(crate) approach: String,
    pub(crate) edit_format: String,
    pub(crate) cut: String,
    pub(crate) symbols: SymbolIndex,
    pub(crate) attempts: u32,
    pub(crate) escalate: Option<String>,
    pub(crate) fallback: Option<String>,
    pub(crate) mcp_tools: Option<String>,
    pub(crate) max_turns: u32,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) max_seconds: u64,
    pub(crate) max_cost: Option<f64>,
    pub(crate) sandbox: bool,
    pub(crate) mask_secrets: bool,
    pub(crate) command_read_only: bool,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) allow_read: Option<String>,
    pub(crate) allow_write: Option<String>,
    pub(crate) command_network: String,
    pub(crate) allow_hosts: Option<String>,
    pub(crate) command_seconds: u64,
    pub(crate) command_memory: Option<u64>,
    pub(crate) command_processes: u64,
    pub(crate) command_file_size: u64,
    pub(crate) commit_author: Option<String>,
    pub(crate) commit_trailer: Option<String>,
    pub(crate) hooks: Option<Vec<Hook>>,
    pub(crate) language_servers: Option<Vec<Configured>>,
    pub(crate) state_dir: Option<String>,
}
