"""How the work of a process is ended: at the next block, or at the next split."""

from __future__ import annotations

import threading

STOP = threading.Event()
"""Set when this process should begin no new block: after one worker of the FnApiRunner has raised,
the others go on to their next splits otherwise (seen in Beam 2.77)."""


DRAIN = threading.Event()
"""Set when this process should begin no new split, and finish those that it has in hand."""


class Stopped(Exception):
    """Raised between blocks once `STOP` is set."""
