//! Reads the user's model profiles and prices. Also describes, for `agent doctor` and `agent models
//! show`, how a run uses a model (approach, edit format, temperature and so on) and why.

use std::fmt::Display;
use std::path::Path;

use models::price::{self, Prices};
use models::profile::{File, Given, Profile, Profiles};
use models::{Identity, Think};
use serde_json::Value;

use crate::exit::{Failure, Result};
use crate::figures::thousands;
use crate::layers::{self, Environment, Resolved};

/// Reads the user's profiles: the TOML files in `profiles/` next to the user's settings.
///
/// # Errors
/// If a file cannot be read or is invalid.
pub(crate) fn load(environment: &Environment) -> Result<Profiles> {
    let Some(folder) = environment.profiles_dir() else { return Ok(Profiles::default()) };
    let cannot =
        |e: std::io::Error| Failure::misuse(format!("cannot read profiles from {}: {e}", folder.display()));
    let mut paths = match std::fs::read_dir(&folder) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(cannot)?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Profiles::default()),
        Err(e) => return Err(cannot(e)),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let files = paths.iter().filter_map(|path| read(path).transpose()).collect::<Result<_>>()?;
    Ok(Profiles::with(files))
}

/// Reads a profile. Returns `None` if the file has disappeared.
fn read(path: &Path) -> Result<Option<File>> {
    let text = layers::read_file(path)?;
    text.map(|text| File::parse(&path.display().to_string(), &text).map_err(Failure::misuse)).transpose()
}

/// Checks the user's profiles and prices.
///
/// # Errors
/// If a file cannot be read or is invalid.
pub(crate) fn check(environment: &Environment) -> Result<()> {
    load(environment)?;
    prices(environment)?;
    Ok(())
}

/// Reads the user's prices: the file `prices.toml` next to the user's settings.
///
/// # Errors
/// If the file cannot be read or is invalid.
pub(crate) fn prices(environment: &Environment) -> Result<Prices> {
    let Some(path) = environment.prices_file() else { return Ok(Prices::default()) };
    let Some(text) = layers::read_file(&path)? else { return Ok(Prices::default()) };
    let file = price::File::parse(&path.display().to_string(), &text).map_err(Failure::misuse)?;
    Ok(Prices::with(file))
}

/// How a run uses a model. The settings take precedence over the model's profile.
pub(crate) struct Asked<'a> {
    pub(crate) settings: &'a Resolved,
    pub(crate) profile: Profile,
}

impl Asked<'_> {
    /// Describes the approach, which comes from the settings, from `model` or from the profile, in
    /// this order of precedence.
    pub(crate) fn approach(&self, model: Option<&Identity>) -> String {
        let name = |whole: &bool| String::from(if *whole { "whole-file" } else { "tools" });
        let now = model.map(|model| name(&model.prefers_whole_files));
        self.explain("approach", now, self.profile.prefers_whole_files.as_ref(), name)
    }

    /// Describes the edit format, which comes from the settings, from `model` or from the profile,
    /// in this order of precedence.
    pub(crate) fn edit_format(&self, model: Option<&Identity>) -> String {
        let now = model.and_then(|model| model.edit_format.clone());
        self.explain("edit_format", now, self.profile.edit_format.as_ref(), String::clone)
    }

    /// Describes the temperature with or without thinking.
    pub(crate) fn temperature(&self, thinking: bool) -> String {
        self.explain("temperature", None, self.profile.temperature_if(thinking), f32::to_string)
    }

    /// Describes the setting for thinking.
    pub(crate) fn thinking(&self) -> String {
        self.explain("think", None, self.profile.think.as_ref(), |think: &Think| think.name().to_owned())
    }

    /// Describes whether tool calls are constrained. Some models cannot be constrained.
    pub(crate) fn constrain(&self, model: Option<&Identity>) -> String {
        let name = |constrained: &bool| String::from(if *constrained { "on" } else { "off" });
        let asked = self.explain("constrain", None, self.profile.constrain.as_ref(), name);
        if !asked.starts_with("on,") {
            return asked;
        }
        match model {
            None => format!("{asked}; not while the model thinks"),
            Some(model) if model.can_constrain => asked,
            Some(model) if model.thinking => {
                format!("off, because the model thinks; otherwise {asked}")
            }
            Some(_) => format!("off, because the server cannot constrain them; otherwise {asked}"),
        }
    }

    /// Describes the context window to request. Returns `None` if neither the settings nor the
    /// profile set one.
    pub(crate) fn window(&self) -> Option<String> {
        let window = self.profile.window.as_ref();
        let any = window.is_some() || self.set("num_ctx").is_some();
        any.then(|| self.explain("num_ctx", None, window, |tokens| thousands(*tokens)))
    }

    /// Describes a value, its source and the reason for it. `now` is the value in use, if the model
    /// is open. It can differ from the value in the profile, for example if a recording replaces
    /// the model.
    fn explain<T>(
        &self,
        key: &str,
        now: Option<String>,
        given: Option<&Given<T>>,
        show: impl Fn(&T) -> String,
    ) -> String {
        if let Some((value, source)) = self.set(key) {
            return format!("{value}, set by {source}");
        }
        let Some(given) = given.filter(|given| now.as_ref().is_none_or(|now| *now == show(&given.value)))
        else {
            return now.unwrap_or_else(|| String::from("default"));
        };
        let reason = if given.reason.is_empty() { "no reason given" } else { &given.reason };
        format!("{}, from {}; {reason}", show(&given.value), given.source)
    }

    /// Returns the value of a setting and its source, or `None` if the setting leaves the choice to
    /// the profile.
    fn set(&self, key: &str) -> Option<(String, &dyn Display)> {
        let (_, value, origin) = self.settings.values.iter().find(|(d, _, _)| d.key == key)?;
        let value = match value {
            Value::Null => return None,
            Value::String(word) if word == "auto" => return None,
            Value::String(word) => word.clone(),
            other => other.as_u64().map_or_else(|| other.to_string(), thousands),
        };
        Some((value, origin))
    }
}

#[cfg(test)]
mod tests {
    use models::profile::About;

    use super::*;

    fn profile() -> Profile {
        let file =
            "names = ['x']\n[[temperature]]\nvalue = 0.3\n[[think]]\nvalue = 'low'\nguess = 'hard tasks'";
        let profiles = Profiles::with(vec![File::parse("mine.toml", file).unwrap()]);
        profiles.resolve(About { name: "x:7b", parameters_b: Some(7.0), server: "ollama" })
    }

    #[test]
    fn a_value_is_shown_with_its_source_and_its_reason() {
        let flags = [("approach", "whole-file".to_owned()), ("num_ctx", "16384".to_owned())];
        let settings = layers::resolve(&flags, &Environment::default(), None).unwrap();
        let asked = Asked { settings: &settings, profile: profile() };
        assert_eq!(asked.approach(None), "whole-file, set by --approach");
        assert_eq!(asked.window().unwrap(), "16,384, set by --num-ctx");
        assert_eq!(asked.temperature(false), "0.3, from mine.toml; no reason given");
        assert_eq!(asked.temperature(true), asked.temperature(false));
        assert_eq!(asked.thinking(), "low, from mine.toml; a guess: hard tasks");
        let format = asked.edit_format(None);
        assert!(format.starts_with("edits, from built-in profiles/default.toml; a guess: "), "{format}");
    }

    #[test]
    fn bug_calls_were_shown_as_constrained_for_a_model_that_cannot_be_constrained() {
        let shown = |word: &str, thinking, can_constrain| {
            let settings = layers::resolve(&[("constrain", word.to_owned())], &Environment::default(), None);
            let asked = Asked { settings: &settings.unwrap(), profile: profile() };
            asked.constrain(Some(&Identity { thinking, can_constrain, ..Identity::default() }))
        };
        assert_eq!(shown("on", false, true), "on, set by --constrain");
        let on = "otherwise on, set by --constrain";
        assert_eq!(shown("on", true, false), format!("off, because the model thinks; {on}"));
        assert_eq!(shown("on", false, false), format!("off, because the server cannot constrain them; {on}"));
        assert_eq!(shown("off", false, false), "off, set by --constrain");
        assert!(shown("auto", false, false).starts_with("off, from built-in "));
    }

    #[test]
    fn a_recording_keeps_its_recorded_approach() {
        let settings = layers::resolve(&[], &Environment::default(), None).unwrap();
        let asked = Asked { settings: &settings, profile: profile() };
        let recorded = Identity { prefers_whole_files: true, ..Identity::default() };
        assert_eq!(asked.approach(Some(&recorded)), "whole-file");
        assert!(asked.approach(Some(&Identity::default())).starts_with("tools, from built-in "));
    }
}
