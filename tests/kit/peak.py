"""Peak memory of a piece of work in this process."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa


class Peak:
    """The peak of a measured body.

    Attributes:
      bytes: peak resident memory above the memory before; set once the work is done.
    """

    bytes = 0


@contextlib.contextmanager
def peak() -> Iterator[Peak]:
    """Measure the body: Linux resets the high-water mark on request (proc(5), clear_refs)."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")
    before, found = _status("VmRSS"), Peak()
    yield found
    found.bytes = _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))
