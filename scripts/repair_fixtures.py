"""Loads and checks the fixtures in `fixtures/repair`, for the other scripts in this directory.

A fixture is a directory. `repo/` is the repository that the model may see; only this part is copied
to the folder where a model or an agent works. `task.md` is the task. `verify` is a command that
fails before the repair and passes after it. `solution.patch` is a correct fix for the one faulty
file.
"""

import dataclasses
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "repair"
VERIFY_SECONDS = 120


@dataclasses.dataclass
class Fixture:
    name: str
    folder: pathlib.Path
    task: str
    verify: str
    solution: str
    file: str  # the faulty file, relative to the repository

    def checkout(self):
        """Return a context manager that yields the path of a temporary git repository."""
        return Checkout(self)


class Checkout:
    def __init__(self, fixture):
        self.fixture = fixture

    def __enter__(self):
        self.outside = tempfile.TemporaryDirectory(prefix="repair-")
        path = pathlib.Path(self.outside.name) / self.fixture.name
        shutil.copytree(self.fixture.folder / "repo", path)
        for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as found"]):
            git = ["git", "-c", "user.name=fixture", "-c", "user.email=fixture@localhost", "-c", "commit.gpgsign=false"]
            subprocess.run([*git, *command], cwd=path, check=True, env=environment())
        return path

    def __exit__(self, *_):
        self.outside.cleanup()


def environment():
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "CARGO_TERM_COLOR": "never", "CARGO_TARGET_DIR": "target"}


def load(names=()):
    known = sorted(path.name for path in ROOT.iterdir() if (path / "task.md").exists())
    for name in names:
        if name not in known:
            raise SystemExit(f"no fixture named {name} in {ROOT}")
    return [read(ROOT / name) for name in known if not names or name in names]


def read(folder):
    solution = (folder / "solution.patch").read_text()
    (file,) = [line[6:].split("\t")[0].strip() for line in solution.splitlines() if line.startswith("+++ b/")]
    return Fixture(folder.name, folder, (folder / "task.md").read_text().strip(), (folder / "verify").read_text().strip(), solution, file)


def restore_tests(fixture, path):
    """Restore all files except the faulty one, because only the original tests count."""
    for source in (fixture.folder / "repo").rglob("*"):
        relative = source.relative_to(fixture.folder / "repo")
        if source.is_file() and str(relative) != fixture.file:
            (path / relative).parent.mkdir(parents=True, exist_ok=True)
            (path / relative).write_bytes(source.read_bytes())


def verify(fixture, path):
    """Run the fixture's check and return (passed, output). A check that hangs fails."""
    command = subprocess.Popen(
        shlex.split(fixture.verify), cwd=path, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )
    try:
        output, _ = command.communicate(timeout=VERIFY_SECONDS)
        return command.returncode == 0, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        os.killpg(command.pid, 9)
        command.wait()
        return False, f"still running after {VERIFY_SECONDS} s"
