"""The versions of a model that can be loaded, as far as its folder has been looked at."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping

from beam_score.pipeline.serve.versions.folders import LOOK_FAILS, Folder, inspect, version_folders

OLD_S = 60.0
"""A folder without a change for so many seconds is not being copied. Clocks of servers may differ by less."""

FIRST_RETRY_S, LAST_RETRY_S = 1.0, 600.0
"""Seconds after which a version is tried again if that may help; doubled with each try."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Refused:
    """A version that is not loaded.

    Attributes:
      mark: of its folder: it may be tried again once that changes.
      error: why.
      wait_s: seconds until it may be tried again in any case.
      until: the end of that time, by the monotonic clock.
    """

    mark: str
    error: str
    wait_s: float
    until: float


class Candidates:
    """The versions that there are, and which of them can be loaded.

    Args:
      name: of the model, for the log.
      report: called with a version that waits, and with what is missing from it.

    Attributes:
      found: the folders of versions, by number, of the last look that found any.
      problem: why the last look found none.
    """

    def __init__(self, name: str, report: Callable[[int, str], None]):
        self._name, self._report = name, report
        self.found: Mapping[int, str] = {}
        self.problem = ""
        self._path, self._gap_s = "", 1.0
        self._seen: dict[int, tuple[str, float]] = {}  # the mark of each folder, and since when
        self._refused: dict[int, _Refused] = {}
        self._before: dict[int, _Refused] = {}  # the refusals of versions that have been loaded since

    async def look(self, path: str, poll: float, loaded: set[int]) -> None:
        """Look which versions there are. None at all are an accident, such as a mount that is missing: then nothing
        changes.

        Args:
          path: of the versions, or of a SavedModel.
          poll: seconds between two looks; 0 if there is only one.
          loaded: versions that are.
        """
        self._path, self._gap_s, before = path, poll or 1.0, self.problem
        try:
            found: Mapping[int, str] = await asyncio.to_thread(version_folders, path)
            self.problem = "" if found else f"{path} has no versions"
        except LOOK_FAILS as error:
            found, self.problem = {}, str(error)
        if self.problem and self.problem != before:
            _log.warning("%s: %s: nothing changes", self._name, self.problem)
        if found:
            self.found, known = found, found.keys() | loaded
            self._refused = {number: refused for number, refused in self._refused.items() if number in known}
            self._before = {number: refused for number, refused in self._before.items() if number in known}
            self._seen = {number: seen for number, seen in self._seen.items() if number in known}

    async def inspect(self, number: int) -> Folder:
        """Return the folder of a version that was found, as it is now."""
        try:
            return await asyncio.to_thread(inspect, self.found[number])
        except LOOK_FAILS as error:
            return Folder("", str(error), 0.0)

    def is_ready(self, number: int, folder: Folder) -> bool:
        """Return whether a version can be loaded: it is complete, unchanged since the last look, and not refused."""
        if number in self._refused and self._refused[number].mark != folder.mark:
            del self._refused[number]
        if self.is_refused(number):
            return False
        problem = "" if folder.missing is None else f"not complete: {folder.missing}"
        self._report(number, problem)
        if not self._is_unchanged(number, folder):
            return False
        if problem:
            self.refuse(number, f"version {number} is {problem}")
        return not problem

    def _is_unchanged(self, number: int, folder: Folder) -> bool:
        """Return whether a folder is as it was one look before. Two looks are not needed for one that is old, nor for a
        path that is a SavedModel itself."""
        now = time.monotonic()
        if self._seen.get(number, (None,))[0] != folder.mark:
            self._seen[number] = folder.mark, now
        old = time.time() - folder.changed > OLD_S or self.found[number] == self._path
        return old or now - self._seen[number][1] >= self._gap_s

    def mark(self, number: int) -> str | None:
        """Return the mark of a version that can be loaded; None if it cannot, or no longer."""
        return None if self.is_refused(number) or number not in self._seen else self._seen[number][0]

    def refuse(self, number: int, error: str, passing: bool = False) -> None:
        """Do not load a version before its folder changes.

        Args:
          error: why.
          passing: whether it may be tried again before, after a while that grows.
        """
        now, wait_s = time.monotonic(), math.inf
        if passing:
            before = self._refused.get(number) or self._before.get(number)
            again = before is not None and math.isfinite(before.wait_s) and now - before.until < LAST_RETRY_S
            wait_s = min(2 * before.wait_s, LAST_RETRY_S) if before is not None and again else FIRST_RETRY_S
        self._refused[number] = _Refused(self._seen[number][0], error, wait_s, now + wait_s)

    def is_refused(self, number: int) -> bool:
        """Return whether a version is not to be loaded."""
        return number in self._refused and time.monotonic() < self._refused[number].until

    def forgive(self) -> None:
        """Let all versions be loaded that were refused."""
        self._refused, self._before = {}, {}

    def succeed(self, number: int) -> None:
        """Forget why a version was refused, which is loaded now; if it soon dies, it waits for longer than before."""
        if number in self._refused:
            self._before[number] = self._refused.pop(number)

    def forget(self, number: int) -> None:
        """Look twice again before a version is loaded."""
        self._seen.pop(number, None)

    @property
    def retries(self) -> bool:
        """True while a version is to be tried again after some time."""
        return any(math.isfinite(refused.wait_s) for refused in self._refused.values())

    @property
    def problems(self) -> list[str]:
        """Why no version can be loaded."""
        errors = [f"{self._name}: {refused.error}" for refused in self._refused.values()]
        return errors or [f"model.path: {self.problem}"]
