"""The engine for one machine: Beam's FnApiRunner with threads. `DirectRunner` is not used, since it chooses
between three engines by itself, one of them fetched from the network.

Beam is imported by what needs it: a job is checked without it, unless Beam options are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from beam_score.runners.engine import Engine
from beam_score.runners.settings.engine import EngineSettings
from beam_score.runners.settings.layout import Layout, available_cores

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult

_OURS = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner")


class Local(Engine):
    """The engine for one machine; see `runners.engine.Engine`. Workers are threads; each has its own copy of the
    steps, and all share one copy of the model."""

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._beam_args = settings, beam_args

    @property
    def in_one_process(self) -> bool:
        return self._workers()[1]

    def problems(self) -> list[str]:
        if not self._beam_args:
            return []
        from beam_score.runners import beam_options

        return beam_options.problems(self._beam_args, "local", _OURS)

    def explain(self) -> list[str]:
        workers, in_one_process = self._workers()
        cores = available_cores()
        if in_one_process:
            return [f"local: {Layout(1, workers, cores)}"]
        return [f"local: {Layout(workers, 1, max(1, cores // workers))}"]

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        from beam_score.runners import fn_api
        from beam_score.runners.allocator import keep_freed_memory, use_jemalloc

        use_jemalloc()
        keep_freed_memory()
        return fn_api.run(build, self._beam_args, self._settings.layout.threads)

    def stop(self) -> None:
        """End worker processes, if any; threads stop by `transforms.common.stopping`."""
        if not self.in_one_process:
            from beam_score.runners.worker import processes

            processes.kill_all()

    def _workers(self) -> tuple[int, bool]:
        """Return the number of workers, and whether they are threads of this process."""
        if not self._beam_args:
            return self._settings.layout.threads, True
        from beam_score.runners import fn_api

        direct = fn_api.options(self._beam_args, self._settings.layout.threads)
        return direct.direct_num_workers, direct.direct_running_mode != "multi_processing"
