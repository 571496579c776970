//! Gates decide whether each call may run, and learn its outcome afterwards. The user's hooks
//! ([`crate::hooks`]) are a gate.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tool_api::{Follow, Outcome, Parsed, Spec, Status, Tool, ToolError};

/// Decides which calls may run.
#[async_trait]
pub(crate) trait Gate: Send + Sync {
    /// Decides whether a call may run. Secrets in the arguments are replaced with placeholders.
    ///
    /// # Errors
    /// [`ToolError::Model`] vetoes the call and tells the model why. [`ToolError::Run`] stops the
    /// run.
    async fn before(&self, spec: &Spec, arguments: &Value) -> Result<(), ToolError>;

    /// Receives the outcome of a call that was not vetoed.
    async fn after(&self, spec: &Spec, arguments: &Value, outcome: &Outcome);
}

/// Wraps a tool so that a call runs only if every gate allows it.
pub(crate) struct GatedTool {
    tool: Arc<dyn Tool>,
    gates: Vec<Arc<dyn Gate>>,
}

impl GatedTool {
    pub(crate) fn wrap(tool: Arc<dyn Tool>, gates: &[Arc<dyn Gate>]) -> Arc<dyn Tool> {
        if gates.is_empty() {
            return tool;
        }
        Arc::new(Self { tool, gates: gates.to_vec() })
    }
}

#[async_trait]
impl Tool for GatedTool {
    fn spec(&self) -> &Spec {
        self.tool.spec()
    }

    fn judge_field(&self, name: &str, value: &Value, parsed: &mut Parsed) -> Result<(), String> {
        self.tool.judge_field(name, value, parsed)
    }

    fn judge(&self, arguments: &Value, parsed: &mut Parsed) -> Result<(), String> {
        self.tool.judge(arguments, parsed)
    }

    fn follow(&self) -> Option<Box<dyn Follow>> {
        self.tool.follow()
    }

    fn whole_answer(&self, text: &str, parsed: &mut Parsed) -> Option<Result<Value, String>> {
        self.tool.whole_answer(text, parsed)
    }

    fn patch_instead(&self, arguments: &Map<String, Value>) -> Result<Option<String>, String> {
        self.tool.patch_instead(arguments)
    }

    async fn call(&self, arguments: Value, parsed: Parsed) -> Result<Outcome, ToolError> {
        for gate in &self.gates {
            match gate.before(self.spec(), &arguments).await {
                Ok(()) => {}
                Err(ToolError::Model(why)) => {
                    // This fact marks the veto, so that a replay does not run the call.
                    let facts = json!({ replay::VETOED: true });
                    return Ok(Outcome { status: Status::Refused, facts, ..Outcome::ok(why) });
                }
                Err(stop) => return Err(stop),
            }
        }
        let outcome = self.tool.call(arguments.clone(), parsed).await;
        let told = match &outcome {
            Ok(outcome) => outcome.clone(),
            Err(error) => Outcome { status: Status::Refused, ..Outcome::ok(error.to_string()) },
        };
        for gate in &self.gates {
            gate.after(self.spec(), &arguments, &told).await;
        }
        outcome
    }
}
