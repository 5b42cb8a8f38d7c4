"""Flags that end the work of a launch early: at the next block, or at the next split."""

from __future__ import annotations

import threading

from beam_score.transforms.common.shared import Shared


class Stopped(Exception):
    """Raised between blocks once the work is to stop."""


class Stopping(Shared):
    """Two flags of a launch, seen by all its workers that are threads of the same process.

    Attributes:
      now: set when no new block is to begin: after one worker of the FnApiRunner has raised, the others would
        continue with their next splits (seen in Beam 2.77).
      after_splits: set when no new split is to begin, and those in progress are to be finished.
    """

    def __init__(self) -> None:
        self.now, self.after_splits = threading.Event(), threading.Event()

    def check(self) -> None:
        """Raise Stopped if no new block is to begin."""
        if self.now.is_set():
            raise Stopped("the run is stopping")
