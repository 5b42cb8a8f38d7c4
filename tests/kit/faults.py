"""Faults in a worker, requested by a test, each once.

A test requests a fault by `order`. `trip`, as the preprocess function of a job, carries it out and removes the request,
as soon as some splits of the job are done and others in progress.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import jobs
import pyarrow as pa

_WITHIN_S = 120

FOLDER = "BEAM_SCORE_TEST_FAULTS"


class Fails(BaseException):
    """An error that fails a bundle and is not treated as the fault of a row."""


def order(folder: Path, fault: str, output: Path) -> None:
    """Request a fault in workers whose `FOLDER` this is, once a split of the job with this output is done."""
    for left in ("held", "go on"):
        (folder / left).unlink(missing_ok=True)
    (folder / "ordered").write_text(str(output))
    (folder / "ordered").rename(folder / fault)


def trip(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Carry out a requested fault; return the rows unchanged."""
    if FOLDER in os.environ:
        folder = Path(os.environ[FOLDER])
        for name, fault in _FAULTS.items():
            with contextlib.suppress(FileNotFoundError):
                if jobs.staged(Path((folder / name).read_text())):
                    os.unlink(folder / name)  # succeeds in only one of the workers
                    fault(folder)
    return rows


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + _WITHIN_S
    while not true():
        assert time.monotonic() < until, f"not within {_WITHIN_S} s"
        time.sleep(0.02)


def _kill(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_group(folder: Path) -> None:
    os.killpg(0, signal.SIGKILL)


def _fail(folder: Path) -> None:
    raise Fails("on purpose")


def _hold(folder: Path) -> None:
    (folder / "held").touch()
    while not (folder / "go on").exists():
        time.sleep(0.02)


_FAULTS = {"kill": _kill, "kill group": _kill_group, "fail": _fail, "hold": _hold}
