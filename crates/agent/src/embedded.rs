//! Models that run in this process: finds a model file on this machine and loads it with the
//! engine.

use std::path::{Path, PathBuf};

use engine::{Embedded, Options};
use model_files::{Cached, OllamaStore, Store};
use models::Error;
use models::choose::{Chosen, InProcess, Surroundings};

use crate::layers::Environment;
use crate::model_store;

/// The subfolder of the cache folder for evaluated prefixes.
const SAVED: &str = "prefixes";

/// The model files on this machine.
pub(crate) struct Files {
    store: Store,
    ollama: Vec<OllamaStore>,
    saved: Option<PathBuf>,
    gpu_layers: u32,
}

impl Files {
    /// The model files in the user's folders; `None` if the user has no home folder.
    pub(crate) fn new(environment: &Environment, gpu_layers: u32) -> Option<Self> {
        Some(Self {
            store: model_store::store(environment).ok()?,
            ollama: model_store::ollama_stores(environment),
            saved: environment.cache_dir().map(|cache| cache.join(SAVED)),
            gpu_layers,
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        if is_file_name(name) {
            return std::path::absolute(name).ok().filter(|file| file.is_file());
        }
        self.store.find(name).or_else(|| self.ollama.iter().find_map(|store| store.find(name)))
    }

    fn all(&self) -> Vec<Cached> {
        let mut all = self.store.list();
        all.extend(self.ollama.iter().flat_map(OllamaStore::list));
        all
    }
}

fn is_file_name(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "gguf")
}

#[async_trait::async_trait]
impl InProcess for Files {
    fn preferred(&self) -> Option<String> {
        let free = engine::free_memory().unwrap_or(u64::MAX);
        let usable =
            self.all().into_iter().filter(|model| model.bytes < free && !model.name.contains("embed"));
        usable.max_by_key(|model| (model.name.contains("code"), model.bytes)).map(|model| model.name)
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    async fn open(&self, name: &str, around: &Surroundings) -> Result<Chosen, Error> {
        let Some(file) = self.find(name) else {
            let message = format!("there is no model file {name} on this machine");
            let available = self.all().into_iter().map(|model| model.name).collect();
            return Err(Error::MissingModel { message, available });
        };
        let known = if is_file_name(name) { file.file_stem().and_then(|stem| stem.to_str()) } else { None };
        let options = Options {
            name: known.unwrap_or(name).to_owned(),
            window: around.window,
            gpu_layers: self.gpu_layers,
            think: around.think,
            saved: self.saved.clone(),
            file: file.clone(),
        };
        let model = Embedded::open(options).await?;
        Ok(Chosen {
            why: file.display().to_string(),
            warnings: model.warnings().to_vec(),
            model: Box::new(model),
        })
    }
}
