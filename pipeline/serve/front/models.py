"""The models that are served, their versions, and the way to each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.front.accounts import Account, Accounts
from beam_score.pipeline.serve.front.metadata import status
from beam_score.pipeline.serve.front.queue import Batches
from beam_score.pipeline.serve.models.process import ModelProcess


class NoSuchModel(Exception):
    """A model or version that is not served. Args: a sentence."""


class Served:
    """A version that answers.

    Args:
      process: the loaded version.
      metadata: its signatures; see `front.metadata`.
    """

    def __init__(self, process: ModelProcess, metadata: Mapping[str, Any], account: Account, most_rows: int):
        self.process, self.metadata, self.account = process, metadata, account
        self._batches = Batches(process.answer, account.batch_rows.add, most_rows)
        version = process.version
        self.headers: Sequence[tuple[bytes, bytes]] = (
            (b"x-model-name", version.name.encode()),
            (b"x-model-version", str(version.number).encode()),
            (b"x-model-sha256", version.sha256.encode()),
        )

    async def answer(self, request: Request, seconds: float, protocol: str) -> Answer:
        """Return the answer to a request, or say that it is late, and keep the account of its rows.

        Args:
          seconds: until it is late.
          protocol: `rest` or `grpc`.
        """
        rows, began = request.rows, time.perf_counter()
        self.account.begin(rows)
        answer = refusal(499, "the client has gone", request.id, shed=True)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._batches.answer(request)
        except TimeoutError:
            answer = refusal(504, f"there was no answer within {seconds:g} s", request.id, shed=True)
        finally:
            self.account.end(rows, answer, protocol, time.perf_counter() - began)
        return answer


class Models:
    """The models of a server."""

    def __init__(self) -> None:
        self._served: dict[str, dict[int, Served]] = {}
        self.accounts = Accounts()
        self.ready = False

    def add(self, served: Served) -> None:
        """Serve a version."""
        version = served.process.version
        self._served.setdefault(version.name, {})[version.number] = served

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
        return [status(number) for number in wanted]

    async def close(self) -> None:
        """End the processes of all versions."""
        await asyncio.gather(*(s.process.close() for versions in self._served.values() for s in versions.values()))
