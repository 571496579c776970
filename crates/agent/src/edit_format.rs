//! The format in which a model is told to write edits. Every format is understood, whatever it was
//! told.

use models::Identity;
use tool_api::Registry;
use tool_apply_patch::{ApplyPatch, EditFormat};

use crate::settings::Settings;

/// The format if none is set. It did best where formats were measured.
const DEFAULT: &str = "edits";
/// The model that `scripts/bench-edit-formats` has measured; `scripts/bench-edit-formats.md` has
/// the tables.
const MEASURED: &str = "qwen2.5-coder-1.5b";

/// Returns the name of the format to ask for.
fn name(settings: &Settings) -> &str {
    if settings.edit_format == "auto" { DEFAULT } else { &settings.edit_format }
}

/// Describes the editing tool in the format that is set.
pub(crate) fn describe(settings: &Settings, tools: &mut Registry) {
    if let Some(format) = EditFormat::named(name(settings)) {
        tools.describe(ApplyPatch::NAME, format.description(), format.schema());
    }
}

/// Says which format a model is asked for, and why, for `agent doctor`.
pub(crate) fn explain(settings: &Settings, model: &Identity) -> String {
    let measured = model.model.to_lowercase().replace(':', "-").contains(MEASURED);
    let why = match (settings.edit_format.as_str(), measured) {
        ("auto", true) => "solved 4 of 12 tasks with this model, other formats 0 to 2",
        ("auto", false) => "default; not measured with this model",
        _ => "set by edit_format",
    };
    format!("{} ({why})", name(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Kind, definition};

    #[test]
    fn the_setting_has_every_format() {
        let Kind::Choice(formats) = definition("edit_format").unwrap().kind else { panic!() };
        let names = EditFormat::ALL.map(|(name, _)| name);
        assert_eq!(formats, ["auto"].iter().copied().chain(names).collect::<Vec<_>>());
        assert!(names.contains(&DEFAULT));
    }

    #[test]
    fn only_the_measured_model_is_said_to_be_measured() {
        let mut settings =
            crate::layers::resolve(&[], &Default::default(), None).unwrap().settings().unwrap();
        let identity = models::replay::Replay::identity_named;
        for name in ["qwen2.5-coder:1.5b", "Org/Qwen2.5-Coder-1.5B-Instruct-GGUF"] {
            assert!(explain(&settings, &identity(name)).starts_with("edits (solved 4"), "{name}");
        }
        for name in ["qwen2.5-coder:7b", "deepseek-coder:6.7b"] {
            assert_eq!(explain(&settings, &identity(name)), "edits (default; not measured with this model)");
        }
        settings.edit_format = "unified".into();
        assert_eq!(explain(&settings, &identity("qwen2.5-coder:1.5b")), "unified (set by edit_format)");
    }
}
