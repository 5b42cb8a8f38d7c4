"""The list of models that are served, which can be changed while the server answers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.front.models import Models, Served
from beam_score.pipeline.serve.models.call_rows import asked_rows
from beam_score.pipeline.serve.models.process import ModelProcess, Version
from beam_score.pipeline.serve.versions.lifecycle import Lifecycle
from beam_score.pipeline.serve.versions.source import ModelSource, check_sources


class ModelList:
    """The models that are served.

    Args:
      models: the way to them.
    """

    def __init__(self, models: Models):
        self._models = models
        self._lifecycles: dict[str, Lifecycle] = {}
        self._changing = asyncio.Lock()

    async def change(self, sources: Sequence[ModelSource], seconds: float | None = None) -> None:
        """Serve these models and no others, once each of them has an available version.

        Args:
          sources: with different names.
          seconds: that new models have to become available.

        Raises:
          JobError: with the reasons; then nothing has changed.
        """
        async with self._changing:
            if self._lifecycles:  # the first models are checked before
                loaded = {name: list(lifecycle.model.versions) for name, lifecycle in self._lifecycles.items()}
                await asyncio.to_thread(check_sources, sources, loaded)
            paths = {name: lifecycle.source.path for name, lifecycle in self._lifecycles.items()}
            sources_new = [source for source in sources if paths.get(source.name) != source.path]
            new = {one.name: Lifecycle(one, functools.partial(_served, self._models, one)) for one in sources_new}
            if not self._lifecycles:  # the states of the first models can be seen while they are loaded
                for lifecycle in new.values():
                    self._models.add(lifecycle.model)
            try:
                await _all_started(new.values(), seconds)
            except BaseException:
                await asyncio.gather(*(lifecycle.close() for lifecycle in new.values()))
                raise
            known = {source.name: source for source in sources}
            gone = [one for name, one in self._lifecycles.items() if name not in known or name in new]
            for lifecycle in new.values():
                self._models.add(lifecycle.model)
            for name in self._lifecycles.keys() - known.keys():
                self._models.remove(name)
            self._lifecycles = {name: new.get(name) or self._lifecycles[name] for name in known}
            for name, lifecycle in self._lifecycles.items():
                lifecycle.change(known[name])
        await asyncio.gather(*(lifecycle.close() for lifecycle in gone))

    def revert(self, name: str) -> str:
        """Go back to the version before of a model; see `Lifecycle.revert`. Raises JobError."""
        if name not in self._lifecycles:
            raise JobError([f"there is no model {name!r}: expected one of {', '.join(self._lifecycles)}"])
        return self._lifecycles[name].revert()

    async def close(self) -> None:
        """End all models, once what they have accepted is answered."""
        await asyncio.gather(*(lifecycle.close() for lifecycle in self._lifecycles.values()))


async def _all_started(lifecycles: Iterable[Lifecycle], seconds: float | None) -> None:
    """Wait until each model has an available version. Raises JobError."""
    started = [lifecycle.started() for lifecycle in lifecycles]
    try:
        async with asyncio.timeout(seconds):
            ends = await asyncio.gather(*started, return_exceptions=True)
    except TimeoutError:
        raise JobError([f"not every new model has an available version within {seconds:g} s"]) from None
    if problems := [problem for end in ends if isinstance(end, JobError) for problem in end.problems]:
        raise JobError(problems)


def _served(models: Models, source: ModelSource, number: int, path: str) -> Served:
    settings = source.job.serve
    load = functools.partial(ModelProcess.load, job=source.job.as_json())
    account = models.accounts.of(source.name, number)
    hangs_s = 2 * settings.limits.request  # all requests of a batch are late by then
    version = Version(source.name, number, path, batch_rows=asked_rows(source.job))
    return Served(load, version, account, hangs_s, settings.batching.window_ms / 1000)
