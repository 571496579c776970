//! `agent config show`: shows each setting with its value and origin. For secrets, shows only
//! whether they are set.

use serde_json::{Value, json};

use crate::cli::Config;
use crate::console;
use crate::context::Context;
use crate::exit::{Exit, Result};
use crate::layers::Origin;
use crate::sanitize;
use crate::settings::Kind;

/// Shows the settings.
pub(crate) fn run(command: Config, context: &Context) -> Result<Exit> {
    let Config::Show { json, settings } = command;
    let resolved = context.resolve(&settings.given)?;
    let state_dir = context.state_dir()?.display().to_string();
    let rows = resolved.values.iter().map(|(d, value, origin)| {
        let value = match (d.kind, value) {
            (Kind::Secret, Value::String(_)) => Value::from("(set)"),
            _ if d.key == "state_dir" => Value::from(state_dir.as_str()),
            (Kind::Headers | Kind::Variables, Value::Array(list)) => {
                let shown = |entry: &str| match entry.split_once([':', '=']) {
                    Some((name, _)) => format!("{name}: (set)"),
                    None => format!("{entry}: (passed on)"),
                };
                list.iter().filter_map(Value::as_str).map(shown).collect::<Vec<_>>().join(", ").into()
            }
            // Addresses may contain credentials.
            (_, Value::String(text))
                if d.key.ends_with("base_url") || ["ollama_host", "proxy"].contains(&d.key) =>
            {
                models::host::shown(text).into()
            }
            (_, value) => value.clone(),
        };
        (d, value, origin)
    });
    if json {
        let object: serde_json::Map<_, _> = rows
            .map(|(d, value, origin)| {
                let kind = match origin {
                    Origin::Flag(_) => "flag",
                    Origin::Variable(_) => "environment",
                    Origin::Repository(_) => "repository",
                    Origin::User(_) => "user",
                    Origin::Default => "default",
                };
                (d.key.to_owned(), json!({"value": value, "origin": kind, "from": origin.to_string()}))
            })
            .collect();
        console::print(format!("{:#}\n", Value::Object(object)))?;
        return Ok(Exit::Success);
    }
    let rows: Vec<_> = rows
        .map(|(d, value, origin)| {
            let value = match value {
                Value::Null => "-".to_owned(),
                Value::String(s) => s,
                other => other.to_string(),
            };
            (d.key, sanitize::line(&value).into_owned(), sanitize::line(&origin.to_string()).into_owned())
        })
        .collect();
    let width = |i: fn(&(&str, String, String)) -> usize| rows.iter().map(i).max().unwrap_or(0);
    let (keys, values) = (width(|r| r.0.len()), width(|r| r.1.chars().count()).min(50));
    let text: String =
        rows.iter().map(|(key, value, origin)| format!("{key:keys$}  {value:values$}  {origin}\n")).collect();
    console::print(text)?;
    Ok(Exit::Success)
}
