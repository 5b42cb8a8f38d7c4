"""What a worker process runs: Beam's own harness, without its words about rows. See `runners.processes`."""

from __future__ import annotations

import os
import sys

from apache_beam.runners.worker import sdk_worker, sdk_worker_main

from transforms.in_hand import open_register

# A worker's exception is raised in the launcher. Beam (2.77) prints it to standard error as well, with all that
# its text holds of a row; and where standard error is closed, it waits forever for the worker that failed to print.
sdk_worker.print = lambda *args, **kwargs: None

REGISTER = "BEAM_SCORE_IN_HAND"
"""The environment variable that holds `DESCRIPTOR:REGION` of the register of rows in hand."""


def work() -> None:
    """Works until the engine that the environment names wants no more."""
    if register := os.environ.get(REGISTER):
        open_register(*map(int, register.split(":")))
    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    work()
