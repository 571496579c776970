//! Resolves the locations of model files from the environment: the agent's cache, Ollama's stores,
//! the Hugging Face hub, and the package index that pip uses.

use std::fs;
use std::path::{Path, PathBuf};

use model_files::{OllamaStore, Sources, Store};
use models::Access;
use models::retry::Policy;

use crate::exit::{Failure, Result};
use crate::layers::Environment;

const HUB: &str = "https://huggingface.co";
const INDEX: &str = "https://pypi.org/simple";
/// The folder for the Ollama service's models, as set up by Ollama's Linux installer.
const OLLAMA_SERVICE: &str = "/usr/share/ollama/.ollama/models";
/// Maximum size of pip's configuration files, in bytes. Larger files are ignored.
const MAX_CONFIGURATION: u64 = 1 << 20;

/// Returns the store for pulled models.
///
/// # Errors
/// If neither `XDG_CACHE_HOME` nor `HOME` is set.
pub(crate) fn store(environment: &Environment) -> Result<Store> {
    let cache = environment.cache_dir();
    let cache = cache.ok_or_else(|| Failure::misuse("cannot store models: HOME is not set"))?;
    Ok(Store::new(cache.join("models")))
}

/// Returns Ollama's stores: the one named by `OLLAMA_MODELS` or, if that is not set, those of the
/// user and of the service.
pub(crate) fn ollama_stores(environment: &Environment) -> Vec<OllamaStore> {
    if let Some(folder) = environment.get("OLLAMA_MODELS") {
        return vec![OllamaStore::new(folder)];
    }
    let own = environment.get("HOME").map(|home| Path::new(home).join(".ollama/models"));
    own.into_iter().chain([PathBuf::from(OLLAMA_SERVICE)]).map(OllamaStore::new).collect()
}

/// Returns the sources that models are pulled from.
pub(crate) fn sources(environment: &Environment, access: Access) -> Sources {
    let hub = environment.get("HF_ENDPOINT").unwrap_or(HUB).to_owned();
    let index = environment.get("PIP_INDEX_URL").map(str::to_owned);
    let index = index.or_else(|| pip_files(environment).iter().find_map(|file| index_url(file)));
    let retries = Policy { seed: std::process::id().into(), ..Policy::default() };
    Sources { hub, index: index.unwrap_or_else(|| INDEX.to_owned()), access, retries }
}

/// Returns pip's configuration files, in order of precedence.
fn pip_files(environment: &Environment) -> Vec<PathBuf> {
    let home = environment.get("HOME").map(Path::new);
    let named = environment.get("PIP_CONFIG_FILE").map(PathBuf::from);
    let config = environment.get("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(home?.join(".config")));
    let user = config.map(|config| config.join("pip/pip.conf"));
    let old = home.map(|home| home.join(".pip/pip.conf"));
    named.into_iter().chain(user).chain(old).chain([PathBuf::from("/etc/pip.conf")]).collect()
}

/// Returns the `index-url` in one of pip's configuration files.
fn index_url(file: &Path) -> Option<String> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_CONFIGURATION {
        return None;
    }
    let text = fs::read_to_string(file).ok()?;
    let (mut counts, mut found) = (false, None);
    for line in text.lines() {
        if let Some(section) = line.trim().strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            counts = matches!(section.trim(), "global" | "download" | "install");
        } else if let Some((key, value)) = line.split_once(['=', ':']).filter(|_| counts)
            && key.trim().replace('_', "-").eq_ignore_ascii_case("index-url")
        {
            found = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_pulled_from_the_package_index_that_pip_uses() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let environment = |pairs: &[(&str, &Path)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            Environment::new(pairs.chain([("HOME".into(), home.into())]))
        };
        let index = |pairs: &[(&str, &Path)]| sources(&environment(pairs), Access::default()).index;
        fs::create_dir_all(home.join(".config/pip")).unwrap();
        fs::create_dir_all(home.join(".pip")).unwrap();
        let old = "# comment\n[list]\nindex-url = http://wrong\n[global]\ntimeout = 60\nindex_url: http://old/simple\n";
        fs::write(home.join(".pip/pip.conf"), old).unwrap();
        assert_eq!(index(&[]), "http://old/simple");
        fs::write(home.join(".config/pip/pip.conf"), "[global]\nindex-url = http://new/simple\n").unwrap();
        assert_eq!(index(&[]), "http://new/simple");
        let named = home.join("named.conf");
        fs::write(&named, "[global]\nindex-url=https://u:p@named/simple\n").unwrap();
        assert_eq!(index(&[("PIP_CONFIG_FILE", &named)]), "https://u:p@named/simple");
        assert_eq!(index(&[("PIP_INDEX_URL", Path::new("http://env/simple"))]), "http://env/simple");
        assert_eq!(index(&[("PIP_CONFIG_FILE", Path::new("/dev/null"))]), "http://new/simple");
    }
}
