//! The settings that a batch records so that a later invocation can tell what changed. This module
//! does no I/O.

use serde_json::Value;

use crate::layers::{Resolved, names};
use crate::settings::{Definition, Group, Kind};

/// Settings outside the server group that cannot affect a result: whether a model is downloaded,
/// where it runs, and where sessions are kept.
const WITHOUT_EFFECT: &[&str] = &["pull", "gpu_layers", "state_dir"];

/// Returns the settings that can affect a result, with secrets masked. Environment variables are
/// listed by name only.
pub(super) fn of(resolved: &Resolved, mask: &dyn Fn(&str) -> String) -> batch::Settings {
    let counts = resolved.values.iter().filter(|(definition, ..)| can_change_a_result(definition));
    counts.map(|(definition, value, _)| (definition.key.to_owned(), shown(definition, value, mask))).collect()
}

/// Returns whether a setting can affect a result. In the server group, only the model can. The
/// other settings specify how to reach the server, whose address may be different each time a job
/// scheduler starts it.
fn can_change_a_result(definition: &Definition) -> bool {
    (definition.group != Group::Server || definition.key == "model")
        && !WITHOUT_EFFECT.contains(&definition.key)
}

fn shown(definition: &Definition, value: &Value, mask: &dyn Fn(&str) -> String) -> Option<String> {
    match value {
        Value::Null => None,
        variables if definition.kind == Kind::Variables => Some(names(variables).join(", ")),
        Value::String(text) => Some(mask(text)),
        other => Some(mask(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{self, Environment};
    use crate::settings::DEFINITIONS;

    #[test]
    fn secrets_and_connection_settings_are_not_recorded() {
        let flags = [
            ("model", "m".to_owned()),
            ("headers", "X-Key: hunter2".to_owned()),
            ("env", "TOKEN=hunter2".to_owned()),
            ("verify", "TOKEN=hunter2 make".to_owned()),
            ("connect_seconds", "7".to_owned()),
        ];
        let resolved = layers::resolve(&flags, &Environment::default(), None).ok().unwrap();
        let settings = of(&resolved, &|text| text.replace("hunter2", "***"));
        let value = |key: &str| settings.get(key).cloned().flatten();
        assert_eq!(value("model").as_deref(), Some("m"));
        assert_eq!(value("verify").as_deref(), Some("TOKEN=*** make"));
        assert_eq!(value("env").as_deref(), Some("TOKEN"));
        assert_eq!((value("max_turns").as_deref(), settings.get("temperature")), (Some("40"), Some(&None)));
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        let left_out: Vec<_> =
            DEFINITIONS.iter().map(|d| d.key).filter(|key| !settings.contains_key(*key)).collect();
        insta::assert_snapshot!(left_out.join(" "), @"base_url ollama_host openai_base_url ollama_api_key deepseek_api_key openai_api_key api_key_file api_key_command headers ca_file client_cert_file client_key_file proxy connect_seconds first_byte_seconds idle_seconds pull gpu_layers state_dir");
    }
}
