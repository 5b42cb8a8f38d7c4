"""Environments of contenders whose packages do not go with ours."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time


def python_of(requirements: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Return the Python of an environment; create it, or create it again if its requirements changed.

    Args:
      requirements: pinned packages.
      folder: of the environment.
    """
    python, installed = folder / "bin" / "python", folder / "installed.txt"
    if not installed.exists() or installed.read_text() != requirements.read_text():
        print(f"making {folder}, of {requirements}: some minutes and gigabytes", file=sys.stderr)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], check=True)
        installed.write_text(requirements.read_text())
        print(f"made in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return python
