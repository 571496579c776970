"""The approaches that `scripts/bench-solve` compares, each as a function that makes one attempt.

Every attempt works on a fresh copy of a task and returns a record with `solved`, `seconds`,
`evaluated`, `generated` and `note`. Only the task's own verification, with the original tests
restored, decides whether the task is solved.
"""

import difflib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import one_request
import repair_fixtures

SAMPLE_TEMPERATURE = 0.7
GRACE_SECONDS = 60
SOURCES = {".py", ".js", ".mjs", ".rs", ".c", ".h"}
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.\w+")
SIMILAR = 0.5


def sources(task):
    """Return the non-empty source files of the task's repository, except tests."""
    repo = task.folder / "repo"
    files = sorted(path for path in repo.rglob("*") if path.suffix in SOURCES and path.stat().st_size)
    return [name for name in (str(path.relative_to(repo)) for path in files) if name not in task.protected]


def shown(task):
    """Return the files that a plain request shows.

    If there is only one file to fix and the task mentions it, only that file is shown. Otherwise,
    all source files are shown.
    """
    files = sources(task)
    if len(files) > 1 and len(task.files) == 1 and task.files[0] in files and pathlib.Path(task.files[0]).name in task.text:
        return task.files
    return files


def prompt(task, files, path):
    """Return the prompt of `scripts/floor`, extended to several files if necessary."""
    text = task.text.strip()
    if len(files) == 1:
        return one_request.prompt(repair_fixtures.Fixture(task.name, task.folder, text, task.verify, "", files[0]), path)
    blocks = []
    for name in files:
        language = one_request.LANGUAGES.get(pathlib.Path(name).suffix, "")
        blocks.append(f"{name}:\n```{language}\n{(path / name).read_text().rstrip()}\n```\n\n")
    return f"{text}\n\n{''.join(blocks)}Reply with the whole corrected files in fenced blocks, each headed by its path."


def named(line, files):
    """Return the last path in a line, or None. Paths of shown files take precedence."""
    paths = [name for name in PATH.findall(line) if pathlib.Path(name).suffix in SOURCES]
    for name in reversed(paths):
        for file in files:
            if file == name or file.endswith(f"/{name}") or name.endswith(f"/{file}"):
                return file
    return paths[-1] if paths else None


def most_similar(code, files, path):
    ratio, name = max((difflib.SequenceMatcher(None, (path / file).read_text(), code).ratio(), file) for file in files)
    return name if ratio >= SIMILAR else None


def answered_files(answer, files, path):
    """Return {path: content} for the fenced blocks in an answer.

    A block's path comes from the line above it, its info string or its first line. A block without
    a path replaces the shown file that it resembles most, so that a missing path alone does not
    make the request fail. If there are several blocks for a file, the longest one is used, as in
    `scripts/floor`.
    """
    if len(files) == 1:
        code = one_request.block(answer)
        return {} if code is None else {files[0]: code}
    found, end = {}, 0
    for match in one_request.FENCE.finditer(answer):
        above = answer[end : match.start()].strip().splitlines()[-1:]
        info, first, *_ = [*match.group(0).splitlines(), ""]
        end = match.end()
        name = next((name for line in (*above, info) if (name := named(line, files))), None)
        inside = named(first, files)
        name = name or (inside if inside in files else None) or most_similar(match.group(2), files, path)
        if name:
            found[name] = max(found.get(name, ""), match.group(2), key=len)
    return found


def write(task, contents, path):
    """Write the files in an answer to the checkout and return whether that changed anything."""
    changed = False
    for name, code in contents.items():
        target = (path / name).resolve()
        if name in task.protected or not target.is_relative_to(path.resolve()):
            continue
        changed |= not target.exists() or target.read_text().strip() != code.strip()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(code)
    return changed


def verified(task, path):
    """Return whether the original tests pass."""
    task.restore_protected(path)
    return task.run_verification(path)[0]


def sample(base_url, model, task, number, seconds):
    """Send a plain request.

    Request 0 has temperature 0; all others have a higher temperature and use their number as the seed.
    """
    before = time.monotonic()
    record = {"evaluated": 0, "generated": 0, "note": "", "answer": ""}
    files = shown(task)
    with task.checkout() as path:
        body = {"model": model, "messages": [{"role": "user", "content": prompt(task, files, path)}], "max_tokens": one_request.MAX_TOKENS}
        body |= {"temperature": SAMPLE_TEMPERATURE, "seed": number} if number else {"temperature": 0}
        # Let the server end the answer before the timeout, so that its tokens are counted.
        body["t_max_predict_ms"] = max(1000, int(seconds * 1000))
        one_request.REQUEST_SECONDS = seconds + GRACE_SECONDS
        try:
            answer = one_request.chat(base_url, body)
            record["evaluated"], record["generated"] = one_request.counts(answer)
            record["answer"] = answer["choices"][0]["message"]["content"] or ""
            contents = answered_files(record["answer"], files, path)
            if not contents:
                record["note"] = "no fenced block"
            elif not write(task, contents, path):
                record["note"] = "files unchanged"
        except (TimeoutError, ValueError, KeyError) as error:  # all other errors end the script, because there is no result without a server
            record["note"] = f"{type(error).__name__}: {error}"
        record["solved"] = verified(task, path)
    return record | {"seconds": round(time.monotonic() - before, 1)}


def run_limited(command, path, env, seconds):
    """Run a command and return (exit code or None, its output, its errors). Kill it if it takes too long."""
    started = subprocess.Popen(
        command, cwd=path, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    late = False
    try:
        out, said = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
    finally:
        try:
            os.killpg(started.pid, signal.SIGKILL)  # also kills anything that a finished command left running
        except ProcessLookupError:
            pass
    if late:
        out, said = started.communicate()
    return None if late else started.returncode, out.decode(errors="replace"), said.decode(errors="replace")


def events(output):
    for line in output.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def agent_counts(recorded):
    """Return the counts of a run from its events: its totals, or the sum over its answers if it was killed."""
    totals = next((event["totals"] for event in reversed(recorded) if event.get("event") == "finished"), None)
    answers = [event["counts"] for event in recorded if event.get("event") in ("output", "answer_lost")]
    if totals is None:
        totals = {key: sum(counts.get(key) or 0 for counts in answers) for key in ("evaluated_tokens", "generated_tokens")}
        totals |= {"turns": len(answers), "saved_tokens": sum(event.get("saved_tokens", 0) for event in recorded)}
    return {
        "evaluated": totals.get("evaluated_tokens") or 0,
        "generated": totals["generated_tokens"],
        "saved": totals["saved_tokens"],
        "turns": totals["turns"],
        "cuts": sum(event.get("event") == "cut" for event in recorded),
    }


def run_agent(agent, model, task, seconds, flags=()):
    """Let `agent run` work on the task with its embedded engine."""
    before = time.monotonic()
    with task.checkout() as path, tempfile.TemporaryDirectory(prefix="bench-solve-") as state:
        command = [agent, "run", "--json", "--model", f"embedded:{model}", "--verify", task.verify]
        command += ["--max-seconds", str(seconds), *flags, "--", task.text.strip()]
        env = repair_fixtures.environment() | {"AGENT_STATE_DIR": state}
        code, output, said = run_limited(command, path, env, seconds + GRACE_SECONDS)
        took = time.monotonic() - before
        recorded = list(events(output))
        solved = verified(task, path)
    finished = next((event for event in reversed(recorded) if event.get("event") == "finished"), {})
    note = "timed out" if code is None else finished.get("message") or (said.strip().splitlines() or [""])[-1]
    return {"solved": solved, "seconds": round(took, 1), **agent_counts(recorded), "exit_code": code, "note": note}


def server_counts(base_url):
    """Return (prompt tokens evaluated, tokens generated) by a llama-server since it was started."""
    with urllib.request.urlopen(f"{base_url}/metrics", timeout=30) as answer:
        values = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    return tuple(int(float(values[f"llamacpp:{name}_total"])) for name in ("prompt_tokens", "tokens_predicted"))


def aider_command(url, model, task):
    return [
        "aider", "--model", f"openai/{model}", "--openai-api-base", f"{url}/v1", "--openai-api-key", "none", "--yes-always",
        "--no-show-model-warnings", "--no-check-update", "--no-show-release-notes", "--no-analytics", "--no-gitignore", "--no-pretty",
        "--no-suggest-shell-commands", "--auto-test", "--test-cmd", task.verify, "--message", task.text.strip(), *shown(task),
    ]


def mini_command(url, model, task):
    text = f"{task.text.strip()}\n\nCheck your work with: {task.verify}"
    return ["mini", "-m", f"openai/{model}", "-t", text, "--yolo", "--exit-immediately", "-o", os.devnull]


def mini_text_command(url, model, task):
    return [*mini_command(url, model, task), "-c", "mini_textbased.yaml"]


PEERS = {"aider": aider_command, "mini-swe-agent": mini_command, "mini-text": mini_text_command}
CONFINED = {"aider"}  # does not run any of the model's commands, only the verification


def installed(peer):
    return shutil.which("aider" if peer == "aider" else "mini") is not None


def run_peer(peer, base_url, model, task, seconds):
    """Let another agent work on the task, with its own defaults and the user's settings."""
    evaluated, generated = server_counts(base_url)
    before = time.monotonic()
    with task.checkout() as path:
        env = repair_fixtures.environment() | {
            "OPENAI_API_BASE": f"{base_url}/v1", "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "MSWEA_CONFIGURED": "true", "MSWEA_COST_TRACKING": "ignore_errors",
        }
        code, output, said = run_limited(PEERS[peer](base_url, model, task), path, env, seconds)
        took = time.monotonic() - before
        solved = verified(task, path)
    after = server_counts(base_url)
    note = "timed out" if code is None else "" if code == 0 else ((said or output).strip().splitlines() or [""])[-1]
    counts = {"evaluated": after[0] - evaluated, "generated": after[1] - generated}
    return {"solved": solved, "seconds": round(took, 1), **counts, "exit_code": code, "note": note[:200]}
