"""Workers forked from a process that has imported everything, for a pool that would start each as a new Python."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import threading
from pathlib import Path

from forks import shared

MODULE = "beam_score.runners.worker.boot"


class ForkedWorkers:
    """Serves the processes of `forked_worker.py`.

    Args:
      path: of the socket; also the beginning of the names of log files.
    """

    def __init__(self, path: Path):
        self._path, self._count = path, 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Fork no more workers; those that run end with their pool."""
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._count += 1
                log = self._path.with_name(f"{self._path.name}-{self._count}")
                threading.Thread(target=self._serve, args=(connection, log), daemon=True).start()

    def _serve(self, connection: socket.socket, log: Path) -> None:
        with connection:
            request = json.loads(connection.makefile().readline())
            worker = shared().start_module(MODULE, *request["arguments"], log=log, env=request["environment"])
            descriptor = os.pidfd_open(worker.pid)
            ended, _, _ = select.select([descriptor, connection], [], [])
            os.close(descriptor)
            if connection in ended:
                worker.signal(signal.SIGTERM)
            code = worker.wait().code
            with contextlib.suppress(OSError):
                connection.sendall(str(code).encode())
