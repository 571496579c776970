//! The format that a model is told to write edits in. The agent accepts every format, regardless of
//! what the model was told.

use models::Identity;
use tool_api::Registry;
use tool_apply_patch::{ApplyPatch, EditFormat};

use crate::settings::Settings;

/// The format to use if neither the settings nor the model's profile specifies one.
const DEFAULT: &str = "edits";

/// Sets the description of the editing tool. It tells the model to use the configured format or, if
/// none is configured, the format in the model's profile.
pub(crate) fn describe(settings: &Settings, model: &Identity, tools: &mut Registry) {
    let name = match settings.edit_format.as_str() {
        "auto" => model.edit_format.as_deref().unwrap_or(DEFAULT),
        set => set,
    };
    if let Some(format) = EditFormat::named(name) {
        tools.describe(ApplyPatch::NAME, format.description(), format.schema());
    }
}

#[cfg(test)]
mod tests {
    use models::profile::{About, EDIT_FORMATS, Profiles};

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
    fn a_profile_may_name_every_format_and_unknown_models_get_the_default() {
        assert_eq!(EDIT_FORMATS, EditFormat::ALL.map(|(name, _)| name));
        let about = About { name: "unknown", parameters_b: None, server: "" };
        let profile = Profiles::default().resolve(about);
        assert_eq!(profile.edit_format.unwrap().value, DEFAULT);
    }
}
