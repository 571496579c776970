"""A server with Ollama's native API, for benchmarks. It answers immediately from memory and records when each request arrives."""

import json
import os
import socket
import subprocess
import threading
import time

MODEL = "bench:7b"
SHOW = {
    "details": {"family": "llama", "parameter_size": "7B", "format": "gguf"},
    "model_info": {"general.architecture": "llama", "llama.context_length": 32768},
    "capabilities": ["completion"],
    "template": "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}{{ end }}",
}


class Server:
    """Answers successive chat requests with `answers`, repeating the last one.

    Each answer's stream stays open for `hold` seconds after the text.
    """

    def __init__(self, answers, hold=0.0):
        self.answers, self.hold = answers, hold
        self.chats = []  # (time of arrival, body)
        self.braces = []  # when the last byte of each answer's text was sent
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        buffer = b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = connection.recv(1 << 16)
                    if not data:
                        return
                    buffer += data
                arrived = time.monotonic()
                head, buffer = buffer.split(b"\r\n\r\n", 1)
                length = 0
                for line in head.split(b"\r\n")[1:]:
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                while len(buffer) < length:
                    buffer += connection.recv(1 << 16)
                body, buffer = buffer[:length], buffer[length:]
                self.answer(connection, head.split()[1].decode(), body, arrived)
        except OSError:
            pass
        finally:
            connection.close()

    def answer(self, connection, path, body, arrived):
        simple = {
            "/api/version": {"version": "0.32.15"},
            "/api/show": SHOW,
            "/api/tags": {"models": [{"name": MODEL, "model": MODEL, "size": 1, "details": SHOW["details"]}]},
            "/api/ps": {"models": [{"name": MODEL, "model": MODEL, "size": 1, "size_vram": 1, "context_length": 32768}]},
        }.get(path)
        request = json.loads(body or b"{}")
        if path == "/api/chat" and not request.get("messages"):
            simple = {"model": MODEL, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "load"}
        if simple is not None or path != "/api/chat":
            status = b"200 OK" if simple is not None else b"404 Not Found"
            data = json.dumps(simple or {"error": "not here"}).encode()
            connection.sendall(b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data)
            return
        self.chats.append((arrived, request))
        text = self.answers[min(len(self.chats), len(self.answers)) - 1]
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(text), 12):
            self.chunk(connection, {"message": {"role": "assistant", "content": text[i : i + 12]}, "done": False})
        self.braces.append(time.monotonic())
        end = time.monotonic() + self.hold
        while time.monotonic() < end:
            time.sleep(0.25)
            self.chunk(connection, {"message": {"role": "assistant", "content": " "}, "done": False})
        self.chunk(connection, {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
                                "prompt_eval_count": 1000, "eval_count": 20})
        connection.sendall(b"0\r\n\r\n")

    @staticmethod
    def chunk(connection, value):
        data = json.dumps({"model": MODEL, "created_at": "2026-01-01T00:00:00Z", **value}).encode() + b"\n"
        connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))


class Solver(Server):
    """A server that solves `greeting_repository`: it answers the first request of a task with an edit, and every later request with
    `finish`. Each answer takes `seconds`. `asks` is called with the text of each first request."""

    EDIT = '{"tool": "apply_patch", "arguments": {"edits": [{"path": "greeting", "search": "hello", "replace": "good day"}]}}'
    FINISH = '{"tool": "finish", "arguments": {}}'

    def __init__(self, seconds=0.0):
        self.seconds, self.lock = seconds, threading.Lock()
        self.asks = lambda text: None
        super().__init__([self.FINISH])

    def answer(self, connection, path, body, arrived):
        messages = json.loads(body or b"{}").get("messages", [])
        edited = any(message["role"] == "assistant" for message in messages)
        if messages and not edited:
            self.asks(" ".join(message["content"] for message in messages))
        if messages:
            time.sleep(self.seconds)
        with self.lock:  # no other request may replace the answer until it has been sent
            self.answers = [self.FINISH if edited else self.EDIT]
            super().answer(connection, path, body, arrived)


def greeting_repository(folder, files=0):
    """Creates a repository with a file called `greeting` and `files` other files. The task is to change hello to good day."""
    folder.mkdir()
    (folder / "greeting").write_text("hello\n")
    for n in range(files):
        (folder / f"part_{n}.py").write_text(f"def f{n}(x):\n    return x + {n}\n")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-qm", "b"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env=environment)


def run_agent(agent, server, folder, state, task, *flags):
    """Runs one task. Returns its start time, its peak memory in MiB, its exit code and its output."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(state), "AGENT_STATE_DIR": str(state), "OLLAMA_HOST": server.url}
    begun = time.monotonic()
    process = subprocess.Popen([os.path.abspath(agent), "run", "--model", f"ollama:{MODEL}", *flags, task], cwd=folder, env=environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    return begun, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status), output
