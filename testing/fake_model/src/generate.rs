//! Runs one generation: waits for a slot, takes the next reply from the script, and plays it with
//! the token counts of the request's prompt.

use crate::encode::{Counts, Encoder};
use crate::http::{Closed, Connection};
use crate::model::Loaded;
use crate::play::{Player, Turn};
use crate::record::{Outcome, Request};
use crate::respond::After;
use crate::state::Shared;
use crate::tokens;

/// The reported load times, in nanoseconds: for a model that must be loaded, and for one that is
/// already loaded.
const LOAD_NS: u64 = 2_000_000_000;
const WARM_NS: u64 = 20_000_000;

/// A valid request for a generation.
pub(crate) struct Generation {
    pub(crate) encoder: Encoder,
    /// The model's name, which the cache stores along with the prompt.
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// The rendered prompt.
    pub(crate) prompt: String,
    /// If the prompt was silently truncated, the number of tokens left in it.
    pub(crate) prompt_tokens: Option<u64>,
    /// The token limit of the request.
    pub(crate) limit: Option<u64>,
    /// The model and options to load (Ollama).
    pub(crate) load: Option<Loaded>,
}

pub(crate) async fn generate(
    connection: &mut Connection,
    shared: &Shared,
    request: &Request,
    generation: Generation,
    keep_alive: bool,
) -> After {
    let Generation { encoder, model, stream, prompt, prompt_tokens, limit, load } = generation;
    let slot = match connection.wait(shared.slots.acquire()).await {
        Ok(slot) => slot,
        Err(Closed) => {
            shared.record_end(request.index, Outcome::ClientClosed);
            return After::Drop;
        }
    };
    let unload = load.as_ref().is_some_and(Loaded::leaves_at_once);
    let load_ns = load.map_or(0, |load| if shared.load(load) { LOAD_NS } else { WARM_NS });
    let prompt_count = prompt_tokens.unwrap_or_else(|| tokens::estimate(&prompt));
    let cached = shared.read().cache.cached(&model, &prompt).min(prompt_count.saturating_sub(1));
    shared.record(request.index, |record| {
        record.prompt_tokens = prompt_count;
        record.cached_tokens = cached;
    });
    let reply = shared.next_reply(request);
    let refused = reply.status.is_some_and(|status| status != 200);
    let mut player = Player::new(connection, shared, request.index, encoder, reply);
    player.counts = Counts { prompt: prompt_count, cached, load_ns, ..Counts::default() };
    player.stream = stream;
    player.keep_alive = keep_alive;
    player.limit = limit.filter(|_| !shared.config.ignore_limits);
    player.turn = (!refused).then_some(Turn { model, prompt, unload });
    let after = player.play().await;
    drop(slot);
    after
}

impl Shared {
    /// Ensures that the model is loaded with these options. Returns whether it had to be loaded
    /// (docs/model-apis.md#ollama-options).
    pub(crate) fn load(&self, load: Loaded) -> bool {
        self.change(|inner| {
            let held = inner.loaded.iter_mut().find(|held| held.model == load.model);
            if let Some(held) = held {
                if held.num_ctx == load.num_ctx && held.runner == load.runner {
                    held.keep_alive = load.keep_alive;
                    return false;
                }
                inner.loaded.retain(|held| held.model != load.model);
            }
            inner.cache.forget(&load.model);
            inner.loads.push(load.clone());
            inner.loaded.push(load);
            true
        })
    }

    /// Unloads the model.
    pub(crate) fn unload(&self, model: &str) {
        self.change(|inner| {
            inner.loaded.retain(|held| held.model != model);
            inner.cache.forget(model);
        });
    }
}
