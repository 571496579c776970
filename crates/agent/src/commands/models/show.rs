//! `agent models show`: the header of a model file, or what an Ollama server says about a model.

use std::path::{Path, PathBuf};

use model_files::{Store, catalogue, gguf};
use models::ollama::Server;

use super::answers;
use crate::console;
use crate::exit::{Exit, Failure, Result};
use crate::figures::{bytes, thousands};
use crate::layers::Environment;
use crate::model::server;
use crate::model_store;
use crate::sanitize;
use crate::settings::Settings;

pub(super) async fn run(
    settings: &Settings,
    environment: &Environment,
    name: &str,
    json: bool,
) -> Result<Exit> {
    let store = model_store::store(environment).ok();
    if let Some(path) = named_file(store.as_ref(), name) {
        return show_file(&path, json);
    }
    let ollama = server(settings).await?;
    if !answers(&ollama).await {
        let stores = model_store::ollama_stores(environment);
        let cached = store.and_then(|store| store.find(name));
        if let Some(path) = cached.or_else(|| stores.iter().find_map(|store| store.find(name))) {
            return show_file(&path, json);
        }
        if let Some(model) = catalogue::find(name) {
            let missing = Failure::unavailable(anyhow::anyhow!("{} is not on this machine", model.name));
            return Err(missing.hint(format!("pull it with `agent models pull {}`", model.name)));
        }
    }
    show_model(&ollama, name, json).await
}

/// The file that a name refers to: a path or a pulled model.
fn named_file(store: Option<&Store>, name: &str) -> Option<PathBuf> {
    if Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return Some(PathBuf::from(name));
    }
    store?.list().into_iter().find(|file| file.name == name).map(|file| file.path)
}

fn show_file(path: &Path, json: bool) -> Result<Exit> {
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
    print_rows(&[
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
    ])
}

async fn show_model(server: &Server, name: &str, json: bool) -> Result<Exit> {
    let show = server.show(name).await?;
    if json {
        console::print(format!("{:#}\n", show.raw))?;
        return Ok(Exit::Success);
    }
    let number = |n: Option<u64>| n.map_or("unknown".into(), thousands);
    print_rows(&[
        ("family", show.family.unwrap_or_else(|| "unknown".into())),
        ("parameters", show.parameters_b.map_or("unknown".into(), |b| format!("{b:.1} B"))),
        ("trained window", number(show.trained_window)),
        ("capabilities", show.capabilities.map_or("unknown".into(), |c| c.join(", "))),
        ("chat template", if show.chat_template { "yes".into() } else { "no".into() }),
        ("runs", if show.remote { "in the cloud".into() } else { "locally".into() }),
    ])
}

fn print_rows(rows: &[(&str, String)]) -> Result<Exit> {
    let text: String = rows.iter().map(|(k, v)| format!("{k:15} {}\n", sanitize::line(v))).collect();
    console::print(text)?;
    Ok(Exit::Success)
}

/// A count of parameters as `1.5 B`.
fn billions(parameters: u64) -> String {
    format!("{:.1} B", parameters as f64 / 1e9)
}
