"""Everything that changes the models of a running server: the job file, the list of models, a client, an operator."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.serve.front.models import Models
from beam_score.pipeline.serve.front.requests import Refusal
from beam_score.pipeline.serve.versions.config_file import read_config, sources_in
from beam_score.pipeline.serve.versions.metrics import VersionMetrics
from beam_score.pipeline.serve.versions.model_list import ModelList
from beam_score.pipeline.serve.versions.source import ModelSource, reloaded, source_of

RELOAD_S = 600.0
"""Seconds that new models have to become available when a running server is changed."""

_log = logging.getLogger(__name__)


class Changes:
    """The models of a server, and what changes them.

    Args:
      models: the way to them.
      job: the model that is served, and further ones.
      read: reads the job again; None if it cannot change. Raises JobError.
    """

    def __init__(self, models: Models, job: Job | ModelFolder, read: Callable[[], Job | ModelFolder] | None):
        self._models, self._job, self._read = models, job, read
        self._list = ModelList(models)
        self._tasks: set[asyncio.Task[None]] = set()
        models.main = source_of(job).name
        models.accounts.registry.register(VersionMetrics(models))
        self._let_clients_replace()

    def _let_clients_replace(self) -> None:
        settings = self._job.serve
        allowed = settings.models.reload or settings.compat == "tfserving"
        self._models.replace = self._replace if allowed else None

    async def start(self) -> None:
        """Load the models. Raises JobError."""
        await self._list.change(sources_of(self._job))
        self._go(self._follow_file())

    def reload(self) -> None:
        """Read the job file again, and apply what has changed; see `reloaded`."""
        self._go(self._reloaded())

    def revert(self, name: str) -> str:
        """Go back to the version before of a model; return a sentence on it. Raises JobError."""
        done = self._list.revert(name)
        _log.warning("an operator went back: %s", done)
        return done

    async def close(self) -> None:
        """End all models, once what they have accepted is answered."""
        for task in self._tasks:
            task.cancel()
        await self._list.close()

    def _go(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reloaded(self) -> None:
        if self._read is None:
            return
        try:
            job, others = reloaded(self._job, await asyncio.to_thread(self._read))
            await self._list.change(await asyncio.to_thread(sources_of, job), RELOAD_S)
        except JobError as error:
            _log.error("the job file is not reloaded, and nothing changes: %s", "; ".join(error.problems))
            return
        self._job = job
        self._let_clients_replace()
        _log.info("the job file is reloaded")
        if others:
            _log.warning("the next start will apply what has changed in %s", ", ".join(others))

    async def _follow_file(self) -> None:
        """Apply the list of models whenever its file changes."""
        seen = _stamp(self._job.serve.models.file)
        while True:
            models = self._job.serve.models
            await asyncio.sleep(models.poll or 1.0)
            if not models.poll or models.file is None or (stamp := _stamp(models.file)) == seen:
                continue
            seen = stamp
            try:
                await self._list.change(await asyncio.to_thread(sources_of, self._job), RELOAD_S)
                _log.info("the list of models in %s is reloaded", models.file)
            except JobError as error:
                _log.error("%s is not reloaded, and nothing changes: %s", models.file, "; ".join(error.problems))

    async def _replace(self, config: Any, seconds: float | None) -> None:
        """Replace the list of models.

        Args:
          config: a ModelServerConfig.
          seconds: that new models have to become available.

        Raises:
          Refusal: with the mistakes; then nothing has changed.
        """
        try:
            sources = sources_in(config, source_of(self._job))
            await self._list.change(sources, RELOAD_S if seconds is None else min(seconds, RELOAD_S))
        except JobError as error:
            raise Refusal(400, "; ".join(error.problems)) from None
        _log.info("a client has replaced the list of models: %s", ", ".join(source.name for source in sources))


def sources_of(job: Job | ModelFolder) -> list[ModelSource]:
    """Return the model of a job and those of its list, which may have other settings for the first. Raises JobError."""
    main, file = source_of(job), job.serve.models.file
    try:
        listed = [] if file is None else sources_in(read_config(file), main)
    except JobError as error:
        raise JobError([f"serve.models.file: {file}: {problem}" for problem in error.problems]) from None
    return listed if any(source.name == main.name for source in listed) else [main, *listed]


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path or "")
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
