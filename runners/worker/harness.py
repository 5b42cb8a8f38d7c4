"""Beam's worker harness, without its messages that contain rows. See `runners.worker.processes`."""

from __future__ import annotations

import os
import sys

from apache_beam.runners.worker import sdk_worker_main

from beam_score.runners.worker.quiet import keep_quiet
from beam_score.transforms.model.in_flight import open_register

REGISTER = "BEAM_SCORE_IN_FLIGHT"
"""The environment variable with `DESCRIPTOR:REGION` of the register of rows in flight."""


def work() -> None:
    """Run the worker until the engine named in the environment ends it."""
    keep_quiet()
    if register := os.environ.get(REGISTER):
        open_register(*map(int, register.split(":")))
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    sys.path.append("")  # last: see `pipeline.cli.main`
    work()
