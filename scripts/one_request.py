"""The baseline: what a model can fix with a single chat request, without an agent.

The prompt contains the task and the file and asks for the whole corrected file in a fenced block.
The temperature is 0. The answer replaces the file. Do not tune this request, either to help the
model or to make the agent look better. The agent must solve at least as many tasks as the baseline.
"""

import http.client
import json
import pathlib
import re
import time
import urllib.parse

import repair_fixtures

REQUEST_SECONDS = 150
MAX_TOKENS = 4096
FENCE = re.compile(r"^(`{3,})[^\n`]*\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".rs": "rust"}


def prompt(fixture, path):
    source = (path / fixture.file).read_text()
    language = LANGUAGES.get(pathlib.Path(fixture.file).suffix, "")
    return (
        f"{fixture.task}\n\n{fixture.file}:\n```{language}\n{source.rstrip()}\n```\n\n"
        "Reply with the whole corrected file in one fenced block."
    )


def chat(base_url, body):
    """Send a request to /v1/chat/completions. Raises OSError or ValueError."""
    url = urllib.parse.urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=REQUEST_SECONDS)
    try:
        path = url.path.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != 200:
            raise ValueError(f"status {response.status}: {answer}")
        return answer
    finally:
        connection.close()


def counts(answer):
    """Return (prompt tokens evaluated, tokens generated), without tokens from the prefix cache."""
    usage = answer.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return usage.get("prompt_tokens", 0) - cached, usage.get("completion_tokens", 0)


def block(text):
    """Return the body of the longest fenced block, or None."""
    bodies = [match.group(2) for match in FENCE.finditer(text)]
    return max(bodies, key=len) if bodies else None


def attempt(base_url, model, fixture, path):
    """Ask once, write the answer to the checkout, and return a record of the cost."""
    before = time.monotonic()
    body = {"model": model, "messages": [{"role": "user", "content": prompt(fixture, path)}], "temperature": 0, "max_tokens": MAX_TOKENS}
    record = {"prompt_tokens": 0, "generated_tokens": 0, "note": ""}
    try:
        answer = chat(base_url, body)
        record["prompt_tokens"], record["generated_tokens"] = counts(answer)
        code = block(answer["choices"][0]["message"]["content"] or "")
        target = path / fixture.file
        if code is None:
            record["note"] = "no fenced block"
        elif code.strip() == target.read_text().strip():
            record["note"] = "file unchanged"
        else:
            target.write_text(code)
    except (OSError, ValueError, KeyError) as error:
        record["note"] = f"{type(error).__name__}: {error}"
    record["seconds"] = round(time.monotonic() - before, 1)
    return record


def measure(base_url, model, fixture):
    with fixture.checkout() as path:
        record = attempt(base_url, model, fixture, path)
        before = time.monotonic()
        record["solved"], _ = repair_fixtures.verify(fixture, path)
        record["seconds"] = round(record["seconds"] + time.monotonic() - before, 1)
    return {"fixture": fixture.name, **record}
