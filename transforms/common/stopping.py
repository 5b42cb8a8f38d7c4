"""Events that end the work of a process: at the next block, or at the next split."""

from __future__ import annotations

import threading

STOP = threading.Event()
"""Set when this process should not begin another block: otherwise, after one worker of the FnApiRunner has raised,
the others continue with their next splits (seen in Beam 2.77)."""


DRAIN = threading.Event()
"""Set when this process should finish its current splits and not begin another."""


class Stopped(Exception):
    """Raised between blocks once `STOP` is set."""
