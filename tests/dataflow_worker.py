"""Runs a graph as it was staged for Dataflow, on this machine: what a VM would do, in one process with a thread."""

from __future__ import annotations

import sys
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


def run(graph: Path) -> None:
    pipeline = beam_runner_api_pb2.Pipeline.FromString(graph.read_bytes())
    for environment in pipeline.components.environments.values():
        # In place of the container: this process, which has the packages that the container would have.
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
