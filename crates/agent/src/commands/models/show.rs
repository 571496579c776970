//! `agent models show`: shows the header of a model file, or what an Ollama server reports about a
//! model. Also shows how a run would use the model.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use model_files::{Store, catalog, gguf};
use models::ollama::Server;
use models::profile::About;

use super::answers;
use crate::console;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{bytes, thousands};
use crate::layers::{Environment, Resolved};
use crate::model::server;
use crate::model_store;
use crate::profiles::{self, Asked};
use crate::sanitize;

pub(super) async fn run(
    settings: &Resolved,
    environment: &Environment,
    name: &str,
    json: bool,
) -> Result<Exit> {
    let profiles = profiles::load(environment)?;
    let asked = |parameters_b: Option<f32>, server: &str| {
        let stem = Path::new(name).file_stem().and_then(OsStr::to_str).filter(|_| is_file_name(name));
        let about = About { name: stem.unwrap_or(name), parameters_b, server };
        asked_rows(&Asked { settings, profile: profiles.resolve(about) })
    };
    let store = model_store::store(environment).ok();
    if let Some(path) = named_file(store.as_ref(), name) {
        return show_file(&path, json, asked);
    }
    let ollama = server(&settings.settings()?).await?;
    if !answers(&ollama).await {
        let stores = model_store::ollama_stores(environment);
        let cached = store.and_then(|store| store.find(name));
        if let Some(path) = cached.or_else(|| stores.iter().find_map(|store| store.find(name))) {
            return show_file(&path, json, asked);
        }
        if let Some(model) = catalog::find(name) {
            let missing = Failure::unavailable(anyhow::anyhow!("{} is not on this machine", model.name));
            return Err(missing.hint(format!("pull it with `agent models pull {}`", model.name)));
        }
    }
    show_model(&ollama, name, json, asked).await
}

/// Returns the file that `name` refers to, if `name` is a path or the name of a pulled model.
fn named_file(store: Option<&Store>, name: &str) -> Option<PathBuf> {
    if is_file_name(name) {
        return Some(PathBuf::from(name));
    }
    store?.list().into_iter().find(|file| file.name == name).map(|file| file.path)
}

fn is_file_name(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

type Rows = Vec<(&'static str, String)>;

/// Returns the rows that describe how a run would use the model.
fn asked_rows(asked: &Asked<'_>) -> Rows {
    let mut rows = vec![
        ("approach", asked.approach(None)),
        ("edit format", asked.edit_format(None)),
        ("temperature", asked.temperature(false)),
    ];
    if asked.temperature(true) != asked.temperature(false) {
        rows.push(("  if it thinks", asked.temperature(true)));
    }
    rows.push(("thinking", asked.thinking()));
    rows.push(("constrain", asked.constrain(None)));
    rows.extend(asked.window().map(|window| ("window", window)));
    rows
}

fn show_file(path: &Path, json: bool, asked: impl Fn(Option<f32>, &str) -> Rows) -> Result<Exit> {
    let header = gguf::read(path).map_err(Failure::refused)?;
    if json {
        let value = serde_json::to_value(&header).map_err(Failure::refused)?;
        console::print(format!("{value:#}\n"))?;
        return Ok(Exit::Success);
    }
    let known = if header.known { "" } else { " (not supported by the engine)" };
    let template = header.chat_template.as_ref().map_or_else(
        || String::from("no"),
        |template| format!("{} characters", thousands(template.chars().count() as u64)),
    );
    let asked = asked(Some(header.parameters as f32 / 1e9), "embedded");
    let rows = [
        ("file", path.display().to_string()),
        ("size", bytes(header.file_bytes)),
        ("name", header.name.unwrap_or_else(|| String::from("unknown"))),
        ("architecture", format!("{}{known}", header.architecture)),
        ("parameters", billions(header.parameters)),
        ("quantization", header.quantization),
        ("trained window", thousands(header.trained_window)),
        ("layers", header.layers.to_string()),
        ("heads", format!("{}, {} for keys and values", header.heads, header.kv_heads)),
        ("KV cache", format!("{} per token", bytes(header.kv_bytes_per_token))),
        ("vocabulary", thousands(header.vocabulary)),
        ("chat template", template),
    ];
    print_rows(rows, asked)
}

async fn show_model(
    server: &Server,
    name: &str,
    json: bool,
    asked: impl Fn(Option<f32>, &str) -> Rows,
) -> Result<Exit> {
    let show = server.show(name).await?;
    if json {
        console::print(format!("{:#}\n", show.raw))?;
        return Ok(Exit::Success);
    }
    let number = |n: Option<u64>| n.map_or("unknown".into(), thousands);
    let asked = asked(show.parameters_b, "ollama");
    let rows = [
        ("family", show.family.unwrap_or_else(|| "unknown".into())),
        ("parameters", show.parameters_b.map_or("unknown".into(), |b| format!("{b:.1} B"))),
        ("trained window", number(show.trained_window)),
        ("capabilities", show.capabilities.map_or("unknown".into(), |c| c.join(", "))),
        ("chat template", if show.chat_template { "yes".into() } else { "no".into() }),
        ("runs", if show.remote { "in the cloud".into() } else { "locally".into() }),
    ];
    print_rows(rows, asked)
}

fn print_rows(rows: impl IntoIterator<Item = (&'static str, String)>, asked: Rows) -> Result<Exit> {
    let text: String =
        rows.into_iter().chain(asked).map(|(k, v)| format!("{k:15} {}\n", sanitize::line(&v))).collect();
    console::print(text)?;
    Ok(Exit::Success)
}

/// Formats a parameter count in billions, such as `1.5 B`.
fn billions(parameters: u64) -> String {
    format!("{:.1} B", parameters as f64 / 1e9)
}
