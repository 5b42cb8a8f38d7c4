"""The versions of one model while the server answers: found, loaded beside those that answer, changed, ended."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.front.models import Model, Served, State
from beam_score.pipeline.serve.models.process import LoadFailed
from beam_score.pipeline.serve.versions.candidates import Candidates
from beam_score.pipeline.serve.versions.golden import compare
from beam_score.pipeline.serve.versions.source import ModelSource
from beam_score.pipeline.serve.versions.trial import Observation, Trial

MOST_OTHERS = 100
"""Versions without a process that are reported."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Loading:
    """A version that is being loaded."""

    number: int
    mark: str | None
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
        self._candidates = Candidates(source.name, functools.partial(self._report, State.START))
        self._loading: _Loading | None = None
        self._closing: dict[Served, asyncio.Task[None]] = {}
        self._wanted: list[int] = []  # by the policy
        self._previous: int | None = None
        self._trial: Trial | None = None  # of a version that has not taken over
        self._watched: Observation | None = None  # a version that has taken over
        self._awake, self._first = asyncio.Event(), asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    async def started(self) -> None:
        """Wait until a version is available. Raises JobError if none can be."""
        await asyncio.shield(self._first)

    def change(self, source: ModelSource) -> None:
        """Keep the versions as another source of the same model says. Versions that have failed are tried again."""
        if source != self.source:
            self.source = source
            self._candidates.forgive()
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
            watching = self._trial or self._watched
            settled = self._first.done() and not (self._loading or self._candidates.retries or watching)
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
        await self._candidates.look(self.source.path, self.source.versions.poll, set(self.model.versions))
        for number, (state, _) in list(self.model.others.items()):
            if state == State.START and number not in self._candidates.found:
                del self.model.others[number]
        for number in self.model.shadows.keys() - set(self.model.numbers):
            del self.model.shadows[number]
        chosen = self._wanted = await self._chosen()
        labelled = sorted({*self.source.versions.labels.values()} - set(chosen), reverse=True)
        # A label keeps its version, even if its folder is gone.
        pinned = [number for number in labelled if self._is_loaded(number) or await self._usable(number)]
        await self._step(chosen, [*chosen, *pinned])

    def _is_loaded(self, number: int) -> bool:
        return number in self.model.versions and (self._loading is None or self._loading.number != number)

    async def _chosen(self) -> list[int]:
        """Return the versions that the policy wants and that are loaded, or can be, in descending order."""
        ((kind, of),) = self.source.versions.policy.items()
        chosen = list[int]()
        for number in sorted(self._candidates.found, reverse=True):
            if kind == "latest" and len(chosen) == of:
                break
            # A version that is not complete, or does not load, takes the place of no other.
            if (kind != "specific" or number in of) and await self._usable(number):
                chosen.append(number)
        return chosen

    async def _usable(self, number: int) -> bool:
        """Return whether a version is loaded, or can be: it is complete, and unchanged since the last look."""
        if self._is_loaded(number):
            return not self._candidates.is_refused(number)
        if number not in self._candidates.found:
            return False
        loading = self._loading if number in self.model.versions else None
        folder = await self._candidates.inspect(number)
        if loading is not None and loading is self._loading:
            if folder.mark == loading.mark:
                return True
            await self._abandon()
        return self._candidates.is_ready(number, folder)

    def _report(self, state: State, number: int, error: str) -> None:
        """Report a version without a process."""
        others = self.model.others
        others.pop(number, None)
        others[number] = state, error
        for old in [old for old in others if old not in self._candidates.found][: max(0, len(others) - MOST_OTHERS)]:
            del others[old]

    def _drop_failed(self) -> None:
        """End the versions whose processes have died too often."""
        for number, served in list(self.model.versions.items()):
            if served.state == State.END:
                self._refuse(number, served.error, passing=True)

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
                kept = "%s: version %d has kept its bounds for %g s"
                _log.info(kept, self.model.name, number, watched.rollout.hold)
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
        # Since the look, a version may have been refused.
        missing = [n for n in kept if n not in model.versions and self._candidates.mark(n) is not None]
        if missing and self._loading is None:
            self._load(missing[0])
        if best is None:
            waits = any(
                state == State.START and not self._candidates.is_refused(n) for n, (state, _) in model.others.items()
            )
            if not (missing or waits or self._loading or self._first.done()):
                self._first.set_exception(JobError(self._candidates.problems))
            return
        if not self._first.done():
            self._first.set_result(None)
        if best not in available:
            return  # another answers while its process is replaced
        held = {*kept, model.current, *model.labels.values()}
        if self.source.job.serve.rollout.keep_previous and self._previous in self._candidates.found:
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
        available = model.available
        numbers = [number for number in (*chosen, *kept, *available) if number in available]
        return min(numbers, key=lambda number: (self._candidates.is_refused(number), number == tried), default=None)

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
        served = self._serve(number, self._candidates.found[number])
        served.on_end = self.wake
        self.model.versions[number] = served
        self.model.others.pop(number, None)
        _log.info("%s: version %d is being loaded", self.model.name, number)
        self._loading = _Loading(number, self._candidates.mark(number), asyncio.create_task(self._loaded(served)))

    async def _loaded(self, served: Served) -> None:
        number, began = served.version.number, time.monotonic()
        try:
            await served.start(self._try)
        except LoadFailed as error:
            self._loading = None
            self._refuse(number, str(error), error.passing)
        else:
            self._loading = None
            self._candidates.succeed(number)
            took = f"in {time.monotonic() - began:.1f} s"
            _log.info("%s: version %d is loaded, %s", self.model.name, number, "; ".join((took, *served.notes)))
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
            begins = "%s: version %d answers %g%% of the requests and copies of %g%%, for %g s"
            _log.info(begins, model.name, number, 100 * rollout.canary, 100 * rollout.shadow, rollout.hold)

    async def _abandon(self) -> None:
        """Stop loading a version."""
        if self._loading is not None:
            loading, self._loading = self._loading, None
            loading.task.cancel()
            await asyncio.gather(loading.task, return_exceptions=True)
            self._end(loading.number, "")

    def _refuse(self, number: int, error: str, passing: bool = False) -> None:
        """End a version, and do not try it again; see `Candidates.refuse`. If a label names it, it still answers
        requests for that label."""
        _log.error("%s: %s", self.model.name, error)
        self._candidates.refuse(number, error, passing)
        served = self.model.versions[number]
        if number in self.model.labels.values() and served.state == State.AVAILABLE:
            served.error = error
            self._set_aside(served)
        else:
            self._end(number, error)

    def _set_aside(self, served: Served) -> None:
        """Send a version no more requests that name none."""
        for watched in (self._trial, self._watched):
            if watched is not None and watched.served is served:
                self._forget(watched)
        if self.model.current == served.version.number:
            self.model.current = None

    def _end(self, number: int, error: str) -> None:
        """End a version once what it has accepted is answered."""
        served = self.model.versions.pop(number)
        self._set_aside(served)
        self._candidates.forget(number)
        self._report(State.UNLOADING, number, error)
        self._closing[served] = asyncio.create_task(self._close(served, error))

    async def _close(self, served: Served, error: str) -> None:
        number = served.version.number
        await served.close()
        if self.model.others.get(number, (None,))[0] == State.UNLOADING:
            self._report(State.END, number, error)
        del self._closing[served]
