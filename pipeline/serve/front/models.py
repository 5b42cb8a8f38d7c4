"""The models that are served, their versions, and the way to each."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.front.metadata import status, v2_metadata
from beam_score.pipeline.serve.front.requests import Refusal
from beam_score.pipeline.serve.models.admission import Pace
from beam_score.pipeline.serve.models.deadlines import Deadlines
from beam_score.pipeline.serve.models.process import (
    Done,
    LoadDied,
    LoadFailed,
    ModelProcess,
    ProcessDied,
    Version,
    how,
    into,
)
from beam_score.pipeline.serve.models.queue import Batches, Waiting
from beam_score.pipeline.serve.reports.accounts import Account, Accounts


class State(enum.StrEnum):
    """The state of a version, in the words of TensorFlow Serving."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


MOST_DEATHS, DEATHS_WITHIN_S = 3, 60.0
"""A version whose process dies so often within so many seconds, or fails to load again, ends, and is loaded again after
a while."""

RELOAD_S = 1.0
"""Seconds until a version is loaded again that could not be."""

_log = logging.getLogger(__name__)


class NoSuchModel(Exception):
    """A model or version that is not served. Args: a sentence."""


class Served:
    """A version that answers, and ends once nobody holds it. If its process dies, another takes its place.

    Args:
      load: starts a process and loads a version.
      version: that it loads.
      account: of its rows.
      hangs_s: seconds after which a process that has not answered a batch is replaced.
      window_s: see `Batches`.

    Attributes:
      metadata, notes: see `ModelProcess`.
      state, error: in which state it is, and why it has ended.
      load_s: seconds that it took to load.
      on_end: called when it ends by itself.
      observer: called with each request that had a place in a batch, and its answer.
      head: lines of the headers of its answers; empty before it has been loaded.
    """

    def __init__(
        self,
        load: Callable[[Version], Awaitable[ModelProcess]],
        version: Version,
        account: Account,
        hangs_s: float,
        window_s: float = 0.0,
    ):
        self._hangs_s = hangs_s
        self.version, self.account = version, account
        self.metadata: Mapping[str, Any] = {}
        self.notes: Sequence[str] = ()
        self.state, self.error, self.load_s = State.LOADING, "", 0.0
        self.on_end: Callable[[], None] = lambda: None
        self.observer: Callable[[Request, Answer], None] | None = None
        self._users, self._unused = 0, asyncio.Event()
        self._load = load
        self._process: ModelProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._window_s = window_s
        self._batches: Batches  # once it is known how many rows a batch may have
        self._pace: Pace
        self._deadlines = Deadlines(self._expire)
        self.head = b""

    def hold(self) -> None:
        """Keep the version from ending until `release`."""
        self._users += 1

    def release(self) -> None:
        """Let the version end; see `hold`."""
        self._users -= 1
        if not self._users:
            self._unused.set()

    @property
    def v2_metadata(self) -> dict[str, Any]:
        """The metadata of the Open Inference Protocol: of the signature that is meant if a request names none."""
        return v2_metadata(self.version.name, self.version.number, self.metadata)

    async def start(self, trial: Callable[[Served], Awaitable[None]] | None = None) -> None:
        """Load the version.

        Args:
          trial: of the loaded version, before it is available. Raises LoadFailed.

        Raises:
          LoadFailed: with the reason.
        """
        began = time.perf_counter()
        process = self._process = await self._load(self.version)
        self.load_s = time.perf_counter() - began
        self.version, self.metadata, self.notes = process.version, process.metadata, process.notes
        most_rows = self.version.batch_rows or 1
        self._batches = Batches(self._call, self.account.batch_rows.add, self._end, most_rows, self._window_s)
        self._pace = Pace(most_rows)
        if trial is not None:
            await trial(self)
        name, number, sha256 = self.version.name, self.version.number, self.version.sha256
        self.head = f"x-model-name: {name}\r\nx-model-version: {number}\r\nx-model-sha256: {sha256}\r\n".encode()
        self.state = State.AVAILABLE
        self._watching = asyncio.create_task(self._watch(process))

    async def _watch(self, process: ModelProcess) -> None:
        """Load the version again whenever its process dies, also while it loads, unless it dies again and again."""
        deaths: collections.deque[float] = collections.deque(maxlen=MOST_DEATHS)
        while True:
            code = await process.ended()
            self.state, self._process = State.LOADING, None
            name, number = self.version.name, self.version.number
            _log.error("the process of version %d of %s has ended with %s", number, name, how(code))
            problem = f"its process has died {MOST_DEATHS} times within {DEATHS_WITHIN_S:g} s"
            while self._process is None:
                deaths.append(time.monotonic())
                if len(deaths) == MOST_DEATHS and deaths[-1] - deaths[0] < DEATHS_WITHIN_S:
                    self._fail(problem)
                    return
                try:
                    process = self._process = await self._load(self.version)
                except LoadFailed as error:
                    _log.error("%s: %s", name, error)
                    if not isinstance(error, LoadDied):  # its folder may be away for a moment
                        problem = f"it does not load again: {error}"
                        await asyncio.sleep(RELOAD_S)
            self.state = State.AVAILABLE

    def _fail(self, error: str) -> None:
        """End for good: another `Served` may load the version after a while."""
        self.state, self.error = State.END, error
        _log.error("version %d of %s has ended: %s", self.version.number, self.version.name, error)
        self.on_end()

    def _call(self, batch: Sequence[Request], rows: int, done: Done) -> None:
        """Answer a batch of some rows; see `ModelProcess.answer`."""
        loop, process, began = asyncio.get_running_loop(), self._process, time.perf_counter()
        if process is None:
            loop.call_soon(done, None)
            return

        def answered(answers: Sequence[Answer] | None) -> None:
            timer.cancel()
            if answers is not None:
                self._pace.note(rows, began, time.perf_counter())
            done(answers)

        process.answer(batch, answered)
        timer = loop.call_later(self._hangs_s, self._replace, process)

    def _replace(self, process: ModelProcess) -> None:
        _log.error("%s: no answer within %g s: its process is replaced", self.version.name, self._hangs_s)
        process.kill()

    async def close(self) -> None:
        """Answer no new requests, and end the process once everybody who uses the version is answered."""
        self.state = State.UNLOADING
        if self._watching is not None:
            self._watching.cancel()
        while self._users:
            self._unused.clear()
            await self._unused.wait()
        if self._process is not None:
            try:
                async with asyncio.timeout(self._hangs_s):
                    await self._process.close()
            except TimeoutError:
                self._process.kill()
        self.state = State.END

    async def ask(self, request: Request) -> Answer:
        """Return the answer of the process, without an account of it. Raises ProcessDied."""
        future: asyncio.Future[Sequence[Answer] | None] = asyncio.get_running_loop().create_future()
        self._call([request], request.count_rows(), into(future))
        if (answers := await future) is None:
            raise ProcessDied
        return answers[0]

    async def answer(self, request: Request, seconds: float, protocol: str) -> Answer:
        """Return the answer to a request; see `submit`."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.hold()
        waiting = self.submit(request, seconds, protocol, into(future))
        try:
            return await future
        finally:
            self.drop(waiting)
            self.release()

    def submit(self, request: Request, seconds: float, protocol: str, done: Callable[[Answer], object]) -> Waiting:
        """Answer a request, or say that it is late, and keep the account of its rows.

        Args:
          seconds: until it is late.
          protocol: `rest` or `grpc`.
          done: called with the answer, once, maybe before this returns.
        """
        began, rows = time.perf_counter(), request.count_rows()
        waiting = Waiting(request, rows, protocol, began, began + seconds, done)
        self.account.begin()
        if (late := self._pace.wait_s(rows) - seconds) > 0:
            message = f"it would take longer than {seconds:g} s: too many rows are ahead"
            shed = dataclasses.replace(refusal(503, message, request.id, shed=True), retry_s=math.ceil(late))
            waiting.done = None
            self.account.end(request, shed, protocol, time.perf_counter() - began)
            done(shed)
            return waiting
        self._pace.rows += rows
        self._deadlines.add(waiting)
        self._batches.add(waiting)
        return waiting

    def drop(self, waiting: Waiting) -> None:
        """Answer a request no more, if it is not answered yet: its client has gone."""
        if waiting.done is not None:
            self._count(waiting, refusal(499, "the client has gone", waiting.request.id, shed=True))

    def _expire(self, waiting: Waiting) -> None:
        message = f"there was no answer within {waiting.until - waiting.began:g} s"
        self._end(waiting, refusal(504, message, waiting.request.id, shed=True))

    def _end(self, waiting: Waiting, answer: Answer) -> None:
        """Answer a request, unless that has been done."""
        if (done := waiting.done) is None:
            return
        try:
            self._count(waiting, answer)
            if self.observer is not None:
                self.observer(waiting.request, answer)
        finally:
            done(answer)

    def _count(self, waiting: Waiting, answer: Answer) -> None:
        waiting.done = None
        self._deadlines.discard(waiting)
        self._pace.rows -= waiting.rows
        self.account.end(waiting.request, answer, waiting.protocol, time.perf_counter() - waiting.began)

    def refuse(self, status: int, request: Request, protocol: str) -> None:
        """Take a request into account that is refused before its rows are known."""
        self.account.begin()
        self.account.end(request, Answer(status, b"", shed=status >= 499), protocol, 0.0)


class Canary(Protocol):
    """A version that answers a share of the requests."""

    served: Served

    def takes(self, id_: str) -> bool:
        """Return whether it answers the request with an id."""


class Model:
    """A model: its versions, and which of them is meant.

    Attributes:
      name: in paths.
      versions: those with a process, by number.
      others: state and error of those without one.
      labels: names of versions.
      current: the version that is meant if a request names none; None before the first is available.
      canary: a version that answers a share of these requests; None for none.
      shadows: the results of copies of requests, by version.
    """

    def __init__(self, name: str):
        self.name = name
        self.versions: dict[int, Served] = {}
        self.others: dict[int, tuple[State, str]] = {}
        self.labels: Mapping[str, int] = {}
        self.current: int | None = None
        self.canary: Canary | None = None
        self.shadows: dict[int, Counter[str]] = {}

    @property
    def available(self) -> list[int]:
        """The versions that answer, in descending order."""
        return sorted((n for n, one in self.versions.items() if one.state == State.AVAILABLE), reverse=True)

    def find(self, version: int | None, id_: str = "") -> Served | None:
        """Return a version that is loaded, even if its process is being replaced; the current one, if none is given,
        or another while it does not answer.

        Args:
          id_: of the request.
        """
        canary = self.canary
        if version is None and canary is not None and canary.served.state == State.AVAILABLE and canary.takes(id_):
            return canary.served
        if version is None:
            version = self.current
            if version is None or self.versions[version].state != State.AVAILABLE:
                version = next(iter(self.available), version)
        served = None if version is None else self.versions.get(version)
        return served if served is not None and served.head else None

    def status(self, number: int) -> dict[str, Any]:
        """Return the status of a version. Raises KeyError."""
        if number in self.versions:
            served = self.versions[number]
            return status(number, served.state, message=served.error)
        state, error = self.others[number]
        return status(number, state, "UNKNOWN" if error and state == State.END else "OK", error)

    @property
    def numbers(self) -> list[int]:
        """All versions with a status, in descending order."""
        return sorted({*self.versions, *self.others}, reverse=True)


class Models:
    """The models of a server.

    Attributes:
      accounts: of their rows.
      draining: whether a signal has ended the server.
      main: the name of the model of the short routes.
      replace: replaces the models by those of a ModelServerConfig, within some seconds; None if that is off.
    """

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self.accounts = Accounts()
        self.draining = False
        self.main = ""
        self.replace: Callable[[Any, float | None], Awaitable[None]] | None = None

    @property
    def ready(self) -> bool:
        """True while every model answers, and no signal has ended the server."""
        models = self._models.values()
        return not self.draining and bool(models) and all(model.available for model in models)

    def add(self, model: Model) -> None:
        """Serve a model."""
        self._models[model.name] = model

    def remove(self, name: str) -> None:
        """Serve a model no longer."""
        del self._models[name]

    @property
    def all(self) -> list[Model]:
        """The models."""
        return list(self._models.values())

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._models)

    def find(self, name: str, version: str | None = None, label: str | None = None, id_: str = "") -> Served:
        """Return a version; the current one, if neither version nor label is given.

        Args:
          id_: of the request.

        Raises:
          NoSuchModel: there is no such model, or it has no such version.
          Refusal: the label is unknown, or no version has been loaded yet.
        """
        model = self._models.get(name)
        number = self._number(model, version, label)
        served = None if model is None else model.find(number, id_)
        if served is not None:
            return served
        if model is not None and number is None:
            raise Refusal(503, f"no version of {name} is loaded yet")
        asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise NoSuchModel(f"Servable not found for request: {asked}")

    def _number(self, model: Model | None, version: str | None, label: str | None) -> int | None:
        if label is not None and model is not None:
            if label not in model.labels:
                raise Refusal(400, f"Unrecognized servable version label: {label[:100]}")
            return model.labels[label]
        return None if version is None else int(version)  # see `version_number`

    def statuses(self, name: str, version: str | None = None, label: str | None = None) -> list[dict[str, Any]]:
        """Return the states of the versions of a model, or of one. Raises NoSuchModel, Refusal."""
        model = self._models.get(name)
        if model is None or not model.numbers:
            raise NoSuchModel(f"Could not find any versions of model {name}")
        number = self._number(model, version, label)
        if number is None:
            return [model.status(one) for one in model.numbers]
        if number not in model.numbers:
            raise NoSuchModel(f"Could not find version {number} of model {name}")
        return [model.status(number)]
