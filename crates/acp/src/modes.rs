//! What the user can choose for a session: its mode and its model. Newer editors show both as
//! configuration options; older ones support only modes.

use agent_client_protocol::v1::schema::{
    SessionConfigOption, SessionConfigOptionCategory, SessionConfigSelectOption, SessionMode,
    SessionModeState,
};

/// The id of the configuration option for the mode.
pub const MODE: &str = "mode";
/// The id of the configuration option for the model.
pub const MODEL: &str = "model";
/// The maximum number of models in the list.
const MAX_MODELS: usize = 200;

/// What a prompt may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Edits files and runs commands in the sandbox.
    #[default]
    Run,
    /// Like [`Mode::Run`], but asks the user before each edit, each command, and each MCP call that
    /// is not read-only.
    Ask,
    /// Works on a copy of the repository.
    DryRun,
    /// Like [`Mode::DryRun`], but stops before the first command.
    Plan,
}

impl Mode {
    /// All modes, in the order they appear in the editor's menu.
    pub const ALL: [Self; 4] = [Self::Run, Self::Ask, Self::DryRun, Self::Plan];

    /// Returns the mode's id in the protocol.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Mode::Run => "run",
            Mode::Ask => "ask",
            Mode::DryRun => "dry-run",
            Mode::Plan => "plan",
        }
    }

    /// Returns the mode with this id.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.id() == id)
    }

    /// Returns whether the repository stays unchanged.
    #[must_use]
    pub fn is_dry(self) -> bool {
        matches!(self, Mode::DryRun | Mode::Plan)
    }

    fn label(self) -> (&'static str, &'static str) {
        match self {
            Mode::Run => ("Run", "Edit files and run commands in the sandbox, without asking"),
            Mode::Ask => ("Ask", "Ask before each edit, command, and MCP call that is not read-only"),
            Mode::DryRun => ("Dry run", "Work on a copy; the repository stays unchanged"),
            Mode::Plan => ("Plan", "Propose edits on a copy, without running commands"),
        }
    }
}

/// The user's choices in a session, and the models to choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// The mode.
    pub mode: Mode,
    /// The model. `None` means the one in the settings, or else the detected one.
    pub model: Option<String>,
    /// The models that were found, in the form that `--model` accepts.
    pub models: Vec<String>,
}

/// The id of the choice that uses the model in the settings, or else the detected one.
const DEFAULT_MODEL: &str = "default";

impl Choices {
    /// Returns the modes, for editors that do not support configuration options.
    #[must_use]
    pub fn modes(&self) -> SessionModeState {
        let mode =
            |mode: Mode| SessionMode::new(mode.id(), mode.label().0).description(mode.label().1.to_owned());
        SessionModeState::new(self.mode.id(), Mode::ALL.map(mode).to_vec())
    }

    /// Returns the configuration options.
    #[must_use]
    pub fn options(&self) -> Vec<SessionConfigOption> {
        let mode = |mode: Mode| {
            SessionConfigSelectOption::new(mode.id(), mode.label().0).description(mode.label().1.to_owned())
        };
        let default = SessionConfigSelectOption::new(DEFAULT_MODEL, "Default")
            .description("The model from the settings, or else the detected one".to_owned());
        let chosen = self.model.iter().filter(|model| !self.models.contains(model));
        let models = self.models.iter().take(MAX_MODELS).chain(chosen);
        let models = models.map(|name| SessionConfigSelectOption::new(name.clone(), name.clone()));
        let models: Vec<_> = std::iter::once(default).chain(models).collect();
        let model = self.model.clone().unwrap_or_else(|| DEFAULT_MODEL.to_owned());
        vec![
            SessionConfigOption::select(MODE, "Mode", self.mode.id(), Mode::ALL.map(mode).to_vec())
                .category(SessionConfigOptionCategory::Mode),
            SessionConfigOption::select(MODEL, "Model", model, models)
                .category(SessionConfigOptionCategory::Model),
        ]
    }

    /// Sets one option.
    ///
    /// # Errors
    /// If the option or the value does not exist. The error is a message for the user.
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), String> {
        match option {
            MODE => {
                let ids = || Mode::ALL.map(Mode::id).join(", ");
                self.mode = Mode::from_id(value)
                    .ok_or_else(|| format!("there is no mode {value:?} (expected {})", ids()))?;
            }
            MODEL if value == DEFAULT_MODEL => self.model = None,
            MODEL if self.models.iter().any(|model| model == value) => self.model = Some(value.to_owned()),
            MODEL => return Err(format!("there is no model {value:?} in the list")),
            _ => return Err(format!("there is no option {option:?}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_the_list_can_be_chosen() {
        let mut choices = Choices { models: vec!["ollama:a".into()], ..Choices::default() };
        choices.set(MODE, "plan").unwrap();
        choices.set(MODEL, "ollama:a").unwrap();
        assert_eq!((choices.mode, choices.model.as_deref()), (Mode::Plan, Some("ollama:a")));
        assert!(choices.set(MODEL, "b").unwrap_err().contains("\"b\""));
        assert!(choices.set(MODE, "yolo").unwrap_err().contains("run, ask, dry-run, plan"));
        assert!(choices.set("speed", "x").unwrap_err().contains("\"speed\""));
        choices.set(MODEL, "default").unwrap();
        assert_eq!(choices.model, None);
    }

    #[test]
    fn the_options_and_the_modes_agree() {
        let choices = Choices { mode: Mode::Ask, model: Some("x".into()), models: Vec::new() };
        assert_eq!(&*choices.modes().current_mode_id.0, "ask");
        let options = serde_json::to_value(choices.options()).unwrap();
        assert_eq!(options[0]["currentValue"], "ask");
        assert_eq!(options[0]["category"], "mode");
        assert_eq!(options[1]["currentValue"], "x", "a chosen model stays in the list");
        assert_eq!(options[1]["options"][1]["value"], "x");
    }
}
