"""Disks that see, kill, stop and fail: stand-ins for `transforms.durable.disk.Disk`, the real calls behind all of them.

A step is a call and what it is made on: "receipt.link", "part.fsync". What is made under a hidden name first is
called by what it is for: "manifest draft.write", and what is removed under one "doomed receipt.unlink".
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_score.transforms.durable.disk import Disk
from beam_score.transforms.durable.storage import TEMPORARY

_CHANGING = ("write", "fsync", "link", "rename", "unlink", "mkdir", "rmdir")

_HIDDEN = re.compile(rf"\.(.+)\.[0-9a-f]{{12}}{re.escape(TEMPORARY)}")
_ROLES = {
    r"(?:_staging/[^/]+/)?(manifest|failed)\.json": r"\1",
    r"(predictions|rejected)": r"\1 folder",
    r"(predictions|rejected)/[^/]+": r"\1",
    r"_staging": "staging",
    r"_staging/current\.json": "current",
    r"_staging/launches": "launches folder",
    r"_staging/launches/[^/]+": "launch",
    r"_staging/[^/]+": "run folder",
    r"_staging/[^/]+/plan\.json": "plan",
    r"_staging/[^/]+/commit-\d+\.json": "verdict",
    r"_staging/[^/]+/(plan|parts|receipts)": r"\1 folder",
    r"_staging/[^/]+/plan/[^/]+": "shard",
    r"_staging/[^/]+/parts/[^/]+": "part",
    r"_staging/[^/]+/receipts/[^/]+": "receipt",
}


def role(path: Path, output: Path) -> str:
    """What a path is to the protocol."""
    if path == output:
        return "output"
    if not path.is_relative_to(output):
        return "elsewhere"
    names = path.relative_to(output).parts
    plain = [hidden[1] if (hidden := _HIDDEN.fullmatch(name)) else name for name in names]
    if plain[-1] == "probe":
        return "probe"  # see `transforms.durable.disk_probe`
    for pattern, found in _ROLES.items():
        if match := re.fullmatch(pattern, "/".join(plain)):
            found = match.expand(found)
            doomed = len(names) > 1 and names[1] != plain[1] and not plain[1].endswith(".json")
            if names[0] == "_staging" and doomed:
                return f"doomed {found}"
            return found if names[-1] == plain[-1] else f"{found} draft"
    return "unknown"


class Watched(Disk):
    """Calls `before` and `after` with the step, and the path, around every call.

    Args:
      output: the output folder of the job.
    """

    at_once = 1  # the same order every time

    def __init__(self, output: str):
        self._output = Path(output)
        self._open: dict[int, Path] = {}

    def before(self, step: str, changes: bool, path: Path | None) -> None:
        """Called before a call is made; what it raises, the call raises.

        Args:
          changes: whether the call changes anything on the disk.
          path: that it is made with; None for an open file.
        """

    def after(self, step: str) -> None:
        """Called after a call was made, whatever the system said."""

    def open(self, path: Path, flags: int) -> int:
        descriptor = self._around("open", path, path, bool(flags & os.O_CREAT), path, flags)
        self._open[descriptor] = path
        return descriptor

    def close(self, descriptor: int) -> None:
        # Whatever it says of it, the system closes the file.
        path = self._open.pop(descriptor)
        super().close(descriptor)
        self.before(self._step("close", path), False, None)
        self.after(self._step("close", path))

    def _step(self, call: str, path: Path) -> str:
        return f"{role(Path(path), self._output)}.{call}"

    def _around(self, call: str, of: Path, path: Path | None, changes: bool, *arguments: Any) -> Any:
        step = self._step(call, of)
        self.before(step, changes, path)
        try:
            return getattr(Disk, call)(self, *arguments)
        finally:
            self.after(step)


def _on_descriptor(call: str) -> Callable:
    return lambda self, descriptor, *arguments: self._around(
        call, self._open[descriptor], None, call in _CHANGING, descriptor, *arguments
    )


def _on_paths(call: str) -> Callable:
    return lambda self, *paths: self._around(call, paths[-1], paths[-1], call in _CHANGING, *paths)


for _call in ("read", "write", "fsync", "inode", "lock"):
    setattr(Watched, _call, _on_descriptor(_call))
for _call in ("link", "rename", "unlink", "mkdir", "rmdir", "names", "stat"):
    setattr(Watched, _call, _on_paths(_call))


class Recording(Watched):
    """Writes down the steps that change something, a line each, as they are begun.

    Args:
      log: the file for them.
    """

    def __init__(self, output: str, log: str):
        super().__init__(output)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def before(self, step: str, changes: bool, path: Path | None) -> None:
        if changes:
            os.write(self._log, f"{step}\n".encode())


class SignalAt(Watched):
    """Sends its own process a signal at a step.

    Args:
      step: its name.
      occurrence: which one of that name; 1 for the first.
      when: `before` the call is made, or `after`.
      number: of the signal: SIGKILL, SIGSTOP.
      marker: a file that is made when it is about to happen; once there, it happens no more.
    """

    def __init__(self, output: str, step: str, marker: str, occurrence: int = 1, when: str = "before", number: int = 9):
        super().__init__(output)
        self._at, self._left, self._when = step, occurrence, when
        self._number, self._marker = number, Path(marker)
        self._counting = threading.Lock()

    def before(self, step: str, changes: bool, path: Path | None) -> None:
        self._count(step, "before")

    def after(self, step: str) -> None:
        self._count(step, "after")

    def _count(self, step: str, when: str) -> None:
        if (step, when) != (self._at, self._when):
            return
        with self._counting:
            self._left -= 1
            if self._left == 0:
                self._marker.touch()
                os.kill(os.getpid(), self._number)
                time.sleep(0.05)  # a stop reaches the other threads first


class FailingAt(Watched):
    """Fails the n-th call of all, and that one only; or all those that need room from it on.

    Args:
      call: which one, from 1.
      errno: what it fails with.
      for_ever: whether all later calls that need room fail too, as on a full disk.

    Attributes:
      call, errno: as they were given.
      calls: how many were made.
      failed: the step that failed; None where there were not so many calls.
    """

    def __init__(self, output: str, call: int, errno: int, for_ever: bool = False):
        super().__init__(output)
        self.call, self.errno, self._for_ever = call, errno, for_ever
        self._counting = threading.Lock()
        self.calls = 0
        self.failed: str | None = None

    def before(self, step: str, changes: bool, path: Path | None) -> None:
        with self._counting:
            self.calls += 1
            needs_room = changes and not step.endswith((".unlink", ".rmdir"))
            if self.calls == self.call or (self._for_ever and self.calls > self.call and needs_room):
                self.failed = self.failed or step
                raise OSError(self.errno, os.strerror(self.errno), *([] if path is None else [str(path)]))


def make(kind: str, **settings: Any) -> Disk:
    """A disk of this module, by the name of its class, and what its constructor takes."""
    return {c.__name__: c for c in (Recording, SignalAt, FailingAt)}[kind](**settings)
