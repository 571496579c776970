//! The form in which a model is asked to write edits: what was set, or what is known of the model's family. Whatever it is asked for,
//! every form is accepted.

use models::Identity;
use tool_api::Registry;
use tool_apply_patch::{ApplyPatch, Described};

use crate::settings::Settings;

/// What is known of a family of models.
struct Profile {
    /// Stands in the names of its models, or begins the name of their architecture.
    family: &'static str,
    /// The description, by its word.
    form: &'static str,
    /// Why: what was measured, on what, when.
    because: &'static str,
}

/// The families that were measured, by `scripts/bench-edit-forms`; the tables are in `scripts/bench-edit-forms.md`.
const PROFILES: [Profile; 1] = [Profile {
    family: "qwen",
    form: "edits",
    because: "measured 2026-11-22 with qwen2.5-coder-1.5b only, 12 tasks: 4 solved at the first try, other forms 0 to 2",
}];

/// For every other family.
const DEFAULT: Profile = Profile { family: "", form: "edits", because: "not measured: default" };

/// What a model is asked for, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EditForm {
    /// The setting's word for it.
    pub(crate) word: String,
    pub(crate) because: &'static str,
}

/// The form for a model; without one, for a family that nothing is known of.
pub(crate) fn choose(settings: &Settings, model: Option<&Identity>) -> EditForm {
    match settings.edit_form.as_str() {
        "auto" => {
            let profile = model.map_or(&DEFAULT, profile);
            EditForm { word: profile.form.to_owned(), because: profile.because }
        }
        word => EditForm { word: word.to_owned(), because: "set" },
    }
}

fn profile(model: &Identity) -> &'static Profile {
    let name = model.model.to_lowercase();
    let architecture = model.family.as_deref().unwrap_or_default().to_lowercase();
    let known = PROFILES.iter().find(|p| name.contains(p.family));
    known.or_else(|| PROFILES.iter().find(|p| architecture.starts_with(p.family))).unwrap_or(&DEFAULT)
}

impl EditForm {
    /// Describes the editing tool accordingly; `all` leaves it as it is.
    pub(crate) fn describe(&self, tools: &mut Registry) {
        if let Some(one) = Described::named(&self.word) {
            tools.describe(ApplyPatch::NAME, one.description(), one.schema());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Kind, definition};

    fn model(name: &str, family: Option<&str>) -> Identity {
        Identity {
            model: name.to_owned(),
            family: family.map(str::to_owned),
            ..models::replay::Replay::identity_named("x")
        }
    }

    #[test]
    fn every_word_of_the_setting_and_of_the_table_is_a_form() {
        let Kind::Choice(words) = definition("edit_form").unwrap().kind else { panic!() };
        assert_eq!(words[..2], ["auto", "all"]);
        assert_eq!(words[2..], tool_apply_patch::DESCRIBED.map(|(word, _)| word));
        for profile in PROFILES.iter().chain([&DEFAULT]) {
            assert!(words[1..].contains(&profile.form), "{}", profile.form);
        }
    }

    #[test]
    fn a_family_is_known_by_the_name_of_its_models_or_of_their_architecture() {
        for (name, architecture) in
            [("qwen2.5-coder:7b", None), ("Org/Qwen3-8B-GGUF", None), ("mine:latest", Some("qwen2"))]
        {
            assert_eq!(profile(&model(name, architecture)).family, "qwen", "{name}");
        }
        assert_eq!(profile(&model("deepseek-coder:6.7b", Some("llama"))).family, "");
    }

    #[test]
    fn an_unknown_family_gets_the_default_and_says_that_nothing_was_measured() {
        assert_eq!(profile(&model("nobody-1b", None)).because, "not measured: default");
    }
}
