"""Disks that record, kill, stop and fail: stand-ins for `transforms.durable.disk.Disk`, all of them making the real
calls.

A step is a call and the role of its file: "receipt.link", "part.fsync". Files first written under a hidden name are
called after their purpose: "manifest draft.write", and files removed under a hidden name "doomed receipt.unlink".
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
from beam_score.transforms.durable.on_disk import TEMPORARY

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
    """Return the role of a path in the protocol."""
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
        """Called before a call is made; an exception raised here is raised by the call.

        Args:
          changes: whether the call changes anything on the disk.
          path: the path of the call; None for an open file.
        """

    def after(self, step: str) -> None:
        """Called after a call was made, whether or not it failed."""

    def open(self, path: Path, flags: int) -> int:
        descriptor = self._around("open", path, path, bool(flags & os.O_CREAT), path, flags)
        self._open[descriptor] = path
        return descriptor

    def close(self, descriptor: int) -> None:
        # The system closes the file even if it reports an error.
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
    """Logs the steps that change something, one line each, when they begin.

    Args:
      log: the log file.
    """

    def __init__(self, output: str, log: str):
        super().__init__(output)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def before(self, step: str, changes: bool, path: Path | None) -> None:
        if changes:
            os.write(self._log, f"{step}\n".encode())


class SignalAt(Watched):
    """Sends a signal to its own process at a step.

    Args:
      step: name of the step.
      occurrence: occurrence of the step; 1 for the first.
      when: `before` the call is made, or `after`.
      number: of the signal: SIGKILL, SIGSTOP.
      marker: a file created just before the signal; if it exists, no signal is sent.
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
    """Fails the n-th of all calls only, or all calls that need disk space from it on.

    Args:
      call: number of the call, from 1.
      errno: the error of the call.
      for_ever: whether all later calls that need disk space also fail, as on a full disk.

    Attributes:
      call, errno: the arguments.
      calls: number of calls made.
      failed: the step that failed; None if fewer calls were made.
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
    """Return a disk of this module, from the name of its class and the arguments of its constructor."""
    return {c.__name__: c for c in (Recording, SignalAt, FailingAt)}[kind](**settings)
