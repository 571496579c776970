//! Identifies servers by the shapes of their answers, and reads what they report about their
//! models.
//!
//! All functions are pure. They take the bodies of the answers as input.

use serde_json::Value;

use super::detect::{Kind, Listed, Server};

/// Returns Ollama's version if an answer looks like Ollama's: an object whose only key is
/// `version`, with a value that starts with three numbers.
pub(super) fn ollama_version(answer: &Value) -> Option<String> {
    let object = answer.as_object().filter(|object| object.len() == 1)?;
    let version = object.get("version")?.as_str()?;
    let numbers = version.trim_start_matches('v').split(['.', '-', '+']).take(3);
    (numbers.filter(|part| part.parse::<u32>().is_ok()).count() == 3).then(|| version.to_owned())
}

/// Returns whether an answer is Ollama's list of local models. KoboldCpp imitates it with a single
/// model named `koboldcpp`.
pub(super) fn is_ollama_tags(tags: &Value) -> bool {
    let whole = |model: &Value| {
        model["name"].as_str().is_some_and(|name| name != "koboldcpp")
            && model["details"].is_object()
            && (model["digest"].is_string() || model["remote_host"].is_string())
    };
    match &tags["models"] {
        Value::Array(models) => models.iter().all(whole),
        Value::Null => {
            tags.as_object().is_some_and(|object| object.len() == 1 && object.contains_key("models"))
        }
        _ => false,
    }
}

/// Returns whether a model list is Ollama's: the `owned_by` of each model is the account in the
/// model's name, or `library` if the name has no account.
pub(super) fn has_ollama_models(list: &Value) -> bool {
    list["data"].as_array().is_some_and(|models| {
        let own = |model: &Value| {
            let (id, owner) =
                (model["id"].as_str().unwrap_or_default(), model["owned_by"].as_str().unwrap_or_default());
            owner == "library" || id.contains(&format!("{owner}/"))
        };
        !models.is_empty() && models.iter().all(own)
    })
}

pub(super) fn owner(models: &Value) -> &str {
    let list = if models.is_array() { models } else { &models["data"] };
    list[0]["owned_by"].as_str().unwrap_or_default()
}

/// Returns the models in a model list. The list is `{"data": […]}` or, with some servers, a bare
/// list or `{"models": […]}`.
pub(super) fn listing(models: &Value) -> Vec<Listed> {
    let lists = [&models["data"], models, &models["models"]];
    lists.into_iter().filter_map(Value::as_array).flatten().filter_map(listed).collect()
}

/// Identifies a server from the answers to the probes. A missing answer is `Null`.
pub(super) fn read(models: &Value, props: &Value, studio: &[Value], vllm: &Value) -> Server {
    let mut listed = listing(models);
    let owner = owner(models);
    let version = vllm["version"].as_str().map(str::to_owned);
    let mut server = Server::default();
    if props["default_generation_settings"].is_object() || owner == "llamacpp" {
        server.kind = Kind::LlamaServer;
        server.version = props["build_info"].as_str().map(str::to_owned);
        (server.window, server.file) = read_props(props);
        server.sees_images = props["modalities"]["vision"].as_bool();
        server.slots = props["total_slots"].as_u64().and_then(|slots| slots.try_into().ok());
        server.templated = props["chat_template"].as_str().is_some_and(|template| !template.is_empty());
        server.thinks =
            props["chat_template"].as_str().is_some_and(|template| template.contains("enable_thinking"));
    } else if owner == "vllm" {
        server.kind = Kind::Vllm;
        server.version = version;
    } else if let Some(known) = studio.iter().map(studio_models).find(|known| !known.is_empty()) {
        server.kind = Kind::LmStudio;
        for model in &mut listed {
            let same = known.iter().find(|known| known.id == model.id);
            model.window = same.and_then(|known| known.window);
            model.sees_images = same.and_then(|known| known.sees_images);
            model.loaded = model.window.is_some();
        }
        if listed.is_empty() {
            listed = known;
        }
    }
    server.models = listed;
    server
}

/// Returns the window and the model's file from llama-server's `/props`.
pub(super) fn read_props(props: &Value) -> (Option<u64>, Option<String>) {
    // A llama-server that routes between several models reports a window of 0.
    let window = props["default_generation_settings"]["n_ctx"].as_u64().filter(|window| *window > 0);
    (window, props["model_path"].as_str().map(str::to_owned))
}

pub(super) fn listed(model: &Value) -> Option<Listed> {
    Some(Listed {
        id: model["id"].as_str()?.to_owned(),
        window: model["max_model_len"].as_u64().or(model["meta"]["n_ctx"].as_u64()),
        parameters_b: model["meta"]["n_params"].as_f64().map(|count| (count / 1e9) as f32),
        // Only a llama-server that routes between several models reports a model's status.
        loaded: model["status"]["value"] == "loaded",
        sees_images: sees_images(model),
    })
}

/// Returns whether a model accepts images, or `None` if its entry in the server's list does not say
/// (docs/model-apis.md#images).
fn sees_images(model: &Value) -> Option<bool> {
    let lists = |list: &Value, word: &str| Some(list.as_array()?.iter().any(|item| item == word));
    // The fields of LM Studio and Mistral, then OpenRouter's, then those of LM Studio's older list.
    model["capabilities"]["vision"]
        .as_bool()
        .or_else(|| lists(&model["architecture"]["input_modalities"], "image"))
        .or_else(|| match model["type"].as_str().filter(|_| model["max_context_length"].is_u64())? {
            "vlm" => Some(true),
            "llm" => Some(false),
            _ => None,
        })
}

/// Returns the models in LM Studio's own list, `/api/v1/models` or the older `/api/v0/models`
/// (docs/model-apis.md#lm-studio). A model that is not loaded has no window.
pub(super) fn studio_models(list: &Value) -> Vec<Listed> {
    let model = |model: &Value| {
        let loaded = &model["loaded_instances"][0]["config"]["context_length"];
        Some(Listed {
            id: model["key"].as_str().or(model["id"].as_str())?.to_owned(),
            window: loaded.as_u64().or(model["loaded_context_length"].as_u64()),
            parameters_b: None,
            loaded: false,
            sees_images: sees_images(model),
        })
    };
    // Gateways also have lists named `models`, but only LM Studio's list includes the loaded
    // instances of each model.
    let current = list["models"].as_array().filter(|list| {
        list.iter().any(|model| model["key"].is_string() && model["loaded_instances"].is_array())
    });
    // Other servers answer `/api/v0/models` with their plain model list, but only LM Studio's older
    // list has `max_context_length`.
    let before =
        list["data"].as_array().filter(|list| list.iter().any(|model| model["max_context_length"].is_u64()));
    current.or(before).into_iter().flatten().filter_map(model).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn servers_are_identified_by_their_answers() {
        let none = [Value::Null, Value::Null];
        let props = json!({"default_generation_settings": {"n_ctx": 16384}, "chat_template": "…", "build_info": "b1"});
        let llama = read(
            &json!({"data": [{"id": "m", "owned_by": "llamacpp", "meta": {"n_params": 1.5e9}}]}),
            &props,
            &none,
            &Value::Null,
        );
        assert_eq!(
            (llama.kind, llama.window, llama.models[0].parameters_b),
            (Kind::LlamaServer, Some(16384), Some(1.5))
        );

        let vllm = read(
            &json!({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]}),
            &Value::Null,
            &none,
            &json!({"version": "0.11.0"}),
        );
        assert_eq!(
            (vllm.kind, vllm.models[0].window, vllm.version.as_deref()),
            (Kind::Vllm, Some(4096), Some("0.11.0"))
        );

        let list = json!({"data": [{"id": "a/b", "owned_by": "organization_owner"}, {"id": "c"}]});
        let current = json!({"models": [{"key": "a/b", "max_context_length": 9, "loaded_instances": [{"config": {"context_length": 8192}}]}, {"key": "c", "loaded_instances": []}]});
        let studio = read(&list, &Value::Null, &[current, Value::Null], &Value::Null);
        assert_eq!(
            (studio.kind, studio.models[0].window, studio.models[1].window),
            (Kind::LmStudio, Some(8192), None)
        );
        let before = json!({"data": [{"id": "a/b", "max_context_length": 9, "loaded_context_length": 4096}]});
        let studio = read(&list, &Value::Null, &[Value::Null, before], &Value::Null);
        assert_eq!((studio.kind, studio.models[0].window), (Kind::LmStudio, Some(4096)));

        let error = json!({"error": "Unexpected endpoint"});
        let other = read(&list, &error, &[error.clone(), list.clone()], &error);
        assert_eq!((other.kind, other.models.len()), (Kind::Generic, 2));
    }

    #[test]
    fn a_list_may_say_whether_a_model_sees_images() {
        for (entry, sees) in [
            (json!({"id": "m", "capabilities": {"vision": true}}), Some(true)), // LM Studio, Mistral
            (json!({"id": "m", "capabilities": {"vision": false}}), Some(false)),
            (json!({"id": "m", "architecture": {"input_modalities": ["text", "image"]}}), Some(true)), // OpenRouter
            (json!({"id": "m", "architecture": {"input_modalities": ["text"]}}), Some(false)),
            (json!({"id": "m", "type": "vlm", "max_context_length": 9}), Some(true)), // older LM Studio
            (json!({"id": "m", "type": "llm", "max_context_length": 9}), Some(false)),
            (json!({"id": "m", "type": "model", "max_context_length": 9}), None),
            (json!({"id": "m"}), None), // vLLM
        ] {
            assert_eq!(listed(&entry).unwrap().sees_images, sees, "{entry}");
        }
    }
}
