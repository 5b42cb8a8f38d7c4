"""The memory of this machine or its container. The supervising process imports this: keep its imports small."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")


def machine_bytes(root: Path = _ROOT) -> int:
    """Return physical memory in bytes, or the smallest limit of this process's control groups (version 1 or 2).

    Args:
      root: of the file system that contains `proc` and `sys`.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _limits(root):
        try:
            most = min(most, int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return most


def _limits(root: Path) -> Iterator[Path]:
    """Yield the files that may contain a limit, of each of this process's groups and all their parents."""
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
