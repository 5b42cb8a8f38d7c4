"""Measures the peak memory of this process while a function runs. Linux kills a process that takes too much memory
instead of raising an error, so the memory of a call is measured on few rows before it is made on many."""

from __future__ import annotations

import contextlib
import ctypes
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

Result = TypeVar("Result")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""See proc_pid_clear_refs(5)."""


def resident_bytes() -> int:
    """Return the resident memory of this process that is in use; the peak so far if the system does not report it."""
    _release_unused()
    return _field("VmRSS") or _peak_bytes()


def with_peak(work: Callable[[], Result]) -> tuple[Result, int]:
    """Call `work`; return its result and the peak resident memory during the call, in bytes.

    If the system cannot reset the peak (not Linux, or forbidden by a sandbox), the peak since the process began is
    returned: never less than `work` took.
    """
    _release_unused()
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)
    result = work()
    return result, _peak_bytes()


def _release_unused() -> None:
    """Release memory that the allocators hold but do not use: otherwise a later call would reuse it and appear to take
    less."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _peak_bytes() -> int:
    return _field("VmHWM") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _field(name: str) -> int:
    """Return a field of /proc/self/status in bytes; 0 if it is missing."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE):
            return 1024 * int(found[1])
    return 0
