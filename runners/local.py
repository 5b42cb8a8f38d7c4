"""One machine: Beam's FnApiRunner by name, with threads. `DirectRunner` would choose between three
engines by itself, one of them fetched from the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


def run(build: Callable[[beam.Pipeline], object], workers: int, beam_args: Sequence[str] = ()):
    """Runs a pipeline to its end, in this process.

    Args:
      build: puts the transforms into a pipeline.
      workers: threads, each with its own copy of the steps, all with one copy of the model.
      beam_args: Beam's own options, which win over ours.

    Returns:
      Beam's result, for its metrics.
    """
    options = PipelineOptions(list(beam_args))
    direct = options.view_as(DirectOptions)
    given = options.get_all_options(drop_default=True)
    if "direct_num_workers" not in given:
        direct.direct_num_workers = workers
    if "direct_running_mode" not in given:
        direct.direct_running_mode = "multi_threading" if direct.direct_num_workers > 1 else "in_memory"
    pipeline = beam.Pipeline(FnApiRunner(), options)
    build(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return result
