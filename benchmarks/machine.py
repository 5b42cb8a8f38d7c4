"""The machine of a measurement, for its report."""

from __future__ import annotations

import os
import pathlib
import platform
import re

_CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe() -> str:
    """Return a line with cores, processor, caches, memory, system, Python, and the load at this time."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    parts = [
        f"{cores()} cores of {_processor()}",
        f"caches {_caches() or 'unknown'}",
        f"{_memory_gib():.0f} GiB of memory",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"load average {load}",
    ]
    return ", ".join(parts)


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _caches() -> str:
    """Return level, kind and size of the caches of the first core, for example "L1 Data 32K, L2 Unified 512K"."""
    told = []
    for cache in sorted(_CACHES.glob("index*")):
        level, kind, size = ((cache / name).read_text().strip() for name in ("level", "type", "size"))
        told.append(f"L{level} {kind} {size}")
    return ", ".join(told)


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
