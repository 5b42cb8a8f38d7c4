"""Python environments with packages that do not fit beside those of this project."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest


def environment(name: str, requirements: Path) -> Path:
    """The `bin` of an environment with locked packages and nothing of this project, kept from one run of the tests to
    the next. Where it cannot be installed the test is skipped, except with CI set."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    told = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    folder = Path.home() / ".cache/beam-score-tests" / f"{name}-{version}-{told}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes of one run of the tests
        if not (folder / "installed").exists():
            install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            check = [folder / "bin/python", "-m", "pip", "check"]
            for command in ([sys.executable, "-m", "venv", "--clear", folder], [*install, "-r", requirements], check):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode and "CI" not in os.environ:
                    pytest.skip(f"{name} cannot be installed here: {done.stderr[-300:]}")
                assert done.returncode == 0, done.stderr[-3000:]
            (folder / "installed").touch()
    return folder / "bin"
