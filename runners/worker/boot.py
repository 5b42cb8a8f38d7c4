"""`beam-score-worker`, the worker process that a TaskManager, or a worker pool beside it, starts.

It follows Beam's contract for SDK containers (https://s.apache.org/beam-fn-api-container-contract), without a
container: it gets the job from the provision service.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from google.protobuf import json_format, text_format

from beam_score.runners.worker import harness as worker


def main() -> None:
    """Run the worker until its engine ends it."""
    parser = argparse.ArgumentParser(prog="beam-score-worker", allow_abbrev=False)
    parser.add_argument("--id", required=True, help="The id of this worker.")
    parser.add_argument("--provision_endpoint", required=True, help="HOST:PORT of the provision service.")
    arguments, _ = parser.parse_known_args(sys.argv[1:])
    with grpc.insecure_channel(arguments.provision_endpoint) as channel:
        info = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=[("worker_id", arguments.id)], timeout=60
        )
    # A pool (Beam 2.77) never reads the output of its workers: a worker that has printed 64 KB would block.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.environ["WORKER_ID"] = arguments.id
    os.environ["CONTROL_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(info.info.control_endpoint)
    os.environ["LOGGING_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(info.info.logging_endpoint)
    os.environ["PIPELINE_OPTIONS"] = json_format.MessageToJson(info.info.pipeline_options)
    os.environ.setdefault("SEMI_PERSISTENT_DIRECTORY", tempfile.gettempdir())
    worker.work()


if __name__ == "__main__":
    main()
