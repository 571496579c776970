//! Routes the requests on a connection: first control paths, then scripted paths, and then the
//! paths of the server being imitated.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::encode::{Dialect, Encoder};
use crate::generate::generate;
use crate::http::{Connection, ReadError};
use crate::ollama::{self, Answer, Validated};
use crate::play::Player;
use crate::record::Request;
use crate::reply::Reply;
use crate::respond::{After, Response, respond};
use crate::state::{Personality, Shared, request_ended};
use crate::{ollama_models, openai};

/// Serves one connection until it ends.
pub(crate) async fn serve(stream: TcpStream, shared: std::sync::Arc<Shared>) {
    let mut connection = Connection::new(stream);
    let number = shared.change(|inner| {
        inner.connections += 1;
        inner.connections - 1
    });
    loop {
        let incoming = match connection.read_request().await {
            Ok(incoming) => incoming,
            Err(ReadError::Closed) => return,
            Err(ReadError::Malformed(problem)) => {
                let body = format!("400 Bad Request: {problem}");
                let head = crate::http::head(400, Some("text/plain"), &[], Some(body.len()), false);
                let _ = connection.write(&[head, body.into_bytes()].concat()).await;
                return connection.close().await;
            }
        };
        let keep_alive = incoming.keep_alive;
        if let Some(path) = incoming.target.strip_prefix("/__fake/") {
            let control = control(&shared, &incoming.method, path, &incoming.body);
            let Ok(response) = connection.wait(control).await else { return };
            let head = crate::http::head(
                response.status,
                response.content_type,
                &[],
                Some(response.body.len()),
                keep_alive,
            );
            if connection.write(&[head, response.body].concat()).await.is_err() || !keep_alive {
                return;
            }
            continue;
        }
        let request = shared.change(|inner| {
            let request = Request::new(incoming, inner.requests.len(), number);
            inner.requests.push(request.clone());
            inner.replies.push(Default::default());
            request
        });
        match answer(&mut connection, &shared, &request, keep_alive).await {
            After::KeepAlive => {}
            After::Close => return connection.close().await,
            After::Drop => return,
        }
    }
}

async fn answer(connection: &mut Connection, shared: &Shared, request: &Request, keep_alive: bool) -> After {
    if let Some(reply) = shared.next_reply_for(request) {
        return play(connection, shared, request, reply, keep_alive).await;
    }
    let response = match route(shared, request) {
        Ok(Route::Response(response)) | Err(response) => response,
        Ok(Route::Reply(reply)) => return play(connection, shared, request, *reply, keep_alive).await,
        Ok(Route::Answer(Answer::Now(response))) => response,
        Ok(Route::Answer(Answer::Generate(generation))) => {
            return generate(connection, shared, request, *generation, keep_alive).await;
        }
    };
    let with_body = request.method != "HEAD";
    respond(connection, shared, request.index, &response, keep_alive, with_body).await
}

/// Plays a reply that is scripted for a path, or the reply to a pull, in the dialect of the
/// request's path.
async fn play(
    connection: &mut Connection,
    shared: &Shared,
    request: &Request,
    reply: Reply,
    keep_alive: bool,
) -> After {
    let dialect = match request.path.as_str() {
        "/api/chat" => Dialect::OllamaChat,
        "/api/generate" => Dialect::OllamaGenerate,
        path if path.starts_with("/api/") => Dialect::Lines,
        _ => Dialect::OpenAi(shared.config.personality),
    };
    let streams_by_default = !matches!(dialect, Dialect::OpenAi(_));
    let model = request.json["model"].as_str().unwrap_or_default();
    let mut player = Player::new(connection, shared, request.index, Encoder::new(dialect, model), reply);
    player.stream = request.json["stream"].as_bool().unwrap_or(streams_by_default);
    player.keep_alive = keep_alive;
    player.play().await
}

enum Route {
    Response(Response),
    Reply(Box<Reply>),
    Answer(Answer),
}

fn route(shared: &Shared, request: &Request) -> Validated<Route> {
    match shared.config.personality {
        Personality::Ollama => ollama_route(shared, request),
        _ => openai_route(shared, request),
    }
}

fn ollama_route(shared: &Shared, request: &Request) -> Validated<Route> {
    if !host_is_local(request.header("host")) || !origin_is_local(request.header("origin")) {
        return Err(Response::empty(403));
    }
    let allowed: &[&str] = match request.path.as_str() {
        "/" | "/api/version" | "/api/tags" => &["GET", "HEAD"],
        "/api/status" | "/api/ps" | "/v1/models" => &["GET"],
        "/api/chat" | "/api/generate" | "/api/pull" | "/api/show" | "/v1/chat/completions" => &["POST"],
        "/api/delete" => &["DELETE"],
        _ => return Err(Response::text(404, "404 page not found")),
    };
    if !allowed.contains(&request.method.as_str()) {
        return Err(Response::text(405, "405 method not allowed"));
    }
    Ok(match request.path.as_str() {
        "/" => Route::Response(Response::text(200, "Ollama is running")),
        "/api/version" => Route::Response(Response::json(200, &json!({"version": shared.version()}))),
        "/api/status" => {
            Route::Response(Response::json(200, &json!({"cloud": {"disabled": false, "source": "none"}})))
        }
        "/api/tags" => Route::Response(ollama_models::tags(shared)),
        "/api/ps" => Route::Response(ollama_models::ps(shared)),
        "/api/show" => Route::Response(ollama_models::show(shared, request)?),
        "/api/delete" => Route::Response(ollama_models::delete(shared, request)?),
        "/api/pull" => Route::Reply(Box::new(ollama_models::pull(shared, request)?)),
        "/api/chat" => Route::Answer(ollama::chat(shared, request)?),
        "/api/generate" => Route::Answer(ollama::generate(shared, request)?),
        "/v1/models" => Route::Response(openai::models(shared)),
        _ => Route::Answer(openai::chat(shared, request)?),
    })
}

fn openai_route(shared: &Shared, request: &Request) -> Validated<Route> {
    let personality = shared.config.personality;
    let beta = (personality == Personality::Deepseek).then_some("/beta");
    let prefix = ["/v1"].into_iter().chain(beta).find(|prefix| request.path.starts_with(prefix));
    let path = &request.path[prefix.map_or(0, str::len)..];
    // DeepSeek and llama-server serve these paths with and without /v1. The other servers serve
    // them only under /v1.
    let under_v1 = path.len() < request.path.len();
    let completions = path == "/chat/completions"
        && (under_v1 || matches!(personality, Personality::Deepseek | Personality::LlamaServer));
    let models = path == "/models"
        && (under_v1 || matches!(personality, Personality::Deepseek | Personality::LlamaServer));
    let loading = shared.config.loading && !shared.read().released.contains("loaded");
    let response = match (personality, request.method.as_str(), request.path.as_str()) {
        (_, "POST", _) if completions && loading => Err(Response::json(503, &loading_body())),
        (_, "POST", _) if completions => return Ok(Route::Answer(openai::chat(shared, request)?)),
        (_, _, _) if completions => Err(Response::text(405, "405 method not allowed")),
        (_, "GET", _) if models => openai::check_key(shared, request).map(|()| openai::models(shared)),
        (Personality::Deepseek, "GET", "/user/balance") => {
            openai::check_key(shared, request).map(|()| Response::json(200, &balance()))
        }
        (Personality::LlamaServer, "GET", "/health") if loading => Err(Response::json(503, &loading_body())),
        (Personality::LlamaServer, "GET", "/health") => Ok(Response::json(200, &json!({"status": "ok"}))),
        (Personality::LlamaServer, "GET", "/props") => Ok(openai::props(shared)),
        (Personality::LlamaServer, "POST", "/tokenize") => {
            let pieces = crate::tokens::split(request.json["content"].as_str().unwrap_or_default()).len();
            Ok(Response::json(200, &json!({"tokens": (0..pieces).collect::<Vec<_>>()})))
        }
        (Personality::Vllm, "GET", "/version") => {
            Ok(Response::json(200, &json!({"version": shared.version()})))
        }
        (Personality::Vllm, "GET", "/health") => Ok(Response::empty(200)),
        (Personality::LmStudio, "GET", "/api/v1/models") => Ok(openai::lm_studio_models(shared)),
        // LM Studio answers an unknown path with an error, but with status 200.
        (Personality::LmStudio, method, path) => {
            let text = format!("Unexpected endpoint or method. ({method} {path})");
            Ok(Response::json(200, &json!({"error": text})))
        }
        _ => Err(Response::json(
            404,
            &json!({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}),
        )),
    };
    response.map(Route::Response)
}

fn loading_body() -> Value {
    json!({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
}

fn balance() -> Value {
    json!({"is_available": true, "balance_infos": [{
        "currency": "USD", "total_balance": "10.00", "granted_balance": "0.00", "topped_up_balance": "10.00",
    }]})
}

/// Returns whether a host name is considered local. When listening on a loopback address, Ollama
/// answers only requests for local names (docs/model-apis.md#ollama-address).
fn host_is_local(host: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if let Ok(address) = name.parse::<std::net::IpAddr>() {
        return match address {
            std::net::IpAddr::V4(address) => {
                address.is_loopback() || address.is_private() || address.is_unspecified()
            }
            std::net::IpAddr::V6(address) => address.is_loopback() || address.is_unspecified(),
        };
    }
    let name = name.to_ascii_lowercase();
    name.is_empty()
        || name == "localhost"
        || [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end))
}

fn origin_is_local(origin: Option<&str>) -> bool {
    origin.is_none_or(|origin| host_is_local(origin.split("//").nth(1)))
}

/// Answers control requests, which let a script or a program in another language control the
/// server. Control requests are not recorded.
async fn control(shared: &Shared, method: &str, path: &str, body: &[u8]) -> Response {
    match (method, path.split_once('/').unwrap_or((path, ""))) {
        ("POST", ("release", gate)) => {
            shared.change(|inner| inner.released.insert(gate.to_owned()));
            Response::json(200, &json!({"released": gate}))
        }
        ("POST", ("replies", "")) => match serde_json::from_slice::<crate::script::Replies>(body) {
            Ok(replies) => {
                let added = replies.0.len();
                shared.change(|inner| inner.script.extend(replies.0.into_iter().map(Into::into)));
                Response::json(200, &json!({"added": added}))
            }
            Err(problem) => Response::json(400, &json!({"error": problem.to_string()})),
        },
        ("GET", ("requests", "")) => {
            let requests: Vec<Value> = shared.requests_json(0);
            Response::json(200, &Value::from(requests))
        }
        ("GET", ("replies", "")) => {
            let replies: Vec<Value> =
                shared.read().replies.iter().map(|reply| reply.to_json(shared.started)).collect();
            Response::json(200, &Value::from(replies))
        }
        ("GET", ("reached", gate)) => {
            shared.until(|inner| inner.reached.contains(gate).then_some(())).await;
            Response::json(200, &json!({"reached": gate}))
        }
        ("GET", ("ended", index)) => match index.parse() {
            Ok(index) => {
                Response::json(200, &shared.until(request_ended(index)).await.to_json(shared.started))
            }
            Err(_) => Response::text(400, "ended/INDEX: INDEX must be the index of a request"),
        },
        _ => Response::text(404, "no such control path"),
    }
}

impl Shared {
    pub(crate) fn version(&self) -> String {
        let default = match self.config.personality {
            Personality::Ollama => "0.32.15",
            Personality::Vllm => "0.11.2",
            Personality::LlamaServer => "b6500-fake",
            _ => "1.0.0",
        };
        self.config.version.clone().unwrap_or_else(|| default.to_owned())
    }
}
