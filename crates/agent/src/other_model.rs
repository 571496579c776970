//! The models that a run may switch to (`--escalate`, `--fallback`): their settings, and how they
//! are opened during a run. No server gets another server's secrets.

use std::str::FromStr;

use async_trait::async_trait;
use journal::{Ending, Event, ModelRole, Record};
use models::choose::{Choice, Chosen};
use models::{Absent, host};
use planner::{OpenModel, OpenedModel};
use secrets::Secrets;

use crate::exit::{Failure, Result};
use crate::masking::MaskedModel;
use crate::model;
use crate::settings::Settings;
use crate::waiting::Waits;

/// A kind of model server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ollama,
    DeepSeek,
    OpenAi,
    /// In this process.
    Here,
}

/// The server of a model.
#[derive(Debug)]
struct Place {
    kind: Kind,
    /// Its address, if the settings specify one.
    address: Option<String>,
}

impl Place {
    /// Returns the server of the model named in the settings. If no address is set, a model without
    /// a prefix, or one that is not named at all, is assumed to be on Ollama. If the model turns
    /// out to be on a different kind of server, that server still gets no secrets meant for other
    /// servers, because the user did not name it.
    fn of(settings: &Settings) -> Result<Self> {
        let address = model::base_url(settings).map(|base| host::openai_base(base));
        let kind = match model::choice(settings)? {
            Some(Choice::Ollama(_)) => Kind::Ollama,
            Some(Choice::DeepSeek(_)) => Kind::DeepSeek,
            Some(Choice::OpenAi(_)) => Kind::OpenAi,
            Some(Choice::Embedded(_) | Choice::Replay(_)) => Kind::Here,
            Some(Choice::Bare(_)) | None if address.is_some() => Kind::OpenAi,
            Some(Choice::Bare(_)) | None => Kind::Ollama,
        };
        Ok(Self { kind, address })
    }

    /// Returns whether `other` is certainly the same server.
    fn is(&self, other: &Self) -> bool {
        match (&self.address, &other.address) {
            (None, None) => self.kind == other.kind,
            (address, other) => address == other,
        }
    }
}

/// Returns the settings for the model `choice`, and whether that model is on the first model's
/// server. If it is on a different server, the settings omit the address and the secrets of the
/// first model's server.
fn beside(settings: &Settings, choice: &Choice) -> Result<(Settings, bool)> {
    let mut other = Settings { model: Some(choice.to_string()), ..settings.clone() };
    let first = Place::of(settings)?;
    // `--base-url` is the address of the first model's server.
    let own_address = match choice {
        Choice::Bare(_) => false,
        Choice::OpenAi(_) if settings.openai_base_url.is_some() => true,
        _ => Place::of(&other)?.kind != first.kind,
    };
    if own_address {
        other.base_url = None;
    }
    let same = Place::of(&other)?.is(&first);
    if same {
        other.base_url.clone_from(&settings.base_url);
    } else {
        (other.base_url, other.headers) = (None, None);
        (other.api_key_file, other.api_key_command) = (None, None);
        (other.client_cert_file, other.client_key_file) = (None, None);
    }
    Ok((other, same))
}

/// Returns the settings for the model named in the `escalate` or `fallback` setting, or `None` if
/// that setting is not set.
///
/// # Errors
/// If the name is invalid, or the settings lack the address or the key that the model needs.
pub(crate) fn settings(settings: &Settings, role: ModelRole) -> Result<Option<Settings>> {
    let Some(choice) = choice(settings, role)? else { return Ok(None) };
    let (other, same) = beside(settings, &choice)?;
    // Report this now rather than after the first model has done its work.
    let no_address = other.base_url.is_none() && other.openai_base_url.is_none();
    let no_key = other.deepseek_api_key.is_none() && !same;
    match choice {
        Choice::OpenAi(_) if no_address => Err(Failure::misuse(format!(
            "{}: {choice} needs the address of its server in OPENAI_BASE_URL",
            name(role)
        ))),
        Choice::DeepSeek(_) if no_key => {
            Err(Failure::misuse(format!("{}: {choice} needs a key in DEEPSEEK_API_KEY", name(role))))
        }
        _ => Ok(Some(other)),
    }
}

/// Returns the settings for the first model. Leaves out `OPENAI_API_KEY` if another model uses
/// `OPENAI_BASE_URL`, because the key belongs to that server.
pub(crate) fn first(settings: &Settings) -> Result<Settings> {
    let mut first = settings.clone();
    for role in [ModelRole::Escalate, ModelRole::Fallback] {
        let Some(choice) = choice(settings, role)? else { continue };
        let (other, same) = beside(settings, &choice)?;
        if !same && Place::of(&other)?.kind == Kind::OpenAi {
            first.openai_api_key = None;
        }
    }
    Ok(first)
}

/// Checks the settings that specify models.
///
/// # Errors
/// Same as [`settings`] and [`model::choice`].
pub(crate) fn check(all: &Settings) -> Result<()> {
    model::choice(all)?;
    settings(all, ModelRole::Escalate)?;
    settings(all, ModelRole::Fallback)?;
    Ok(())
}

fn choice(settings: &Settings, role: ModelRole) -> Result<Option<Choice>> {
    let text = match role {
        ModelRole::Escalate => &settings.escalate,
        ModelRole::Fallback => &settings.fallback,
    };
    let parse = |text: &str| Choice::from_str(text).map_err(|why| format!("{}: {why}", name(role)));
    text.as_deref().map(parse).transpose().map_err(Failure::misuse)
}

/// Returns the name of the setting that selects the model for this role.
fn name(role: ModelRole) -> &'static str {
    match role {
        ModelRole::Escalate => "escalate",
        ModelRole::Fallback => "fallback",
    }
}

/// The models of a run.
pub(crate) struct Models {
    /// The model to start with, which may be [`Absent`] in a resumed run.
    pub(crate) chosen: Chosen,
    /// The setting that specifies this model, or `None` for the first model.
    pub(crate) role: Option<ModelRole>,
    pub(crate) escalation: Option<Box<dyn OpenModel>>,
    pub(crate) fallback: Option<Box<dyn OpenModel>>,
}

/// Opens the first model of a new run or, for a resumed run, the last model named in the journal.
/// If that model is unavailable, the fallback takes its place. The fallback is used only once.
///
/// # Errors
/// If no model can be opened.
pub(crate) async fn open(all: &Settings, past: &[Record], secrets: &Secrets, waits: Waits) -> Result<Models> {
    let roles: Vec<_> = past.iter().filter_map(role).collect();
    let role = roles.last().copied().flatten();
    let later = |role| {
        let other = settings(all, role)?;
        let open =
            |settings| Box::new(Later { settings, secrets: secrets.clone(), waits }) as Box<dyn OpenModel>;
        Ok::<_, Failure>(other.map(open))
    };
    let escalation = later(ModelRole::Escalate)?;
    let fallback = later(ModelRole::Fallback)?.filter(|_| !roles.contains(&Some(ModelRole::Fallback)));
    let current = match role {
        None => first(all)?,
        Some(role) => settings(all, role)?.ok_or_else(|| {
            let name = name(role);
            Failure::misuse(format!("the session was using the model from --{name}: repeat the flag"))
        })?,
    };
    let failure = match model::open(&current, true, waits.notices()).await {
        Ok(chosen) => return Ok(Models { chosen, role, escalation, fallback }),
        Err(failure) => failure,
    };
    let spare = settings(all, ModelRole::Fallback)?.filter(|_| fallback.is_some() && is_of_server(&failure));
    let Some(spare) = spare else { return Err(failure) };
    let why = format!("{:#}", failure.error);
    let started = past.iter().any(|record| matches!(record.event, Event::RunStarted { .. }));
    if !started {
        return match model::open(&spare, true, waits.notices()).await {
            Ok(mut chosen) => {
                chosen.warnings.insert(0, format!("{why}; continuing with the fallback model"));
                let role = Some(ModelRole::Fallback);
                Ok(Models { chosen, role, escalation, fallback: None })
            }
            Err(also) => {
                Err(failure.hint(format!("the fallback model is unavailable too: {:#}", also.error)))
            }
        };
    }
    // The planner switches to the fallback at the next request.
    let chosen = Chosen { model: Box::new(Absent(why)), why: String::new(), warnings: Vec::new() };
    Ok(Models { chosen, role, escalation, fallback })
}

/// Returns the setting that specifies the model used from this record on. An inner `None` means the
/// first model. Returns `None` if the record does not change the model.
fn role(record: &Record) -> Option<Option<ModelRole>> {
    match &record.event {
        Event::Model(model) | Event::ModelChanged { model, .. } => Some(model.role),
        _ => None,
    }
}

/// Returns whether the failure concerns the model's server, including its address and key, rather
/// than the agent's other settings.
fn is_of_server(failure: &Failure) -> bool {
    let settings = |error: &models::Error| matches!(error, models::Error::Settings(_));
    failure.ending == Ending::Unavailable || failure.error.downcast_ref().is_some_and(settings)
}

/// A model that is opened when the run switches to it.
struct Later {
    settings: Settings,
    secrets: Secrets,
    waits: Waits,
}

#[async_trait]
impl OpenModel for Later {
    /// Opens the model without asking the user, who may be away.
    async fn open(&self) -> Result<OpenedModel, (Ending, String)> {
        let opened = model::open(&self.settings, false, self.waits.notices()).await;
        let Chosen { model, why, warnings } = opened.map_err(|failure| {
            (failure.ending, self.secrets.mask(&format!("{:#}", failure.error)).into_owned())
        })?;
        let model = self.waits.explain(Box::new(MaskedModel(model, self.secrets.clone())));
        Ok(OpenedModel { model, why, warnings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Environment;

    fn resolved(flags: &[(&'static str, &str)]) -> Settings {
        let flags: Vec<_> = flags.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        crate::layers::resolve(&flags, &Environment::default(), None).unwrap().settings().unwrap()
    }

    /// Returns the address and the key file for the other model, or `None` if the settings are
    /// refused.
    fn other(flags: &[(&'static str, &str)]) -> Option<(Option<String>, Option<String>)> {
        let all = resolved(&[&[("api_key_file", "k")], flags].concat());
        let other = settings(&all, ModelRole::Escalate).ok()??;
        Some((other.base_url, other.api_key_file))
    }

    #[test]
    fn the_address_and_the_key_of_the_first_server_go_only_to_a_model_of_that_server() {
        let url = ("base_url", "http://one/v1");
        let kept = Some((Some("http://one/v1".to_owned()), Some("k".to_owned())));
        for name in ["large", "openai:large"] {
            assert_eq!(other(&[url, ("escalate", name)]), kept, "{name}");
        }
        assert_eq!(other(&[url, ("model", "ollama:a"), ("escalate", "ollama:b")]), kept);
        for name in ["ollama:b", "embedded:b"] {
            assert_eq!(other(&[url, ("escalate", name)]), Some((None, None)), "{name}");
        }
        assert_eq!(other(&[("model", "deepseek"), ("escalate", "b")]), Some((None, None)));
        assert_eq!(other(&[url, ("escalate", "deepseek")]), None, "it needs a key of its own");
        assert_eq!(other(&[("escalate", "openai:b")]), None, "it needs an address");
    }

    /// Returns the settings of a first model that has a header, a certificate and a key file.
    fn with_secrets(flags: &[(&'static str, &str)]) -> Settings {
        let mut all = resolved(&[&[("api_key_file", "k"), ("client_cert_file", "c")], flags].concat());
        all.headers = Some(vec!["X-Secret: sesame".into()]);
        all
    }

    /// Returns whether the other model gets the secrets of the first one. Asserts that it gets
    /// either all of them or none.
    fn gets_the_secrets(all: &Settings) -> bool {
        let other = settings(all, ModelRole::Fallback).ok().flatten().unwrap();
        let has = [other.headers.is_some(), other.client_cert_file.is_some(), other.api_key_file.is_some()];
        assert!(has == [true; 3] || has == [false; 3], "{has:?}");
        has[0]
    }

    /// The bug: if the settings did not name a model, the agent assumed that the model was on
    /// Ollama, even if `OPENAI_BASE_URL` was set.
    #[test]
    fn bug_the_secrets_of_an_unnamed_model_stay_at_openai_base_url() {
        for (fallback, same) in [
            ("ollama:qwen", false),
            ("qwen", false),
            ("openai", true),
            ("openai:b", true),
            ("openai/b", true),
        ] {
            let mut all = with_secrets(&[("fallback", fallback)]);
            all.openai_base_url = Some("https://gateway.example/v1".into());
            assert_eq!(gets_the_secrets(&all), same, "{fallback}");
            // `OPENAI_BASE_URL` is ignored if another server is configured.
            all.ollama_host = Some("ollama.example".into());
            assert_eq!(gets_the_secrets(&all), !same, "{fallback}");
        }
    }

    #[test]
    fn bug_a_bare_name_at_openai_base_url_gets_no_secrets_of_ollama() {
        let mut all = with_secrets(&[("model", "ollama:a"), ("fallback", "openai/b")]);
        assert!(gets_the_secrets(&all));
        all.openai_base_url = Some("https://gateway.example/v1".into());
        assert!(!gets_the_secrets(&all));
    }

    /// The bug: the first model lost `OPENAI_API_KEY`, and the other model lost the secrets.
    #[test]
    fn bug_two_spellings_of_an_address_are_one_server() {
        for spelling in ["http://one/v1/", "http://one/v1/chat/completions", " http://one/v1"] {
            let mut all = with_secrets(&[("base_url", "http://one/v1"), ("fallback", "openai:large")]);
            (all.openai_base_url, all.openai_api_key) = (Some(spelling.into()), Some("secret".into()));
            assert!(gets_the_secrets(&all), "{spelling}");
            assert_eq!(first(&all).ok().unwrap().openai_api_key.as_deref(), Some("secret"), "{spelling}");
        }
    }

    #[test]
    fn a_second_openai_compatible_server_has_its_own_address_and_key() {
        let mut all = resolved(&[("base_url", "http://one/v1"), ("escalate", "openai:large")]);
        (all.openai_base_url, all.openai_api_key) = (Some("http://two/v1".into()), Some("secret".into()));
        let other = settings(&all, ModelRole::Escalate).ok().flatten().unwrap();
        assert_eq!((other.base_url, other.openai_api_key.as_deref()), (None, Some("secret")));
        assert_eq!(first(&all).ok().unwrap().openai_api_key, None);
        all.escalate = Some("large".into());
        assert_eq!(first(&all).ok().unwrap().openai_api_key.as_deref(), Some("secret"));
    }
}
