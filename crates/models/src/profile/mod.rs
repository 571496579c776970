//! Model profiles: the settings for each model family, in one TOML file per family.
//!
//! The built-in files are in the repository's `profiles/` folder; the program may add the user's
//! files ([`Profiles::with`]). [`Profiles::resolve`] looks up each value in the files that match
//! the model: the user's files come before the built-in ones and, within each group, the file with
//! the longest matching name comes first. Every built-in value says how it was measured, or that it
//! is a guess. `docs/models.md` describes the format.

mod built_in;
mod file;
mod names;

use std::sync::{Arc, LazyLock};

use crate::size::parameters_in;
use crate::{Identity, Think};
pub(crate) use file::SERVERS;
pub use file::{EDIT_FORMATS, File};
use file::{Entry, Values};

/// The built-in profiles and the user's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profiles {
    user: Arc<Vec<File>>,
}

/// The properties that determine which values apply to a model.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The model's name, in any spelling.
    pub name: &'a str,
    /// Number of parameters, in billions. If `None`, the number in the model's name is used.
    pub parameters_b: Option<f32>,
    /// The kind of server, as in [`Identity::server`].
    pub server: &'a str,
}

/// A value and its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// The name of the file that the value comes from, as shown in messages.
    pub source: Arc<str>,
    /// The reason for the value: `measured: …` or `a guess: …`; empty if the file does not give
    /// one.
    pub reason: String,
    /// Whether the value comes from one of the user's files, not from a built-in one.
    pub by_user: bool,
}

/// The settings for one model. A setting is `None` if no file has a value for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Whether to ask the model for whole files instead of tool calls.
    pub prefers_whole_files: Option<Given<bool>>,
    /// The edit format that the model is told to use, one of [`EDIT_FORMATS`].
    pub edit_format: Option<Given<String>>,
    /// The sampling temperature.
    pub temperature: Option<Given<f32>>,
    /// The sampling temperature while the model thinks.
    pub thinking_temperature: Option<Given<f32>>,
    /// Whether and how much the model should think.
    pub think: Option<Given<Think>>,
    /// The context window to request, in tokens.
    pub window: Option<Given<u64>>,
    /// Whether to constrain tool calls, if the server can.
    pub constrain: Option<Given<bool>>,
}

impl Profiles {
    /// Adds the user's files. If two files match a model with names of equal length, the later file
    /// wins.
    #[must_use]
    pub fn with(user: Vec<File>) -> Self {
        Self { user: Arc::new(user) }
    }

    /// Finds the value of each setting for a model.
    #[must_use]
    pub fn resolve(&self, about: About<'_>) -> Profile {
        static BUILT_IN: LazyLock<Vec<File>> = LazyLock::new(built_in::files);
        let parameters_b = about.parameters_b.or_else(|| parameters_in(about.name));
        let about = About { parameters_b, ..about };
        let model = names::words(about.name);
        let all = BUILT_IN.iter().map(|file| (file, false)).chain(self.user.iter().map(|file| (file, true)));
        let named = all.filter_map(|(file, by_user)| Some((file.matches(&model)?, file, by_user)));
        let mut files: Vec<_> = named.collect();
        files.sort_by_key(|(length, _, by_user)| (*by_user, *length)); // stable
        let files: Vec<_> = files.into_iter().rev().map(|(_, file, by_user)| (file, by_user)).collect();
        Profile {
            prefers_whole_files: pick(&files, about, false, |values| &values.approach),
            edit_format: pick(&files, about, false, |values| &values.edit_format),
            temperature: pick(&files, about, false, |values| &values.temperature),
            thinking_temperature: pick(&files, about, true, |values| &values.temperature),
            think: pick(&files, about, false, |values| &values.think),
            window: pick(&files, about, false, |values| &values.window),
            constrain: pick(&files, about, false, |values| &values.constrain),
        }
    }
}

/// Returns the last applicable entry of the first file that has one.
fn pick<T: Clone>(
    files: &[(&File, bool)],
    about: About<'_>,
    thinking: bool,
    of: impl Fn(&Values) -> &Vec<Entry<T>>,
) -> Option<Given<T>> {
    files.iter().find_map(|(file, by_user)| {
        let entry = of(&file.values).iter().rev().find(|entry| entry.applies(about, thinking))?;
        Some(Given {
            value: entry.value.clone(),
            source: Arc::clone(&file.source),
            reason: entry.reason.clone(),
            by_user: *by_user,
        })
    })
}

impl Profile {
    /// Sets the fields of an identity that come from the profile. [`Identity::thinking`] and
    /// [`Identity::can_constrain`] must already be set.
    pub fn describe(&self, identity: &mut Identity) {
        identity.prefers_whole_files = self.prefers_whole_files.as_ref().is_some_and(|given| given.value);
        // A built-in profile constrains only models that can be constrained. A user's profile
        // constrains any model, so that the run warns about a model that cannot be constrained.
        let constrain = self.constrain.as_ref().filter(|given| given.value);
        identity.constrained = constrain.is_some_and(|given| given.by_user || identity.can_constrain);
        identity.edit_format = self.edit_format.as_ref().map(|given| given.value.clone());
        identity.temperature = self.temperature_if(identity.thinking).map_or(0.0, |given| given.value);
    }

    /// Returns the sampling temperature to use with or without thinking.
    #[must_use]
    pub fn temperature_if(&self, thinking: bool) -> Option<&Given<f32>> {
        if thinking { self.thinking_temperature.as_ref() } else { self.temperature.as_ref() }
    }

    /// Returns the thinking setting: the user's choice or, if that is [`Think::Auto`], the
    /// profile's.
    #[must_use]
    pub fn think(&self, asked: Think) -> Think {
        match (asked, &self.think) {
            (Think::Auto, Some(given)) => given.value,
            (asked, _) => asked,
        }
    }

    /// Returns the window to request, in tokens.
    #[must_use]
    pub fn window(&self) -> Option<u64> {
        self.window.as_ref().map(|given| given.value)
    }
}

#[cfg(test)]
mod tests;
