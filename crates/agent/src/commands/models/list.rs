//! `agent models list`: lists the models in Ollama, the model files on this machine, and the models
//! that can be downloaded.

use model_files::catalog::{self, Model};
use model_files::{Cached, Store, gguf};
use models::choose::Choice;
use models::host;
use models::ollama::{LoadedModel, LocalModel};
use models::openai::{OpenAi, OpenAiOptions, Opened};
use serde_json::{Value, json};

use crate::console;
use crate::exit::{Exit, Result};
use crate::figures::{bytes, thousands};
use crate::layers::Environment;
use crate::model::{self, server};
use crate::model_store;
use crate::sanitize;
use crate::settings::Settings;

/// The context window, in tokens, that memory estimates are based on. The catalog uses the same
/// value.
const WINDOW: u64 = 16_384;
/// The memory, in bytes, that an engine needs in addition to the model and its cache.
const ENGINE: u64 = 400_000_000;

/// A line in the list.
struct Row {
    name: String,
    parameters: Option<String>,
    quantization: Option<String>,
    size: Option<u64>,
    memory: Option<u64>,
    window: Option<u64>,
    note: String,
    /// The object that `--json` prints for this row.
    json: Value,
}

const HEADINGS: [&str; 7] = ["NAME", "PARAMETERS", "QUANTIZATION", "SIZE", "MEMORY", "WINDOW", ""];

pub(super) async fn run(settings: &Settings, environment: &Environment, json: bool) -> Result<Exit> {
    if let Some(names) = of_openai_server(settings).await? {
        for name in names {
            let line = if json {
                json!({"name": name, "where": "server"}).to_string()
            } else {
                sanitize::line(&name).into_owned()
            };
            console::print(line + "\n")?;
        }
        return Ok(Exit::Success);
    }
    let server = server(settings).await?;
    let (models, loaded) = tokio::join!(server.tags(), server.ps());
    let (answer, loaded) = (models, loaded.unwrap_or_default());
    let in_ollama: &[LocalModel] = answer.as_deref().unwrap_or_default();
    let store = model_store::store(environment).ok();
    let cached = store.as_ref().map(Store::list).unwrap_or_default();
    let folder = store.map(|store| store.folder().display().to_string()).unwrap_or_default();
    let mut groups = vec![
        (
            format!("In Ollama at {}:", server.base()),
            in_ollama.iter().map(|m| of_ollama(m, &loaded)).collect(),
        ),
        (format!("In {folder}:"), cached.iter().map(|file| of_file(file, "cached")).collect()),
    ];
    if answer.is_err() {
        for (store, root) in model_store::ollama_stores(environment).iter().map(|store| (store, store.root()))
        {
            let rows = store.list().iter().map(|file| of_file(file, "ollama store")).collect();
            groups.push((format!("In Ollama's {}:", root.display()), rows));
        }
    }
    let missing = |model: &Model| {
        cached.iter().all(|file| file.name != model.name)
            && !in_ollama.iter().any(|m| Some(&m.name) == model.ollama.as_ref())
    };
    let rest = catalog::all().into_iter().filter(missing).map(|model| of_catalog(&model));
    groups.push((String::from("To download with `agent models pull NAME`:"), rest.collect()));
    print(&groups, json)?;
    if let Err(why) = &answer {
        // Do not mention Ollama to users who have not configured it.
        if settings.ollama_host.is_some() || settings.base_url.is_some() {
            console::say(sanitize::text(&format!("Ollama does not answer: {why}")));
        }
    }
    Ok(Exit::Success)
}

/// Returns the models that do not need to be downloaded, in the form that `--model` accepts.
///
/// # Errors
/// If an OpenAI-compatible server does not respond, or the settings are invalid.
pub(crate) async fn names(settings: &Settings, environment: &Environment) -> Result<Vec<String>> {
    if let Some(names) = of_openai_server(settings).await? {
        return Ok(names.into_iter().map(|name| Choice::OpenAi(Some(name)).to_string()).collect());
    }
    let in_ollama = server(settings).await?.tags().await.unwrap_or_default();
    let files = model_store::store(environment).ok().as_ref().map(Store::list).unwrap_or_default();
    let deepseek = settings.deepseek_api_key.iter().map(|_| Choice::DeepSeek(None));
    let in_ollama = in_ollama.into_iter().map(|model| Choice::Ollama(model.name));
    let files = files.into_iter().map(|file| Choice::Embedded(file.name));
    Ok(deepseek.chain(in_ollama).chain(files).map(|choice| choice.to_string()).collect())
}

/// Returns the models of the OpenAI-compatible server at `base_url`, if there is one.
async fn of_openai_server(settings: &Settings) -> Result<Option<Vec<String>>> {
    let Some(base) = &settings.base_url else { return Ok(None) };
    let around = model::surroundings(settings).await?;
    let options = OpenAiOptions {
        key: around.own_key.or(around.openai_key),
        access: around.access,
        ..OpenAiOptions::new(&host::openai_base(base))
    };
    match OpenAi::open(options).await? {
        Opened::Model(model) => Ok(Some(model.list().await?)),
        _ => Ok(None),
    }
}

fn of_ollama(model: &LocalModel, loaded: &[LoadedModel]) -> Row {
    let now = loaded.iter().find(|other| other.name == model.name);
    let window = now.and_then(|now| now.context_length);
    let note = [
        Some("in the cloud").filter(|_| model.remote),
        Some("loaded").filter(|_| now.is_some()),
        model.family.as_deref(),
    ];
    Row {
        name: model.name.clone(),
        parameters: model.parameter_size.clone(),
        quantization: model.quantization.clone(),
        size: (!model.remote).then_some(model.size),
        memory: now.map(|now| now.size).filter(|size| *size > 0),
        window,
        note: note.into_iter().flatten().collect::<Vec<_>>().join(", "),
        json: json!({
            "where": "ollama", "name": model.name, "size": model.size, "family": model.family,
            "parameter_size": model.parameter_size, "quantization": model.quantization,
            "remote": model.remote, "modified_at": model.modified_at, "loaded": now.is_some(), "window": window,
        }),
    }
}

/// Describes a file on this machine, with numbers from its header.
fn of_file(file: &Cached, place: &str) -> Row {
    let known = catalog::find(&file.name);
    let good_for = known.map(|model| model.good_for);
    let header = match gguf::read(&file.path) {
        Ok(header) => header,
        Err(why) => {
            let why = match why {
                gguf::Error::Invalid { fault, .. } => fault.to_string(),
                other => other.to_string(),
            };
            return Row {
                name: file.name.clone(),
                parameters: None,
                quantization: None,
                size: Some(file.bytes),
                memory: None,
                window: None,
                json: json!({
                    "where": place, "name": file.name, "path": file.path, "size": file.bytes, "error": why,
                }),
                note: format!("not usable: {why}"),
            };
        }
    };
    let cache = header.kv_bytes_per_token.saturating_mul(header.trained_window.min(WINDOW));
    let memory = header.tensor_bytes.saturating_add(cache).saturating_add(ENGINE);
    let parameters = format!("{:.1}B", header.parameters as f64 / 1e9);
    Row {
        name: file.name.clone(),
        json: json!({
            "where": place, "name": file.name, "path": file.path, "size": file.bytes,
            "family": header.architecture, "parameter_size": parameters,
            "quantization": header.quantization, "memory": memory, "window": header.trained_window,
            "good_for": good_for,
        }),
        parameters: Some(parameters),
        quantization: Some(header.quantization),
        size: Some(file.bytes),
        memory: Some(memory),
        window: Some(header.trained_window),
        note: good_for.unwrap_or(header.architecture),
    }
}

fn of_catalog(model: &Model) -> Row {
    let parameters = format!("{:.1}B", model.parameters);
    Row {
        name: model.name.clone(),
        json: json!({
            "where": "catalog", "name": model.name, "size": model.bytes, "family": model.family,
            "parameter_size": parameters, "quantization": model.quantization, "memory": model.memory,
            "window": model.window, "good_for": model.good_for, "ollama": model.ollama,
        }),
        parameters: Some(parameters),
        quantization: Some(model.quantization.clone()),
        size: Some(model.bytes),
        memory: Some(model.memory),
        window: Some(model.window),
        note: model.good_for.clone(),
    }
}

impl Row {
    fn cells(&self) -> [String; 7] {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| String::from("-"));
        let size = |n: Option<u64>| n.map_or_else(|| String::from("-"), bytes);
        let window = self.window.map_or_else(|| String::from("-"), thousands);
        [
            self.name.clone(),
            text(&self.parameters),
            text(&self.quantization),
            size(self.size),
            size(self.memory),
            window,
            self.note.clone(),
        ]
    }
}

fn print(groups: &[(String, Vec<Row>)], json: bool) -> Result<()> {
    let rows = || groups.iter().flat_map(|(_, rows)| rows);
    if json {
        return Ok(console::print(rows().map(|row| row.json.to_string() + "\n").collect::<String>())?);
    }
    let mut widths = HEADINGS.map(str::len);
    for row in rows() {
        for (width, cell) in widths.iter_mut().zip(row.cells()) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: &[String; 7]| {
        let padded = cells.iter().zip(widths).enumerate().map(|(n, (cell, width))| match n {
            // Numbers are right-aligned.
            3..=5 => format!("{cell:>width$}  "),
            _ => format!("{cell:width$}  "),
        });
        format!("  {}\n", sanitize::line(&padded.collect::<String>()).trim_end())
    };
    let mut text = line(&HEADINGS.map(String::from));
    for (title, rows) in groups.iter().filter(|(_, rows)| !rows.is_empty()) {
        text += &format!("{}\n", sanitize::line(title));
        text.extend(rows.iter().map(|row| line(&row.cells())));
    }
    Ok(console::print(text)?)
}
