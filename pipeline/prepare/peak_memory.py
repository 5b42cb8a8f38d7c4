"""The peak of this process's memory while something runs. Linux kills a process that takes too much, it does not
raise: so what a call takes is measured on few rows before it is made on many."""

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
    """Return the memory of this process that is resident and in use; the peak so far if the system does not say."""
    _release_unused()
    return _field("VmRSS") or _peak_bytes()


def with_peak(work: Callable[[], Result]) -> tuple[Result, int]:
    """Calls, and returns its result and the most memory that was resident meanwhile, in bytes.

    Where the system cannot reset the peak (it is not Linux, or a sandbox forbids it), that is the peak since the
    process began: never less than what `work` took.
    """
    _release_unused()
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)
    result = work()
    return result, _peak_bytes()


def _release_unused() -> None:
    """Return memory that the allocators hold but do not use: a later call would take from it, and seem to take less."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _peak_bytes() -> int:
    return _field("VmHWM") or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _field(name: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE):
            return 1024 * int(found[1])
    return 0
