"""Things that go wrong in a worker because a test has ordered it, each once.

A test writes a file named for a fault into the folder that an environment variable names, and `trip`, as the
preprocess function of a job, carries it out and takes the order away. In the launcher, which tries the first rows in
its main thread, nothing goes wrong.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from pathlib import Path

import pyarrow as pa

FOLDER = "BEAM_SCORE_TEST_FAULTS"

AFTER_BLOCKS = 16
"""A process does so many before anything goes wrong in it, so that some work is done, and some is in hand."""

_blocks = itertools.count(1)


class Fails(BaseException):
    """What fails a bundle, and is not taken for the fault of a row."""


def trip(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Changes nothing in the rows."""
    folder = os.environ.get(FOLDER)
    works = threading.current_thread() is not threading.main_thread()
    if folder is not None and works and next(_blocks) >= AFTER_BLOCKS:
        for name, fault in _FAULTS.items():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(Path(folder, name))
                fault(Path(folder))
    return rows


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
