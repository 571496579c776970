"""Test the fake server at a URL with the official Python client. Run by scripts/ollama-clients."""
import asyncio
import json
import sys
import traceback
import urllib.request

import ollama

URL = sys.argv[1]
client = ollama.Client(host=URL)
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def control(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{URL}/__fake/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def script(*replies):
    control("POST", "replies", list(replies))


def steps(*steps, **more):
    return {"steps": list(steps), **more}


def refusal(call):
    """Return the error that the client raises; fail if there is none."""
    try:
        answer = call()
        if not isinstance(answer, (ollama.ChatResponse, ollama.GenerateResponse, ollama.ProgressResponse)):
            list(answer or [])
    except ollama.ResponseError as problem:
        return problem
    raise AssertionError("no error was raised")


USER = [{"role": "user", "content": "hello"}]
HELLO = "Hello, wörld! 😀"


@check
def models_are_listed():
    assert [model.model for model in client.list().models] == ["plain:7b", "thinker:8b", "tooler:latest"]
    assert client.list().models[0].size > 0


@check
def a_model_is_shown_with_capabilities_and_context():
    shown = client.show("thinker:8b")
    assert shown.capabilities == ["completion", "thinking"]
    assert shown.modelinfo["qwen3.context_length"] == 131072
    assert client.show("tooler").details.family == "qwen2"


@check
def an_unknown_model_returns_404():
    assert refusal(lambda: client.show("nope")).status_code == 404
    assert refusal(lambda: client.chat("nope", USER)).status_code == 404
    assert "not found" in refusal(lambda: client.chat("nope", USER, stream=True)).error


@check
def a_chat_without_streaming():
    script(HELLO)
    answer = client.chat("plain:7b", USER)
    assert answer.message.content == HELLO
    assert answer.done and answer.done_reason == "stop"
    assert answer.prompt_eval_count > 0 and answer.eval_count > 0 and answer.total_duration > 0


@check
def a_streamed_chat_split_at_every_byte():
    script(steps({"text": HELLO}, split_bytes=1))
    parts = list(client.chat("plain:7b", USER, stream=True))
    assert "".join(part.message.content for part in parts) == HELLO
    assert len(parts) > 3 and [part.done for part in parts[-2:]] == [False, True]


@check
def a_streamed_chat_with_the_asynchronous_client():
    script(HELLO)

    async def chat():
        parts = await ollama.AsyncClient(host=URL).chat("plain:7b", USER, stream=True)
        return "".join([part.message.content async for part in parts])

    assert asyncio.run(chat()) == HELLO


@check
def thinking_arrives_in_its_own_field():
    reply = steps({"thinking": "let me see"}, {"text": "yes"})
    script(reply, reply)
    answer = client.chat("thinker:8b", USER, think=True)
    assert (answer.message.thinking, answer.message.content) == ("let me see", "yes")
    parts = list(client.chat("thinker:8b", USER, think="high", stream=True))
    assert "".join(part.message.thinking or "" for part in parts) == "let me see"


@check
def thinking_is_refused_by_a_model_without_it():
    problem = refusal(lambda: client.chat("plain:7b", USER, think=True))
    assert problem.status_code == 400 and "does not support thinking" in problem.error


def read_file(path: str, line: int) -> str:
    """Reads a file.

    Args:
      path: the file
      line: the line
    """
    return f"{path}:{line}"


CALL = {"tool_call": {"name": "read_file", "arguments": {"path": "src/main.rs", "line": 3}}}


@check
def a_tool_is_called_and_its_result_sent_back():
    script(steps({"text": "Reading."}, CALL), "Done.")
    answer = client.chat("tooler", USER, tools=[read_file])
    [call] = answer.message.tool_calls
    assert read_file(**call.function.arguments) == "src/main.rs:3"
    result = {"role": "tool", "content": "fn main() {}", "tool_name": call.function.name}
    answer = client.chat("tooler", [*USER, answer.message, result], tools=[read_file])
    assert answer.message.content == "Done."


@check
def tool_calls_stream_one_by_one_together_or_at_the_end():
    two = (CALL, CALL)
    script(steps(*two), steps(*two, calls_together=True), steps(*two, calls_in_final_chunk=True))
    counts = []
    for _ in range(3):
        parts = client.chat("tooler", USER, tools=[read_file], stream=True)
        counts.append([len(part.message.tool_calls or []) for part in parts])
    assert counts == [[1, 1, 0], [2, 0], [2]], counts


@check
def tools_are_refused_by_a_model_without_them():
    problem = refusal(lambda: client.chat("thinker:8b", USER, tools=[read_file]))
    assert problem.status_code == 400 and "does not support tools" in problem.error


@check
def generate_works_with_and_without_streaming():
    script(HELLO, HELLO)
    answer = client.generate("plain:7b", "hello", system="Be brief.")
    assert answer.response == HELLO and answer.done_reason == "stop"
    parts = list(client.generate("plain:7b", "hello", raw=True, stream=True))
    assert "".join(part.response for part in parts) == HELLO


@check
def fill_in_the_middle_needs_a_model_that_supports_it():
    script("b")
    assert client.generate("tooler", "a", suffix="c").response == "b"
    assert refusal(lambda: client.generate("plain:7b", "a", suffix="c")).status_code == 400


@check
def a_loaded_model_is_listed_with_its_context_and_can_be_unloaded():
    client.chat("tooler", [], options={"num_ctx": 8192}, keep_alive="30m")
    loaded = {model.model: model.context_length for model in client.ps().models}
    assert loaded["tooler:latest"] == 8192, loaded
    assert client.chat("tooler", [], keep_alive=0).done_reason == "unload"
    assert "tooler:latest" not in [model.model for model in client.ps().models]


@check
def bad_requests_are_refused():
    assert refusal(lambda: client.chat("plain:7b", USER, options={"num_ctx": "many"})).status_code == 500
    assert refusal(lambda: client.chat("plain:7b", USER, keep_alive="30")).status_code == 400


@check
def an_error_in_the_middle_of_a_stream_is_raised():
    script(steps({"text": "half"}, {"error_line": "the runner stopped"}))
    assert refusal(lambda: client.chat("plain:7b", USER, stream=True)).error == "the runner stopped"


@check
def a_busy_server_returns_503_and_a_retry_succeeds():
    script({"status": 503, "error": "server busy"}, "now")
    assert refusal(lambda: client.chat("plain:7b", USER)).status_code == 503
    assert client.chat("plain:7b", USER).message.content == "now"


@check
def a_dropped_stream_closes_the_connection():
    script(steps({"text": "one"}, {"gate": "python"}, {"text": "never"}))
    index = len(control("GET", "requests"))
    own = ollama.Client(host=URL)
    parts = own.chat("plain:7b", USER, stream=True)
    assert next(parts).message.content == "one"
    parts.close()
    ended = control("GET", f"ended/{index}")
    assert (ended["outcome"], ended["generated_tokens"]) == ("client_closed", 1), ended


@check
def pulling_a_model_reports_progress():
    parts = list(client.pull("new:1b", stream=True))
    assert parts[0].status == "pulling manifest" and parts[-1].status == "success"
    done = [(part.completed, part.total) for part in parts if part.completed]
    assert done and all(completed <= total for completed, total in done)
    assert client.pull("new:1b").status == "success"
    assert "new:1b" in [model.model for model in client.list().models]


@check
def pulling_an_unknown_model_fails_inside_the_stream():
    assert "does not exist" in refusal(lambda: client.pull("nowhere", stream=True)).error


@check
def a_model_can_be_deleted_only_once():
    assert client.delete("new:1b").status == "success"
    assert refusal(lambda: client.delete("new:1b")).status_code == 404


failed = 0
for function in CHECKS:
    name = function.__name__.replace("_", " ")
    try:
        function()
        print("ok", name, flush=True)
    except Exception:  # always run the remaining checks
        failed += 1
        print("FAILED", name, flush=True)
        traceback.print_exc()
sys.exit(1 if failed else 0)
