"""Runs a graph as staged for Dataflow on this machine, like a VM: in one process with one thread."""

from __future__ import annotations

import sys
from pathlib import Path

from apache_beam.io.gcp.gcsio import create_storage_client
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner


def run(graph: str) -> None:
    pipeline = beam_runner_api_pb2.Pipeline.FromString(_read(graph))
    for environment in pipeline.components.environments.values():
        # This process replaces the container: it has the packages that the container would have.
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()


def _read(path: str) -> bytes:
    if not path.startswith("gs://"):
        return Path(path).read_bytes()
    bucket, _, key = path.removeprefix("gs://").partition("/")
    client = create_storage_client(PipelineOptions([]), use_credentials=False)
    return client.bucket(bucket).blob(key).download_as_bytes()


if __name__ == "__main__":
    run(sys.argv[1])
