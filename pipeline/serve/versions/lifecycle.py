"""The versions of one model while the server answers: found, loaded beside those that answer, changed, ended."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.front.models import Model, Served, State
from beam_score.pipeline.serve.models.process import LoadFailed
from beam_score.pipeline.serve.versions.folders import LOOK_FAILS, Folder, inspect, version_folders
from beam_score.pipeline.serve.versions.golden import compare
from beam_score.pipeline.serve.versions.source import ModelSource
from beam_score.pipeline.serve.versions.trial import Observation, Trial

MOST_OTHERS = 100
"""Versions without a process that are reported."""

OLD_S = 60.0
"""A folder without a change for so many seconds is not being copied. Clocks of servers may differ by less."""

_log = logging.getLogger(__name__)


FIRST_RETRY_S, LAST_RETRY_S = 1.0, 600.0
"""Seconds after which a version is tried again if that may help; doubled with each try."""


@dataclasses.dataclass(frozen=True)
class _Failed:
    """A version that is not loaded.

    Attributes:
      mark: of its folder: it is tried again once that changes.
      error: why.
      wait_s: seconds until it is tried again in any case; None for never.
      until: the end of that time, by the monotonic clock.
    """

    mark: str
    error: str
    wait_s: float | None = None
    until: float = math.inf


@dataclasses.dataclass(frozen=True)
class _Loading:
    """A version that is being loaded."""

    number: int
    mark: str
    task: asyncio.Task[None]


class Lifecycle:
    """Keeps the versions of a model as its source says.

    Args:
      source: of the model.
      serve: makes a version that can be loaded, from its number and the path of its folder.
    """

    def __init__(self, source: ModelSource, serve: Callable[[int, str], Served]):
        self.source, self._serve = source, serve
        self.model = Model(source.name)
        self._found: Mapping[int, str] = {}  # of the last look that found anything
        self._seen: dict[int, tuple[str, float]] = {}  # versions that may be loaded: their marks, and since when
        self._failed: dict[int, _Failed] = {}
        self._loading: _Loading | None = None
        self._closing: dict[Served, asyncio.Task[None]] = {}
        self._wanted: list[int] = []  # by the policy
        self._previous: int | None = None
        self._trial: Trial | None = None  # of a version that has not taken over
        self._watched: Observation | None = None  # a version that has taken over
        self._awake, self._first = asyncio.Event(), asyncio.get_running_loop().create_future()
        self._noted = ""
        self._task = asyncio.create_task(self._run())

    async def started(self) -> None:
        """Wait until a version is available. Raises JobError if none can be."""
        await asyncio.shield(self._first)

    def change(self, source: ModelSource) -> None:
        """Keep the versions as another source of the same model says. Versions that have failed are tried again."""
        if source != self.source:
            self.source = source
            self._failed.clear()
        self.wake()

    def revert(self) -> str:
        """Go back at once to the version before, or give up the trial of a new one.

        Returns:
          a sentence on what has changed.

        Raises:
          JobError: no other version is loaded.
        """
        model = self.model
        bad = model.current if self._trial is None else self._trial.served.version.number
        rest = [number for number in model.available if number != bad]
        if bad is None or not rest:
            raise JobError([f"no other version of {model.name} is loaded: set serve.versions.policy, and send SIGHUP"])
        self._refuse(bad, f"version {bad} was reverted by hand")
        if model.current is None:
            self._switch(rest[0] if self._previous not in rest else self._previous)
        self.wake()
        return f"version {model.current} of {model.name} answers, in place of version {bad}"

    def wake(self) -> None:
        """Look at the folder now."""
        self._awake.set()

    async def close(self) -> None:
        """End all versions, once what they have accepted is answered."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._abandon()
        for number in list(self.model.versions):
            self._end(number, "")
        await asyncio.gather(*self._closing.values())

    async def _run(self) -> None:
        while True:
            self._awake.clear()
            try:
                await self._look()
            except Exception:
                _log.exception("%s: the look at its versions failed", self.model.name)
            poll = self.source.versions.poll
            retries = any(math.isfinite(failed.until) for failed in self._failed.values())
            watching = self._trial or self._watched
            settled = self._first.done() and not (self._loading or retries or watching)
            wait_s = (min(poll, 1.0) if watching else poll) or 1.0
            try:
                async with asyncio.timeout(None if settled and not poll else wait_s):
                    await self._awake.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        """Look at the folder, and take the next steps."""
        self._drop_failed()
        self._judge()
        found = await self._folders()
        if found:
            self._found = found
        chosen = self._wanted = await self._chosen()
        labelled = {*self.source.versions.labels.values()} - set(chosen)
        await self._step(chosen, [*chosen, *[n for n in sorted(labelled, reverse=True) if await self._usable(n)]])

    async def _folders(self) -> Mapping[int, str]:
        """Return the folders of versions. None at all are an accident, such as a mount that is missing."""
        path, problem = self.source.path, ""
        try:
            found: Mapping[int, str] = await asyncio.to_thread(version_folders, path)
            if not found:
                problem = f"{path} has no versions"
        except LOOK_FAILS as error:
            found, problem = {}, str(error)
        self._note(problem and f"{problem}: nothing changes")
        return found

    def _note(self, problem: str) -> None:
        """Log a problem once while it lasts."""
        if problem != self._noted and problem:
            _log.warning("%s: %s", self.model.name, problem)
        self._noted = problem

    async def _chosen(self) -> list[int]:
        """Return the versions that the policy wants and that are loaded, or can be, in descending order."""
        ((kind, of),) = self.source.versions.policy.items()
        chosen = list[int]()
        for number in sorted(self._found, reverse=True):
            if kind == "latest" and len(chosen) == of:
                break
            # A version that is not complete, or does not load, takes the place of no other.
            if (kind != "specific" or number in of) and await self._usable(number):
                chosen.append(number)
        return chosen

    async def _usable(self, number: int) -> bool:
        """Return whether a version is loaded, or can be: it is complete, and unchanged since the last look."""
        loading = self._loading if self._loading is not None and self._loading.number == number else None
        if number in self.model.versions and loading is None:
            return True  # even if its folder is gone: a label may name it
        if number not in self._found:
            return False
        try:
            folder = await asyncio.to_thread(inspect, self._found[number])
        except LOOK_FAILS as error:
            folder = Folder("", str(error), 0.0)
        if loading is not None and loading is self._loading:
            if folder.mark == loading.mark:
                return True
            await self._abandon()
        failed = self._failed.get(number)
        if failed is not None and failed.mark == folder.mark and time.monotonic() < failed.until:
            return False
        if failed is not None and failed.mark != folder.mark:
            del self._failed[number]
        problem = "" if folder.missing is None else f"not complete: {folder.missing}"
        self._report(number, State.START, problem)
        if not self._unchanged(number, folder):
            return False
        if problem:
            self._failed[number] = _Failed(folder.mark, f"version {number} is {problem}")
        return not problem

    def _unchanged(self, number: int, folder: Folder) -> bool:
        """Return whether a folder is as it was one look before. Two looks are not needed for one that is old, nor for a
        path that is a SavedModel itself."""
        now = time.monotonic()
        mark, since = self._seen.get(number, ("", 0.0))
        if mark != folder.mark:
            since = now
            self._seen[number] = folder.mark, now
        old = time.time() - folder.changed > OLD_S or self._found[number] == self.source.path
        return old or now - since >= (self.source.versions.poll or 1.0)

    def _report(self, number: int, state: State, error: str) -> None:
        others = self.model.others
        others.pop(number, None)
        others[number] = state, error
        for old in [old for old in others if old not in self._found][: max(0, len(others) - MOST_OTHERS)]:
            del others[old]

    def _drop_failed(self) -> None:
        """End the versions whose processes have died too often."""
        for number, served in list(self.model.versions.items()):
            if served.state == State.END:
                self._refuse(number, served.error)

    def _judge(self) -> None:
        """End a version that breaks the bounds of its trial, or does so soon after it has taken over."""
        for watched in filter(None, (self._trial, self._watched)):
            number, problem = watched.served.version.number, watched.problem()
            if self.model.versions.get(number) is not watched.served:
                problem = None  # it has ended
                self._forget(watched)
            elif problem and any(other != number for other in self.model.available):
                self._refuse(number, f"version {number} is reverted: {problem}")
            elif watched.over:
                self._forget(watched)

    def _forget(self, watched: Observation) -> None:
        if watched is self._trial:
            self._trial.end()
            self._trial = self.model.canary = None
        elif watched is self._watched:
            self._watched = None

    async def _step(self, chosen: list[int], kept: list[int]) -> None:
        """Take the next steps towards the wanted versions.

        Args:
          chosen: those of the policy, in descending order.
          kept: these, and those that labels name.
        """
        model = self.model
        if self._loading is not None and self._loading.number not in kept:
            await self._abandon()
        available = set(model.available)
        best = self._best(chosen, kept)
        if best is not None and best != model.current:
            self._switch(best)
        self._move_labels(available)
        missing = [number for number in kept if number not in model.versions]
        if missing and self._loading is None:
            self._load(missing[0])
        if best is None:
            waits = any(number in self._found and number not in self._failed for number in model.others)
            if not (missing or waits or self._loading or self._first.done()):
                self._first.set_exception(JobError(self._problems()))
            return
        if not self._first.done():
            self._first.set_result(None)
        held = {*kept, model.current, *model.labels.values()}
        if self.source.job.serve.rollout.keep_previous and self._previous in self._found:
            held.add(self._previous)
        for number in [number for number in model.versions if number not in held]:
            self._end(number, "")

    def _best(self, chosen: list[int], kept: list[int]) -> int | None:
        """Return the version that is to be the current one; None if none is available."""
        model = self.model
        current = None if model.current is None else model.versions[model.current]
        if current is not None and current.state == State.LOADING and model.current in chosen:
            return model.current  # its process is being replaced; meanwhile `Model.find` chooses another
        tried = None if self._trial is None else self._trial.served.version.number
        numbers = [number for number in (*chosen, *kept, *model.available) if number in model.available]
        return next((number for number in numbers if number != tried), next(iter(numbers), None))

    def _switch(self, number: int) -> None:
        """Make a version the current one: the next request goes to it."""
        model, rollout = self.model, self.source.job.serve.rollout
        old, model.current = model.current, number
        if old is not None and old in model.versions:
            self._previous = old
            if number > old:
                self._watched = Observation(model.versions[number], model.versions[old], rollout)
        _log.info("%s: version %d answers%s", model.name, number, "" if old is None else f", in place of version {old}")

    def _move_labels(self, available: set[int]) -> None:
        """Let each label name its version once that is available."""
        before, asked = self.model.labels, self.source.versions.labels
        now = {label: number if number in available else before.get(label) for label, number in asked.items()}
        self.model.labels = {label: number for label, number in now.items() if number is not None}

    def _load(self, number: int) -> None:
        """Begin to load a version, in a process of its own."""
        served = self._serve(number, self._found[number])
        served.on_end = self.wake
        self.model.versions[number] = served
        self.model.others.pop(number, None)
        _log.info("%s: version %d is being loaded", self.model.name, number)
        self._loading = _Loading(number, self._seen[number][0], asyncio.create_task(self._loaded(served)))

    async def _loaded(self, served: Served) -> None:
        number, began = served.version.number, time.monotonic()
        try:
            await served.start(self._try)
        except LoadFailed as error:
            self._loading = None
            before = self._failed.get(number)
            wait_s = min(2 * before.wait_s, LAST_RETRY_S) if before and before.wait_s else FIRST_RETRY_S
            self._refuse(number, str(error), wait_s if error.passing else None)
        else:
            self._loading = None
            self._failed.pop(number, None)
            _log.info("%s: version %d is loaded, in %.1f s", self.model.name, number, time.monotonic() - began)
        self.wake()

    async def _try(self, served: Served) -> None:
        """Try a version that is loaded on the golden rows, and begin its trial. Raises LoadFailed."""
        model, rollout = self.model, self.source.job.serve.rollout
        old = None if model.current is None else model.versions.get(model.current)
        await compare(self.source.job, served, old)
        number = served.version.number
        follows = old is not None and number in self._wanted and number > old.version.number
        if old is not None and follows and (rollout.canary or rollout.shadow):
            shadows = model.shadows.setdefault(number, Counter())
            self._trial = model.canary = Trial(served, old, rollout, shadows)

    async def _abandon(self) -> None:
        """Stop loading a version."""
        if self._loading is not None:
            loading, self._loading = self._loading, None
            loading.task.cancel()
            await asyncio.gather(loading.task, return_exceptions=True)
            self._end(loading.number, "")

    def _refuse(self, number: int, error: str, wait_s: float | None = None) -> None:
        """End a version, and do not try it again before its folder changes, or some seconds have passed."""
        _log.error("%s: %s", self.model.name, error)
        until = math.inf if wait_s is None else time.monotonic() + wait_s
        self._failed[number] = _Failed(self._seen[number][0], error, wait_s, until)
        self._end(number, error)

    def _end(self, number: int, error: str) -> None:
        """End a version once what it has accepted is answered."""
        served = self.model.versions.pop(number)
        for watched in (self._trial, self._watched):
            if watched is not None and watched.served is served:
                self._forget(watched)
        self._seen.pop(number, None)
        if self.model.current == number:
            self.model.current = None
        self._report(number, State.UNLOADING, error)
        self._closing[served] = asyncio.create_task(self._close(served, error))

    async def _close(self, served: Served, error: str) -> None:
        number = served.version.number
        await served.close()
        if self.model.others.get(number, (None,))[0] == State.UNLOADING:
            self._report(number, State.END, error)
        del self._closing[served]

    def _problems(self) -> list[str]:
        """Return why no version is available."""
        if self._failed:
            return [f"{self.model.name}: {failed.error}" for failed in self._failed.values()]
        return [f"model.path: {self._noted}"]
