"""The memory of this machine, or of the container where that is less. Light: the process that watches imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def machine_bytes(root: Path = _ROOT) -> int:
    """Physical memory, or the least limit of the control groups (version 1 or 2) that this process is in.

    Args:
      root: of the file system that holds `proc` and `sys`.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _limits(root):
        try:
            most = min(most, int(path.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return most


def _limits(root: Path) -> Iterator[Path]:
    """The files that may hold a limit: of each group that this process is in, and of all groups above it."""
    mount = root / "sys/fs/cgroup"
    yield mount / "memory.max"  # in a container the own group is the root
    yield mount / "memory/memory.limit_in_bytes"
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers not in ("", "memory"):
            continue
        of, name = (mount / "memory", "memory.limit_in_bytes") if controllers else (mount, "memory.max")
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts), 0, -1):
            if ".." not in parts[:depth]:
                yield of.joinpath(*parts[:depth]) / name
