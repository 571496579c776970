"""The programs that the test scripts run. All scripts build them with the same command, because cargo
recompiles a dependency if another command selects different features for it."""

import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = (ROOT / os.environ.get("CARGO_TARGET_DIR", "target")).absolute()
AGENT = TARGET / "debug/agent"
FAKE_MODEL = TARGET / "debug/fake-model"
EXAMPLES = TARGET / "debug/examples"
BUILD = ["cargo", "build", "--workspace", "--all-targets", "--locked", "--quiet"]


def build():
    """Build all programs, examples and tests."""
    subprocess.run(BUILD, cwd=ROOT, check=True)
