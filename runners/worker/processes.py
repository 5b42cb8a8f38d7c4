"""Supervised worker processes for the FnApiRunner: the death of a worker fails the run.

Beam's own handler (`apache_beam/runners/portability/fn_api_runner/worker_handlers.py`, 2.77) raises in a
thread whose errors are lost, and the launcher waits forever for answers of the dead worker.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

from apache_beam import coders  # noqa: F401  (else the next import is circular)
from apache_beam.portability import python_urns
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from google.protobuf import json_format, text_format

from beam_score.runners.ended import GOES_ON, WorkerDied, told
from beam_score.runners.worker.harness import REGISTER
from beam_score.runners.worker.quiet import keep_quiet
from beam_score.transforms.model.in_flight import opened, read_register

_EVERY_S = 0.1
_regions = itertools.count(1)
_live: set[subprocess.Popen[bytes]] = set()
_deaths: list[WorkerDied] = []


def kill_all() -> None:
    """Kill all worker processes: flags of this process do not reach them."""
    for process in list(_live):
        process.kill()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Raise WorkerDied in place of Beam's error if a worker has died during the body."""
    keep_quiet()
    _deaths.clear()
    try:
        yield
    except Exception:
        if _deaths:
            raise _deaths[0] from None
        raise


@WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)
class WorkerProcess(GrpcWorkerHandler):
    """A worker in its own process, for `--direct_running_mode=multi_processing`."""

    def __init__(self, command: bytes, state: Any, provision_info: Any, grpc_server: Any):
        super().__init__(state, provision_info, grpc_server)
        self._over = threading.Event()

    def start_worker(self) -> None:
        """Start the process; Beam calls this once."""
        environment = {
            **os.environ,
            "WORKER_ID": self.worker_id,
            "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.control_api_service_descriptor()),
            "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(self.logging_api_service_descriptor()),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
        }
        register = opened()
        if register is not None:
            environment[REGISTER] = f"{register}:{next(_regions)}"
        self._process = subprocess.Popen(
            # Safe path (-P): otherwise a module in the working directory could shadow one of ours.
            [sys.executable, "-P", "-m", "beam_score.runners.worker.harness"],
            env=environment,
            pass_fds=() if register is None else (register,),
        )
        _live.add(self._process)
        self._watcher = threading.Thread(target=self._watch, name="worker process", daemon=True)
        self._watcher.start()

    def stop_worker(self) -> None:
        """Wait for the process; Beam calls this when the work is done or has failed."""
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        code = self._process.wait()
        _live.discard(self._process)
        if code >= 0 and self._over.is_set():
            return
        died = WorkerDied(
            told("a worker process", -code, read_register(opened()))
            if code < 0
            else f"a worker process exited with code {code}{self._before_it_connected()}: {GOES_ON}"
        )
        _deaths.append(died)
        kill_all()  # otherwise Beam waits until they have finished their work
        # Beam waits forever for data from a worker that never connected, since no connection breaks. Closing it drops
        # the queued data, and may block as well.
        threading.Thread(target=self._close_data, name="worker process", daemon=True).start()
        # Repeatedly: later requests to the dead worker would get no answer either.
        while not self._over.wait(_EVERY_S):
            with contextlib.suppress(RuntimeError):  # the table of pending requests has changed meanwhile
                self.control_conn.abort(died)

    def _close_data(self) -> None:
        with contextlib.suppress(Exception):  # the connection broke, which is reported already
            self.data_conn.close()

    def _before_it_connected(self) -> str:
        connected = self.control_conn._input is not None
        return "" if connected else ", before it had connected; its output is above"
