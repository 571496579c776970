"""A batch of tasks from `fixtures/repair` with a scripted model that solves them, for the other scripts in this directory."""

import json
import os
import pathlib
import subprocess
import threading

import repair_fixtures
from instant_ollama import MODEL, Server

FINISH = json.dumps({"tool": "finish", "arguments": {}})


def fixtures():
    """Return the fixtures whose check needs only Python."""
    return [fixture for fixture in repair_fixtures.load() if fixture.verify.startswith("python3 ")]


class FixtureSolver(Server):
    """Answers the first request of a task with the fixture's patch, and every later request with `finish`."""

    def __init__(self):
        self.patches = {fixture.task: fixture.solution for fixture in fixtures()}
        self.lock = threading.Lock()
        super().__init__([FINISH])

    def answer(self, connection, path, body, arrived):
        with self.lock:  # no other request may replace the answer until it has been sent
            self.answers = [self.choose(json.loads(body or b"{}").get("messages", []))]
            super().answer(connection, path, body, arrived)

    def choose(self, messages):
        if any(message["role"] == "assistant" for message in messages):
            return FINISH
        text = "\n".join(message["content"] for message in messages if message["role"] == "user")
        patches = [patch for task, patch in self.patches.items() if task in text]
        return json.dumps({"tool": "apply_patch", "arguments": {"patch": patches[0]}}) if patches else FINISH

    def environment(self, home):
        """Return the environment variables for an agent that uses this server and keeps its files in `home`."""
        home.mkdir(exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": str(home), "OLLAMA_HOST": self.url, "AGENT_MODEL": f"ollama:{MODEL}",
                "AGENT_APPROACH": "tools"}


def write_bundles(folder):
    """Write each fixture's repository as a git bundle."""
    folder.mkdir()
    for fixture in fixtures():
        with fixture.checkout() as path:
            subprocess.run(["git", "bundle", "create", "--quiet", folder / f"{fixture.name}.bundle", "HEAD"], cwd=path, check=True)


def write_tasks(path, count):
    """Write a task file with `count` tasks, with the bundles next to it. Return the ids of the tasks."""
    write_bundles(path.parent / "bundles")
    known, tasks = fixtures(), []
    for n in range(count):
        fixture = known[n % len(known)]
        tasks.append({"id": f"{fixture.name}-{n}", "repo": f"bundles/{fixture.name}.bundle", "task": fixture.task, "verify": fixture.verify})
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return [task["id"] for task in tasks]


def lines(path):
    """Return the complete lines of a JSON Lines file."""
    text = pathlib.Path(path).read_text() if pathlib.Path(path).exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
