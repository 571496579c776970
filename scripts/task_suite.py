"""Loads the task suite in `fixtures/tasks` and splits it, for the other scripts in this directory.

`fixtures/tasks/README.md` describes the layout and the split.
"""

import dataclasses
import hashlib
import pathlib
import shutil
import tomllib

import repair_fixtures

ROOT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "tasks"
REPORT_TASKS = 20


@dataclasses.dataclass
class Task:
    name: str
    folder: pathlib.Path
    language: str
    kind: str
    text: str
    verify: str
    files: list  # the files that the reference fix changes or adds
    protected: list  # the files that no fix may change

    def checkout(self):
        """Return a context manager that yields the path of a temporary git repository."""
        return repair_fixtures.Checkout(self)

    def run_verification(self, path):
        """Run the verification and return (passed, output)."""
        return repair_fixtures.verify(self, path)

    def copy_files(self, subfolder, names, path):
        """Copy files from `repo` or `fix` to the checkout."""
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / subfolder / name, path / name)

    def apply_fix(self, path):
        self.copy_files("fix", self.files, path)

    def restore_protected(self, path):
        """Restore the tests, because a solution must pass the original ones."""
        self.copy_files("repo", self.protected, path)


def names():
    return sorted(path.parent.name for path in ROOT.glob("*/task.toml"))


def report_half(known):
    """Return the names in the report half: the 20 names with the lowest SHA-256."""
    by_hash = sorted(known, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return sorted(by_hash[:REPORT_TASKS])


def split(known=None):
    """Return {"develop": names, "report": names}."""
    known = names() if known is None else known
    report = report_half(known)
    return {"develop": sorted(set(known) - set(report)), "report": report}


def read(name):
    """Return the task. Raise ValueError if its description is incomplete or has unknown keys."""
    folder = ROOT / name
    try:
        return Task(name, folder, **tomllib.loads((folder / "task.toml").read_text(encoding="utf-8")))
    except TypeError as error:
        raise ValueError(str(error).removeprefix("Task.__init__() ")) from None


def load(chosen=()):
    known = names()
    for name in chosen:
        if name not in known:
            raise SystemExit(f"no task named {name} in {ROOT}")
    return [read(name) for name in known if not chosen or name in chosen]
