//! Finds models in Ollama's store without ever modifying it. `manifests/HOST/NAMESPACE/NAME/TAG`
//! lists the layers of a model, and `blobs/sha256-…` contains them.
//!
//! Ollama 0.40 and later write `manifests-v2` instead. There, tags are links to blobs, and a
//! manifest may list one manifest per engine.
//!
//! Manifests can be published by anyone, so everything in them is checked before it becomes part of
//! a path. A file is used only if it is a regular file and its size matches the manifest.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::{Cached, is_name};

/// The manifest folders, newest first.
const MANIFESTS: [&str; 2] = [V2, "manifests"];
const V2: &str = "manifests-v2";
/// How `manifests-v2` encodes the colon before a host's port.
const PORT_V2: &str = "%3A";
/// The registries whose models are referred to without a host, newest first.
const REGISTRIES: [&str; 2] = ["ollama.com", "registry.ollama.ai"];
/// The namespace of models that are referred to without one.
const LIBRARY: &str = "library";
/// The maximum size of a manifest, in bytes. Real manifests are about 1 kB.
const MAX_MANIFEST: u64 = 1 << 20;
/// The maximum number of entries to read from a folder.
const MAX_ENTRIES: usize = 10_000;
/// The media type of the layer that contains the weights.
const MODEL: &str = "application/vnd.ollama.image.model";
/// The media types of layers that change or extend the weights. Without such layers, the weights
/// would be a different model.
const CHANGES: [&str; 2] = ["application/vnd.ollama.image.adapter", "application/vnd.ollama.image.tensor"];

/// The engines whose builds can be used, in order of preference: llama.cpp and Ollama's own engine.
/// This matters only if a manifest lists several builds of a model. For most architectures,
/// llama.cpp can also open builds for Ollama's engine.
const ENGINES: [&str; 2] = ["llamacpp", "ggml"];

/// Ollama's model folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaStore {
    root: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Manifest {
    layers: Vec<Layer>,
    manifests: Vec<Build>,
}

#[derive(Deserialize)]
struct Build {
    digest: String,
    #[serde(default)]
    runner: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

impl OllamaStore {
    /// Creates a store at `root` (`~/.ollama/models` or `$OLLAMA_MODELS`), which need not exist.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the model file for a name such as `qwen2.5-coder:1.5b`, `user/model` or
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
        let places = MANIFESTS.iter().flat_map(|folder| hosts.iter().map(move |host| (folder, host)));
        let mut paths = places.map(|(folder, host)| {
            let host = if *folder == V2 { host.replace(':', PORT_V2) } else { (*host).to_owned() };
            self.root.join(folder).join(host).join(namespace).join(model).join(tag)
        });
        paths.find_map(|path| self.model(&path)).map(|(path, _)| path)
    }

    /// Lists the models whose file exists, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<Cached> {
        let mut models = Vec::<Cached>::new();
        for folder in MANIFESTS {
            let mut manifests = vec![(self.root.join(folder), Vec::new())];
            for _level in ["host", "namespace", "name", "tag"] {
                manifests =
                    manifests.into_iter().flat_map(|(folder, names)| entries(&folder, &names)).collect();
                manifests.truncate(MAX_ENTRIES);
            }
            for (manifest, names) in manifests {
                let Some((path, bytes)) = self.model(&manifest) else { continue };
                let name = short(&names);
                // This is a copy that Ollama makes for its older versions. The model is also listed
                // under its own name.
                if name.starts_with("llamacpp:") {
                    continue;
                }
                if models.iter().all(|model| model.name != name) {
                    models.push(Cached { name, path, bytes });
                }
            }
        }
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// Returns the model file that a manifest refers to and the size of the file.
    fn model(&self, manifest: &Path) -> Option<(PathBuf, u64)> {
        let mut manifest = read(manifest)?;
        if !manifest.manifests.is_empty() {
            let builds = &manifest.manifests;
            let mut wanted = ENGINES.iter().filter_map(|engine| builds.iter().find(|b| b.runner == *engine));
            manifest = read(&self.blob(&wanted.next()?.digest)?)?;
        }
        if manifest.layers.iter().any(|layer| CHANGES.contains(&layer.media_type.as_str())) {
            return None;
        }
        let mut models = manifest.layers.into_iter().filter(|layer| layer.media_type == MODEL);
        let (Some(layer), None) = (models.next(), models.next()) else { return None };
        let path = self.blob(&layer.digest)?;
        let metadata = path.metadata().ok()?;
        (metadata.is_file() && metadata.len() == layer.size).then_some((path, layer.size))
    }

    /// Returns the path of a blob, or `None` if the digest is invalid.
    fn blob(&self, digest: &str) -> Option<PathBuf> {
        let digest = digest.strip_prefix("sha256").and_then(|rest| rest.strip_prefix([':', '-']))?;
        let hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| self.root.join("blobs").join(format!("sha256-{digest}")))
    }
}

fn read(manifest: &Path) -> Option<Manifest> {
    // Opening a pipe would block until it has a writer.
    let metadata = manifest.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_MANIFEST {
        return None;
    }
    serde_json::from_slice(&fs::read(manifest).ok()?).ok()
}

/// Returns the path of each entry in a folder, along with `names` plus the entry's name.
fn entries(folder: &Path, names: &[String]) -> Vec<(PathBuf, Vec<String>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_ENTRIES);
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?.replace(PORT_V2, ":");
            if !is_host(&name) {
                return None;
            }
            Some((entry.path(), [names, &[name]].concat()))
        })
        .collect()
}

/// Formats a name like Ollama does, without the default registry and namespace.
fn short(names: &[String]) -> String {
    let [host, namespace, name, tag] = names else { return names.join("/") };
    match (REGISTRIES.contains(&host.as_str()), namespace.as_str()) {
        (true, LIBRARY) => format!("{name}:{tag}"),
        (true, _) => format!("{namespace}/{name}:{tag}"),
        _ => format!("{host}/{namespace}/{name}:{tag}"),
    }
}

/// Returns whether a name is a host, possibly with a port.
fn is_host(name: &str) -> bool {
    match name.split_once(':') {
        Some((host, port)) => is_name(host) && port.bytes().all(|b| b.is_ascii_digit()),
        None => is_name(name),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    const DIGEST: &str = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046";
    const OTHER: &str = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32";

    struct Fixture {
        folder: TempDir,
        store: OllamaStore,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = OllamaStore::new(folder.path().join("models"));
            let fixture = Self { folder, store };
            fixture.write(&format!("blobs/sha256-{DIGEST}"), "weights");
            fixture
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.store.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn blob(&self, digest: &str) -> Option<PathBuf> {
            Some(self.store.root.join(format!("blobs/sha256-{digest}")))
        }
    }

    fn manifest(digest: &str, size: u64) -> String {
        let layer = |kind: &str, digest: &str, size: u64| json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": digest, "size": size});
        let layers = [
            layer("template", &format!("sha256:{OTHER}"), 3),
            layer("model", digest, size),
            layer("params", &format!("sha256:{OTHER}"), 3),
        ];
        json!({"schemaVersion": 2, "layers": layers}).to_string()
    }

    fn ok() -> String {
        manifest(&format!("sha256:{DIGEST}"), 7)
    }

    #[test]
    fn models_are_found_by_the_names_that_ollama_uses() {
        let f = Fixture::new();
        for path in [
            "registry.ollama.ai/library/qwen2.5-coder/1.5b",
            "registry.ollama.ai/library/llama3/latest",
            "registry.ollama.ai/someone/model/q4",
            "hf.co/bartowski/Model-GGUF/Q4_K_M",
            "gpu.example:5000/a/b/c",
        ] {
            f.write(&format!("manifests/{path}"), &ok());
        }
        for name in [
            "qwen2.5-coder:1.5b",
            "llama3",
            "llama3:latest",
            "library/llama3",
            "registry.ollama.ai/library/llama3:latest",
            "someone/model:q4",
            "hf.co/bartowski/Model-GGUF:Q4_K_M",
            "gpu.example:5000/a/b:c",
        ] {
            assert_eq!(f.store.find(name), f.blob(DIGEST), "{name}");
        }
        assert_eq!(f.store.find("llama3:8b"), None);
        let names: Vec<_> = f.store.list().into_iter().map(|model| model.name).collect();
        assert_eq!(
            names,
            [
                "gpu.example:5000/a/b:c",
                "hf.co/bartowski/Model-GGUF:Q4_K_M",
                "llama3:latest",
                "qwen2.5-coder:1.5b",
                "someone/model:q4"
            ]
        );
        assert_eq!(OllamaStore::new("/nonexistent").list(), []);
    }

    #[test]
    fn models_in_the_store_of_ollama_0_40_are_found() {
        let f = Fixture::new();
        f.write(&format!("blobs/sha256-{OTHER}"), &ok());
        let lists = "0".repeat(64);
        let builds = json!({"manifests": [
            {"digest": "sha256:ff", "runner": "mlx"},
            {"digest": format!("sha256:{OTHER}"), "runner": "llamacpp"},
        ]});
        f.write(&format!("blobs/sha256-{lists}"), &builds.to_string());
        for (tag, blob) in [("1b", OTHER), ("3b", lists.as_str())] {
            let folder = f.store.root.join("manifests-v2/ollama.com/library/llama3.2");
            fs::create_dir_all(&folder).unwrap();
            symlink(format!("../../../../blobs/sha256-{blob}"), folder.join(tag)).unwrap();
        }
        f.write("manifests-v2/gpu%3A5000/a/b/c", &ok());
        f.write("manifests/registry.ollama.ai/library/llama3.2/1b", "{}");
        f.write("manifests/registry.ollama.ai/library/llamacpp/0123", &ok());
        for name in ["llama3.2:1b", "llama3.2:3b", "gpu:5000/a/b:c"] {
            assert_eq!(f.store.find(name), f.blob(DIGEST), "{name}");
        }
        let names: Vec<_> = f.store.list().into_iter().map(|model| model.name).collect();
        assert_eq!(names, ["gpu:5000/a/b:c", "llama3.2:1b", "llama3.2:3b"]);
    }

    #[test]
    fn no_file_is_found_through_a_hostile_manifest() {
        let f = Fixture::new();
        fs::write(f.folder.path().join("secret"), "weights").unwrap();
        let adapter = ok().replace("image.params", "image.adapter");
        let huge = format!("{}{}", ok(), " ".repeat(2 << 20));
        let cases = [
            ("traversal", manifest("sha256:../../secret", 7)),
            ("absolute", manifest("/etc/passwd", 7)),
            ("padded", manifest(&format!("sha256:{}", "../".repeat(21) + "s"), 7)),
            ("wrong-size", manifest(&format!("sha256:{DIGEST}"), 8)),
            ("not-there", manifest(&format!("sha256:{OTHER}"), 7)),
            ("adapter", adapter),
            ("huge", huge),
            ("text", String::from("not json")),
            ("deep", "[".repeat(100_000)),
            ("no-layers", String::from("{}")),
            ("itself", json!({"manifests": [{"digest": "sha256:x", "runner": "ggml"}]}).to_string()),
        ];
        for (tag, text) in &cases {
            f.write(&format!("manifests/registry.ollama.ai/library/m/{tag}"), text);
        }
        let folder = f.store.root.join("manifests/registry.ollama.ai/library/m");
        symlink("/dev/zero", folder.join("endless")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        for (tag, _) in cases.iter().chain(&[("endless", String::new()), ("loop", String::new())]) {
            assert_eq!(f.store.find(&format!("m:{tag}")), None, "{tag}");
        }
        assert_eq!((f.store.find("m:pipe"), f.store.find("m:folder")), (None, None));
        assert_eq!(f.store.list(), []);
        for name in ["../m", "m:../x", "a/../b:c", "..:x", "a/b/c/d", "", ":", "m:"] {
            assert_eq!(f.store.find(name), None, "{name}");
        }
    }
}
