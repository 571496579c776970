//! Manages the models on an Ollama server, and reads their metadata and the server's version.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::pull::{self, PullStream};
use crate::failure::Failure;
use crate::http::{Http, Secret, Timeouts, Waits};
use crate::size::billions;
use crate::{Access, Error, host};

/// The time limit for a metadata request. It is long because the server reads the metadata from
/// disk, possibly while it evaluates a prompt.
const METADATA: Duration = Duration::from_secs(30);

/// An Ollama server.
#[derive(Clone)]
pub struct Server {
    pub(super) http: Http,
}

/// A model on the server's disk, from `/api/tags`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalModel {
    /// The name, always with a tag.
    pub name: String,
    /// Size on disk, in bytes.
    pub size: u64,
    /// The model family, such as `qwen2`.
    pub family: Option<String>,
    /// The number of parameters as the server reports it, such as `7.6B`.
    pub parameter_size: Option<String>,
    /// The quantization as the server reports it, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// Whether it runs in the cloud instead of on the server.
    pub remote: bool,
    /// When the model was last changed, in RFC 3339 format.
    pub modified_at: Option<String>,
}

/// A model in memory, from `/api/ps`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadedModel {
    /// The name, always with a tag.
    pub name: String,
    /// Total memory used, in bytes.
    pub size: u64,
    /// GPU memory used, in bytes.
    pub size_vram: u64,
    /// The context window that it was loaded with, in tokens; `None` from servers older than
    /// 0.10.0.
    pub context_length: Option<u64>,
    /// The digest of its contents. A different digest means a different model under the same name.
    pub digest: Option<String>,
    /// When the model will be unloaded, in RFC 3339 format.
    pub expires_at: Option<String>,
}

/// A model's metadata, from `/api/show` (docs/model-apis.md#ollama-models).
#[derive(Debug, Clone, PartialEq)]
pub struct Show {
    /// `general.architecture` or, if that is missing, the family in `details`.
    pub family: Option<String>,
    /// Number of parameters, in billions.
    pub parameters_b: Option<f32>,
    /// The window that it was trained for, in tokens.
    pub trained_window: Option<u64>,
    /// `num_ctx` in the model's own parameters.
    pub own_window: Option<u64>,
    /// Its capabilities; `None` from servers older than 0.6.4.
    pub capabilities: Option<Vec<String>>,
    /// Whether it has a chat template.
    pub chat_template: bool,
    /// Whether it runs in the cloud.
    pub remote: bool,
    /// The whole response.
    pub raw: Value,
}

impl Show {
    fn new(raw: Value) -> Self {
        let info = &raw["model_info"];
        let architecture = text(&info["general.architecture"]);
        let trained =
            architecture.as_ref().map(|name| &info[format!("{name}.context_length")]).and_then(whole);
        let any_length = || {
            let lengths = info.as_object().into_iter().flatten();
            lengths.filter(|(key, _)| key.ends_with(".context_length")).find_map(|(_, value)| whole(value))
        };
        let count = info["general.parameter_count"].as_f64().map(|count| (count / 1e9) as f32);
        let template = raw["template"].as_str().unwrap_or_default();
        Self {
            trained_window: trained.or_else(any_length),
            family: architecture.or_else(|| text(&raw["details"]["family"])),
            parameters_b: count.or_else(|| billions(raw["details"]["parameter_size"].as_str()?)),
            own_window: raw["parameters"].as_str().and_then(own_window),
            capabilities: raw["capabilities"].as_array().map(|list| list.iter().filter_map(text).collect()),
            chat_template: text(&raw["renderer"]).is_some() || is_chat_template(template),
            remote: text(&raw["remote_host"]).is_some(),
            raw,
        }
    }

    /// Returns whether the model has a capability, or `None` if the server does not report
    /// capabilities.
    #[must_use]
    pub fn can(&self, capability: &str) -> Option<bool> {
        Some(self.capabilities.as_ref()?.iter().any(|has| has == capability))
    }
}

/// Returns the string in a JSON value, or `None` if it is empty or not a string.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Returns whether a template distinguishes roles. `{{ .Prompt }}` does not: it is the template of
/// models that were imported without a chat template.
fn is_chat_template(template: &str) -> bool {
    let bare: String = template.split_whitespace().collect();
    !bare.is_empty() && bare != "{{.Prompt}}"
}

/// Reads a whole number, which may be encoded as a float.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_f64().filter(|number| *number >= 1.0).map(|number| number as u64))
}

fn own_window(parameters: &str) -> Option<u64> {
    parameters.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("num_ctx")).then(|| words.next()?.trim_matches('"').parse().ok())?
    })
}

/// Returns a model's name with its tag, in the form that `/api/tags` and `/api/ps` use.
#[must_use]
pub fn full_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// Returns whether a base URL points to Ollama's cloud.
pub(crate) fn is_cloud_host(base: &str) -> bool {
    let host = host::host_of(base);
    host == "ollama.com" || host.ends_with(".ollama.com")
}

/// Returns whether a name, such as `m:cloud`, `m:671b-cloud` or `m-cloud`, refers to a model in
/// Ollama's cloud (docs/model-apis.md#ollama-cloud).
pub(crate) fn is_cloud_name(name: &str) -> bool {
    name.ends_with(":cloud") || name.ends_with("-cloud")
}

/// Returns the name that Ollama's cloud itself uses for a cloud model, such as `m:671b` for
/// `m:671b-cloud`.
pub(crate) fn without_cloud(name: &str) -> &str {
    name.strip_suffix(":cloud").or_else(|| name.strip_suffix("-cloud")).unwrap_or(name)
}

impl Server {
    /// Creates a client for the server at `base` (see [`host::ollama_base`]). Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Settings`] for an invalid base or key.
    pub fn new(base: &str, key: Option<&Secret>, access: &Access) -> Result<Self, Error> {
        // A key is never sent unencrypted to another machine (docs/model-apis.md#ollama-cloud).
        let key = key.filter(|_| base.starts_with("https:") || host::is_loopback(base));
        Ok(Self { http: Http::new(base, key, access)? })
    }

    /// Returns whether the server is Ollama's cloud itself.
    #[must_use]
    pub fn is_cloud(&self) -> bool {
        is_cloud_host(self.base())
    }

    /// Treats the server as a hosted service from now on, even if its address points to a local
    /// daemon.
    pub(super) fn hosted(&mut self, access: &Access) {
        self.http.timeouts = access.over(Timeouts::remote());
        self.http.patient = false;
    }

    /// Returns the account that the daemon is signed in to, or `None` if the server does not report
    /// one.
    ///
    /// # Errors
    /// [`Error::Settings`], with the sign-in URL, if the daemon is not signed in.
    pub async fn account(&self) -> Result<Option<String>, Error> {
        match self.http.json(Method::POST, &self.http.url("/api/me"), Some(b"{}".to_vec()), METADATA).await {
            Ok(me) => Ok(["name", "email"].iter().find_map(|key| me[*key].as_str()).map(str::to_owned)),
            Err(failure) if failure.status() == Some(401) => Err(failure.into()),
            Err(_) => Ok(None),
        }
    }

    /// Returns the server's base URL without credentials, which is safe to show.
    #[must_use]
    pub fn base(&self) -> &str {
        self.http.base()
    }

    async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.http.json(Method::GET, &self.http.url(path), None, METADATA).await
    }

    /// Returns the version as the server reports it, such as `0.12.3` or `0.33.0-rc2`. Development
    /// builds report `0.0.0`.
    ///
    /// # Errors
    /// If there is no connection, or if the server is not an Ollama server.
    pub async fn version(&self) -> Result<String, Error> {
        let value = self.get("/api/version").await?;
        let version = value["version"].as_str().map(str::to_owned);
        version.ok_or_else(|| Error::Protocol(format!("{} is not an Ollama server", self.base())))
    }

    /// Returns the models on the server's disk.
    ///
    /// # Errors
    /// If there is no connection, or if the server fails.
    pub async fn tags(&self) -> Result<Vec<LocalModel>, Error> {
        let value = self.get("/api/tags").await?;
        let model = |value: &Value| {
            Some(LocalModel {
                name: text(&value["name"]).or_else(|| text(&value["model"]))?,
                size: value["size"].as_u64().unwrap_or(0),
                family: text(&value["details"]["family"]),
                parameter_size: text(&value["details"]["parameter_size"]),
                quantization: text(&value["details"]["quantization_level"]),
                remote: text(&value["remote_host"]).is_some(),
                modified_at: text(&value["modified_at"]),
            })
        };
        Ok(value["models"].as_array().into_iter().flatten().filter_map(model).collect())
    }

    /// Returns the models in the server's memory.
    ///
    /// # Errors
    /// If there is no connection, or if the server fails.
    pub async fn ps(&self) -> Result<Vec<LoadedModel>, Error> {
        self.loaded(METADATA).await
    }

    pub(super) async fn loaded(&self, limit: Duration) -> Result<Vec<LoadedModel>, Error> {
        let value = self.http.json(Method::GET, &self.http.url("/api/ps"), None, limit).await?;
        let model = |value: &Value| {
            Some(LoadedModel {
                name: text(&value["name"]).or_else(|| text(&value["model"]))?,
                size: value["size"].as_u64().unwrap_or(0),
                size_vram: value["size_vram"].as_u64().unwrap_or(0),
                context_length: value["context_length"].as_u64().filter(|length| *length > 0),
                digest: text(&value["digest"]),
                expires_at: text(&value["expires_at"]),
            })
        };
        Ok(value["models"].as_array().into_iter().flatten().filter_map(model).collect())
    }

    /// Fetches a model's metadata.
    ///
    /// # Errors
    /// [`Error::MissingModel`], with the available models, if the server does not have it.
    pub async fn show(&self, model: &str) -> Result<Show, Error> {
        let body = json!({ "model": model, "verbose": false }).to_string().into_bytes();
        self.about(model, Method::POST, "/api/show", body).await.map(Show::new)
    }

    /// Sends a request about one model.
    async fn about(&self, model: &str, method: Method, path: &str, body: Vec<u8>) -> Result<Value, Error> {
        match self.http.json(method, &self.http.url(path), Some(body), METADATA).await {
            Err(failure) if failure.status() == Some(404) => Err(self.missing(model).await),
            answer => Ok(answer?),
        }
    }

    /// Creates the error for a missing model, including a list of the available ones.
    pub(super) async fn missing(&self, model: &str) -> Error {
        let available: Vec<String> =
            self.tags().await.unwrap_or_default().into_iter().map(|model| model.name).collect();
        let list = match (available.is_empty(), self.is_cloud()) {
            (true, true) => String::from("its list of models cannot be read"),
            (true, false) => String::from("it has no models"),
            (false, _) => format!("it has {}", available.join(", ")),
        };
        let message = format!("Ollama at {} does not have the model {model}; {list}", self.base());
        Error::MissingModel { message, available }
    }

    /// Removes a model from the server's disk.
    ///
    /// # Errors
    /// [`Error::MissingModel`] if the server does not have it.
    pub async fn delete(&self, model: &str) -> Result<(), Error> {
        let body = json!({ "model": model }).to_string().into_bytes();
        self.about(model, Method::DELETE, "/api/delete", body).await.map(|_| ())
    }

    /// Downloads a model. Dropping the stream stops the download; the server keeps finished parts
    /// and resumes from them next time.
    ///
    /// # Errors
    /// If there is no connection, or if the server refuses before the download starts. Most
    /// failures arrive in the stream (docs/model-apis.md#ollama-pull).
    pub async fn pull(&self, model: &str) -> Result<PullStream, Error> {
        let request = json!({ "model": model, "stream": true }).to_string().into_bytes();
        let (body, waits) = self.http.post("/api/pull", request).await?;
        Ok(pull::progress(body, Waits { patient: false, ..waits }, model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_name_has_a_tag() {
        assert_eq!(full_name("x"), "x:latest");
        assert_eq!(full_name("x:7b"), "x:7b");
        assert_eq!(full_name("host:5000/team/x"), "host:5000/team/x:latest");
    }

    #[test]
    fn metadata_is_read_leniently() {
        let show = Show::new(json!({
            "model_info": {"general.architecture": "qwen2", "qwen2.context_length": 32768.0, "general.parameter_count": 1.54e9},
            "parameters": "stop    \"<|im_end|>\"\nnum_ctx     49152\n",
            "template": "{{ .System }} {{ .Prompt }}", "capabilities": ["completion", "tools"], "details": {"family": "x"},
        }));
        assert_eq!(show.trained_window, Some(32768));
        assert_eq!(show.own_window, Some(49152));
        assert_eq!(show.family.as_deref(), Some("qwen2"));
        assert_eq!(show.parameters_b, Some(1.54));
        assert_eq!((show.can("tools"), show.can("thinking")), (Some(true), Some(false)));
        assert!(show.chat_template && !show.remote);

        let old = Show::new(json!({
            "details": {"family": "llama", "parameter_size": "6.7B"}, "model_info": {"odd.context_length": 16384},
            "template": " {{ .Prompt }}\n",
        }));
        assert_eq!(old.trained_window, Some(16384));
        assert_eq!(old.parameters_b, Some(6.7));
        assert_eq!(old.can("tools"), None);
        assert!(!old.chat_template);
        assert_eq!(Show::new(Value::Null).trained_window, None);
    }
}
