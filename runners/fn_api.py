"""Pipelines on Beam's FnApiRunner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineResult

from beam_score.runners.worker import processes

# Beam (2.77) flushes the output of a step at 10 MB, and also every second from a separate thread that does not
# synchronize with writers (`TimeBasedBufferingClosableOutputStream` in `runners/worker/data_plane.py`): output written
# between its `get` and `_clear` is lost, and half an element breaks the reader. Of 100,000 splits some hundreds were
# never read, in every second run. Without a time limit there is no such thread.
worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


def run(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str], threads: int) -> PipelineResult:
    """Run a pipeline to its end; see `runners.engine.Engine.run`.

    Args:
      build: puts the transforms into a pipeline.
      beam_args: Beam options, which take precedence.
      threads: number of workers.
    """
    pipeline = beam.Pipeline(FnApiRunner(), options(beam_args, threads).view_as(PipelineOptions))
    build(pipeline)
    with processes.watched():
        result = pipeline.run()
        result.wait_until_finish()
    return result


def options(beam_args: Sequence[str], threads: int) -> DirectOptions:
    """Return the options of a pipeline, with the given number of workers unless Beam options set it."""
    options = PipelineOptions(list(beam_args))
    direct = options.view_as(DirectOptions)
    given = options.get_all_options(drop_default=True)
    if "direct_num_workers" not in given:
        direct.direct_num_workers = threads
    if "direct_running_mode" not in given:
        direct.direct_running_mode = "multi_threading" if direct.direct_num_workers > 1 else "in_memory"
    return direct
