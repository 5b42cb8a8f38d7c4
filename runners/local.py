"""The engine for one machine: Beam's FnApiRunner with threads. `DirectRunner` is not used, since it chooses
between three engines by itself, one of them fetched from the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult

from beam_score.runners import beam_options
from beam_score.runners.engine import Engine
from beam_score.runners.settings.engine import EngineSettings
from beam_score.runners.settings.layout import Layout, available_cores
from beam_score.runners.worker import processes

# Beam (2.77) flushes the output of a step at 10 MB, and also every second from a separate thread that does not
# synchronize with writers (`TimeBasedBufferingClosableOutputStream` in `runners/worker/data_plane.py`): output written
# between its `get` and `_clear` is lost, and half an element breaks the reader. Of 100,000 splits some hundreds were
# never read, in every second run. Without a time limit there is no such thread.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0

_OURS = ("DirectRunner", "FnApiRunner", "BundleBasedDirectRunner")


class Local(Engine):
    """The engine for one machine; see `runners.engine.Engine`. Workers are threads; each has its own copy of the
    steps, and all share one copy of the model."""

    def __init__(self, settings: EngineSettings, beam_args: Sequence[str] = ()):
        self._settings, self._beam_args = settings, beam_args

    @property
    def in_one_process(self) -> bool:
        return self._options().view_as(DirectOptions).direct_running_mode != "multi_processing"

    def problems(self) -> list[str]:
        return beam_options.problems(self._beam_args, "local", _OURS)

    def explain(self) -> list[str]:
        workers, cores = self._options().view_as(DirectOptions).direct_num_workers, available_cores()
        if self.in_one_process:
            return [f"local: {Layout(1, workers, cores)}"]
        return [f"local: {Layout(workers, 1, max(1, cores // workers))}"]

    def run(self, build: Callable[[beam.Pipeline], object], name: str = "") -> PipelineResult:
        pipeline = beam.Pipeline(FnApiRunner(), self._options())
        build(pipeline)
        with processes.watched():
            result = pipeline.run()
            result.wait_until_finish()
        return result

    def stop(self) -> None:
        """End worker processes, if any; threads stop by `transforms.common.stopping`."""
        processes.kill_all()

    def _options(self) -> PipelineOptions:
        options = PipelineOptions(list(self._beam_args))
        direct = options.view_as(DirectOptions)
        given = options.get_all_options(drop_default=True)
        if "direct_num_workers" not in given:
            direct.direct_num_workers = self._settings.layout.threads
        if "direct_running_mode" not in given:
            direct.direct_running_mode = "multi_threading" if direct.direct_num_workers > 1 else "in_memory"
        return options
