//! Ollama's store, which is only read: `manifests/HOST/NAMESPACE/NAME/TAG` names the layers of a
//! model, and `blobs/sha256-…` holds them.
//!
//! A manifest is JSON that anyone may have published, so nothing in it becomes part of a path
//! unchecked. Files are used only if they are regular and have the size that the manifest says.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::{Cached, is_name};

/// The folders of manifests, newest first. The new one holds links to blobs.
const MANIFESTS: [&str; 2] = ["manifests-v2", "manifests"];
/// The registries whose names need no host, newest first.
const REGISTRIES: [&str; 2] = ["ollama.com", "registry.ollama.ai"];
/// The namespace of models without one.
const LIBRARY: &str = "library";
/// The largest manifest, in bytes. Real ones have 1 kB.
const MAX_MANIFEST: u64 = 1 << 20;
/// The most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// The layer with the weights.
const MODEL: &str = "application/vnd.ollama.image.model";
/// Layers that change the weights or add others; the file alone would be another model.
const CHANGES: [&str; 2] = ["application/vnd.ollama.image.adapter", "application/vnd.ollama.image.tensor"];

/// Ollama's folder of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaStore {
    root: PathBuf,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

impl OllamaStore {
    /// The store at `root`, which need not exist: `~/.ollama/models` or `$OLLAMA_MODELS`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the model file of a name such as `qwen2.5-coder:1.5b`, `user/model` or
    /// `hf.co/user/model:Q4_K_M`, if the store has it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let name = name.strip_prefix("https://").or(name.strip_prefix("http://")).unwrap_or(name);
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, tag),
            _ => (name, "latest"),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (hosts, namespace, model) = match parts[..] {
            [model] => (&REGISTRIES[..], LIBRARY, model),
            [namespace, model] => (&REGISTRIES[..], namespace, model),
            [ref host, namespace, model] => (std::slice::from_ref(host), namespace, model),
            _ => return None,
        };
        if !(is_name(namespace) && is_name(model) && is_name(tag) && hosts.iter().all(|host| is_host(host))) {
            return None;
        }
        let folders = MANIFESTS.iter().flat_map(|folder| hosts.iter().map(move |host| (folder, host)));
        let paths = folders
            .map(|(folder, host)| self.root.join(folder).join(host).join(namespace).join(model).join(tag));
        paths.into_iter().find_map(|path| self.model(&path)).map(|(path, _)| path)
    }

    /// Lists the models whose file is there, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Cached> {
        let mut models = Vec::<Cached>::new();
        for folder in MANIFESTS {
            let mut manifests = vec![(self.root.join(folder), Vec::new())];
            for _level in ["host", "namespace", "name", "tag"] {
                manifests = manifests.into_iter().flat_map(|(folder, names)| entries(&folder, &names)).collect();
                manifests.truncate(MAX_ENTRIES);
            }
            for (manifest, names) in manifests {
                let Some((path, bytes)) = self.model(&manifest) else { continue };
                let name = short(&names);
                if models.iter().all(|model| model.name != name) {
                    models.push(Cached { name, path, bytes });
                }
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// Returns the model file that a manifest names, and its size.
    fn model(&self, manifest: &Path) -> Option<(PathBuf, u64)> {
        // Reading a pipe would wait for its writer.
        let metadata = manifest.metadata().ok()?;
        if !metadata.is_file() || metadata.len() > MAX_MANIFEST {
            return None;
        }
        let manifest: Manifest = serde_json::from_slice(&fs::read(manifest).ok()?).ok()?;
        if manifest.layers.iter().any(|layer| CHANGES.contains(&layer.media_type.as_str())) {
            return None;
        }
        let mut models = manifest.layers.into_iter().filter(|layer| layer.media_type == MODEL);
        let (Some(layer), None) = (models.next(), models.next()) else { return None };
        let digest = layer.digest.strip_prefix("sha256").and_then(|rest| rest.strip_prefix([':', '-']))?;
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let path = self.root.join("blobs").join(format!("sha256-{digest}"));
        let metadata = path.metadata().ok()?;
        (metadata.is_file() && metadata.len() == layer.size).then_some((path, layer.size))
    }
}

/// The entries of a folder, with the names that lead to them.
fn entries(folder: &Path, names: &[String]) -> Vec<(PathBuf, Vec<String>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| is_host(name))?;
            Some((entry.path(), [names, &[name]].concat()))
        })
        .collect()
}

/// A name as Ollama shows it: without the default registry and namespace.
fn short(names: &[String]) -> String {
    let [host, namespace, name, tag] = names else { return names.join("/") };
    match (REGISTRIES.contains(&host.as_str()), namespace.as_str()) {
        (true, LIBRARY) => format!("{name}:{tag}"),
        (true, _) => format!("{namespace}/{name}:{tag}"),
        _ => format!("{host}/{namespace}/{name}:{tag}"),
    }
}

/// Whether a name is a host, possibly with a port.
fn is_host(name: &str) -> bool {
    match name.split_once(':') {
        Some((host, port)) => is_name(host) && port.bytes().all(|b| b.is_ascii_digit()),
        None => is_name(name),
    }
}
