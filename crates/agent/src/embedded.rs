//! Models that run in this process: finds a model file on this machine and loads it with the
//! engine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use engine::{Embedded, Options};
use model_files::{Cached, OllamaStore, Store};
use models::choose::{Chosen, InProcess, Surroundings};
use models::profile::Profiles;
use models::{Error, Think};

use crate::console;
use crate::layers::Environment;
use crate::model_store;

/// If this is the first argument, this binary does a trial load of a model file and nothing else. A
/// corrupt file can crash the process, so the trial runs in a separate process.
pub(crate) const TRIAL: &str = "--load-model-on-trial";

/// The model files on this machine.
pub(crate) struct Files {
    store: Store,
    ollama: Vec<OllamaStore>,
    cache: Option<PathBuf>,
    gpu_layers: u32,
}

impl Files {
    /// Locates the model files in the user's folders. Returns `None` if the user has no home
    /// folder.
    pub(crate) fn new(environment: &Environment, gpu_layers: u32) -> Option<Self> {
        Some(Self {
            store: model_store::store(environment).ok()?,
            ollama: model_store::ollama_stores(environment),
            cache: environment.cache_dir(),
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

/// Returns the command that starts this program with [`TRIAL`]. `/proc/self/exe` refers to this
/// version of the program, even if the file at its path has been replaced.
fn trial_command() -> Vec<OsString> {
    vec!["/proc/self/exe".into(), TRIAL.into()]
}

/// Does a trial load of a model file. This is all that the process does.
pub(crate) fn trial(file: Option<OsString>) -> ExitCode {
    let options = Options {
        file: file.unwrap_or_default().into(),
        name: String::new(),
        window: Some(512),
        gpu_layers: 0,
        think: Think::Auto,
        profiles: Profiles::default(),
        cache: None,
        trial: Vec::new(),
    };
    match engine::load_for_trial(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            console::say(why);
            ExitCode::FAILURE
        }
    }
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
            profiles: around.profiles.clone(),
            cache: self.cache.clone(),
            trial: trial_command(),
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
