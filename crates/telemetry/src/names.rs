//! The names of attributes and metrics. They come from the GenAI semantic conventions, version
//! 0.1.0, except for our own, which start with `agent.`.

pub(crate) const OPERATION: &str = "gen_ai.operation.name";
pub(crate) const AGENT: &str = "gen_ai.agent.name";
pub(crate) const CONVERSATION: &str = "gen_ai.conversation.id";
pub(crate) const PROVIDER: &str = "gen_ai.provider.name";
pub(crate) const ERROR: &str = "error.type";
pub(crate) const ERROR_MESSAGE: &str = "exception.message";

pub(crate) const REQUEST_MODEL: &str = "gen_ai.request.model";
pub(crate) const REQUEST_STREAM: &str = "gen_ai.request.stream";
pub(crate) const REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
pub(crate) const REQUEST_TEMPERATURE: &str = "gen_ai.request.temperature";
pub(crate) const REQUEST_SEED: &str = "gen_ai.request.seed";
pub(crate) const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
pub(crate) const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
pub(crate) const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
pub(crate) const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
pub(crate) const CACHED_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
pub(crate) const TOKEN_MODALITY: &str = "gen_ai.token.modality";

pub(crate) const TOOL: &str = "gen_ai.tool.name";
pub(crate) const TOOL_TYPE: &str = "gen_ai.tool.type";
pub(crate) const TOOL_CALL: &str = "gen_ai.tool.call.id";

// These are exported only if the user asks for content.
pub(crate) const SYSTEM: &str = "gen_ai.system_instructions";
pub(crate) const INPUT: &str = "gen_ai.input.messages";
pub(crate) const OUTPUT: &str = "gen_ai.output.messages";
pub(crate) const TOOL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";
pub(crate) const TOOL_RESULT: &str = "gen_ai.tool.call.result";
pub(crate) const VERIFICATION_COMMAND: &str = "agent.verification.command";
pub(crate) const VERIFICATION_TEXT: &str = "agent.verification.text";

pub(crate) const TASK: &str = "agent.task.id";
pub(crate) const ENDING: &str = "agent.ending";
pub(crate) const FILES: &str = "agent.files_changed";
pub(crate) const ADDED: &str = "agent.lines_added";
pub(crate) const REMOVED: &str = "agent.lines_removed";
pub(crate) const SESSION_TURNS: &str = "agent.session.turns";
pub(crate) const SESSION_COST: &str = "agent.session.cost_usd";
pub(crate) const TURN: &str = "agent.turn";
pub(crate) const ATTEMPTS: &str = "agent.request.attempts";
pub(crate) const ESTIMATED_TOKENS: &str = "agent.request.estimated_tokens";
pub(crate) const CUT: &str = "agent.cut_reason";
pub(crate) const WAIT: &str = "agent.wait_seconds";
pub(crate) const EARLY: &str = "agent.early";
pub(crate) const TOOL_EFFECT: &str = "agent.tool.effect";
pub(crate) const VERIFICATION_PASSED: &str = "agent.verification.passed";
pub(crate) const TRY: &str = "agent.try";
