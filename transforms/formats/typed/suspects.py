"""Files that were being decoded when a process died: each is tried in a separate process before it is read again.

The supervising process names them in the environment and restarts the command (`pipeline.process.supervise`). A file
that also ends the separate process is damaged, and only that file is rejected; the others were merely being read at the
same time.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys

ENVIRONMENT = "BEAM_SCORE_SUSPECT_FILES"
"""A JSON list of paths."""

_LONGEST_S = 600


def suspects() -> list[str]:
    """Return the suspected files."""
    return _parsed(os.environ.get(ENVIRONMENT, "[]"))


@functools.lru_cache(1)
def _parsed(value: str) -> list[str]:
    return json.loads(value)


def why_not(
    format: str, path: str, version: str | None, groups: tuple[int, ...] = (), names: tuple[str, ...] = ()
) -> str | None:
    """Return why a file, or some row groups of it, cannot be read in this process; None if they can.

    Args:
      format: its name; `formats/FORMAT/tried_apart.py` reads it.
      version: of an object (`transforms.stores.versions`).
      groups: row groups of a Parquet file, stripes of an ORC file; none: only its footer is tried.
      names: the columns to be read.
    """
    return _tried(format, path, version, groups, names) if path in suspects() else None


@functools.lru_cache(4096)
def _tried(format: str, path: str, version: str | None, groups: tuple[int, ...], names: tuple[str, ...]) -> str | None:
    asked = json.dumps({"path": path, "version": version, "groups": groups, "names": names})
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    command = [
        sys.executable,
        "-P",
        "-c",
        f"from beam_score.transforms.formats.{format}.tried_apart import try_out; try_out()",
    ]
    try:
        ended = subprocess.run(
            command,
            input=asked.encode(),
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_LONGEST_S,
        )
    except subprocess.TimeoutExpired:
        return f"reading it in a separate process takes longer than {_LONGEST_S} s"
    if ended.returncode >= 0:
        return None  # this process will raise and report any exception
    number = -ended.returncode
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    return f"the library that reads it ends the process by {name}"
