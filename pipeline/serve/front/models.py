"""The models that are served, their versions, and the way to each."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.front.accounts import Account, Accounts
from beam_score.pipeline.serve.front.admission import Pace
from beam_score.pipeline.serve.front.metadata import status, v2_metadata
from beam_score.pipeline.serve.front.queue import Batches
from beam_score.pipeline.serve.models.process import LoadFailed, ModelProcess, ProcessDied, Version


class State(enum.StrEnum):
    """The state of a version, in the words of TensorFlow Serving."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


MOST_DEATHS, DEATHS_WITHIN_S = 3, 60.0
"""A version whose process dies so often within so many seconds is not loaded again."""

_log = logging.getLogger(__name__)


class NoSuchModel(Exception):
    """A model or version that is not served. Args: a sentence."""


class Served:
    """A version that answers. If its process dies, another takes its place.

    Args:
      load: starts a process and loads the version.
      version: that it loads.
      metadata: its signatures; see `front.metadata`.
      account: of its rows.
      most_rows: of a batch.
      hangs_s: seconds after which a process that has not answered a batch is replaced.
      window_s: see `Batches`.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[ModelProcess]],
        version: Version,
        metadata: Mapping[str, Any],
        account: Account,
        most_rows: int,
        hangs_s: float,
        window_s: float = 0.0,
    ):
        self._hangs_s = hangs_s
        self.version, self.metadata, self.account = version, metadata, account
        self.state, self.load_s = State.START, 0.0
        self._load = load
        self._process: ModelProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._batches = Batches(self._call, account.batch_rows.add, most_rows, window_s)
        self._pace = Pace(most_rows)
        self.headers: Sequence[tuple[bytes, bytes]] = (
            (b"x-model-name", version.name.encode()),
            (b"x-model-version", str(version.number).encode()),
            (b"x-model-sha256", version.sha256.encode()),
        )

    @property
    def v2_metadata(self) -> dict[str, Any]:
        """The metadata of the Open Inference Protocol: of the signature that is meant if a request names none."""
        return v2_metadata(self.version.name, self.version.number, self.metadata)

    async def start(self) -> None:
        """Load the version. Raises LoadFailed."""
        self.state, began = State.LOADING, time.perf_counter()
        try:
            self._process = await self._load()
        except BaseException:
            self.state = State.END
            raise
        self.state, self.load_s = State.AVAILABLE, time.perf_counter() - began
        self._watching = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: ModelProcess) -> None:
        """Load the version again whenever its process dies, unless it dies again and again."""
        deaths: collections.deque[float] = collections.deque(maxlen=MOST_DEATHS)
        while True:
            code = await process.ended()
            self.state, self._process = State.LOADING, None
            deaths.append(time.monotonic())
            ends = f"signal {-code}" if code < 0 else f"code {code}"
            _log.error(
                "the process of version %d of %s has ended with %s", self.version.number, self.version.name, ends
            )
            if len(deaths) == MOST_DEATHS and deaths[-1] - deaths[0] < DEATHS_WITHIN_S:
                self.state = State.END
                _log.error("it has died %d times within %g s, and is not loaded again", MOST_DEATHS, DEATHS_WITHIN_S)
                return
            try:
                process = self._process = await self._load()
            except LoadFailed as error:
                self.state = State.END
                _log.error("it does not load again: %s", error)
                return
            self.state = State.AVAILABLE

    async def _call(self, batch: Sequence[Request]) -> list[Answer]:
        process, began = self._process, time.perf_counter()
        if process is None:
            raise ProcessDied
        try:
            async with asyncio.timeout(self._hangs_s):
                answers = await process.answer(batch)
            self._pace.note(sum(request.rows for request in batch), began, time.perf_counter())
            return answers
        except TimeoutError:
            _log.error("%s: no answer within %g s: its process is replaced", self.version.name, self._hangs_s)
            process.kill()
            raise ProcessDied from None

    async def close(self) -> None:
        """End the process, after its outstanding answers."""
        if self._watching is not None:
            self._watching.cancel()
        if self._process is not None:
            await self._process.close()
        self.state = State.END

    async def answer(self, request: Request, seconds: float, protocol: str) -> Answer:
        """Return the answer to a request, or say that it is late, and keep the account of its rows.

        Args:
          seconds: until it is late.
          protocol: `rest` or `grpc`.
        """
        began, rows = time.perf_counter(), request.rows
        self.account.begin()
        if (late := self._pace.wait_s(rows) - seconds) > 0:
            message = f"it would take longer than {seconds:g} s: too many rows are ahead"
            shed = dataclasses.replace(refusal(503, message, request.id, shed=True), retry_s=math.ceil(late))
            self.account.end(request, shed, protocol, time.perf_counter() - began)
            return shed
        self._pace.rows += rows
        answer: Answer | None = None
        try:
            async with asyncio.timeout(seconds):
                answer = await self._batches.answer(request)
        except TimeoutError:
            answer = refusal(504, f"there was no answer within {seconds:g} s", request.id, shed=True)
        finally:
            self._pace.rows -= rows
            gone = answer or refusal(499, "the client has gone", request.id, shed=True)
            self.account.end(request, gone, protocol, time.perf_counter() - began)
        return answer

    def refuse(self, status: int, request: Request, protocol: str) -> None:
        """Take a request into account that is refused before its rows are known."""
        self.account.begin()
        self.account.end(request, Answer(status, b"", shed=status >= 499), protocol, 0.0)


class Models:
    """The models of a server."""

    def __init__(self) -> None:
        self._served: dict[str, dict[int, Served]] = {}
        self.accounts = Accounts()
        self.draining = False

    @property
    def ready(self) -> bool:
        """True while every model answers, and no signal has ended the server."""
        states = [one.state for versions in self._served.values() for one in versions.values()]
        return not self.draining and bool(states) and all(state == State.AVAILABLE for state in states)

    def add(self, served: Served) -> None:
        """Serve a version."""
        self._served.setdefault(served.version.name, {})[served.version.number] = served

    def __iter__(self) -> Iterator[Served]:
        """All versions."""
        return (served for versions in self._served.values() for served in versions.values())

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self._served)

    @property
    def only(self) -> Served:
        """The latest version of the only model."""
        (name,) = self._served
        return self.find(name, None)

    def find(self, name: str, version: str | None) -> Served:
        """Return a version; the latest, if it is not given. Raises NoSuchModel."""
        versions = self._served.get(name, {})
        number = max(versions, default=-1) if version is None else int(version)
        if number not in versions:
            asked = f"Latest({name})" if version is None else f"Specific({name}, {number})"
            raise NoSuchModel(f"Servable not found for request: {asked}")
        return versions[number]

    def statuses(self, name: str, version: str | None) -> list[dict[str, Any]]:
        """Return the states of the versions of a model, or of one. Raises NoSuchModel."""
        versions = self._served.get(name)
        if not versions:
            raise NoSuchModel(f"Could not find any versions of model {name}")
        if version is not None and int(version) not in versions:
            raise NoSuchModel(f"Could not find version {version} of model {name}")
        wanted = [int(version)] if version is not None else sorted(versions, reverse=True)
        return [status(number, versions[number].state) for number in wanted]

    async def close(self) -> None:
        """End the processes of all versions."""
        await asyncio.gather(*(s.close() for versions in self._served.values() for s in versions.values()))
