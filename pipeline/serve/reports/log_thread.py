"""Logs written by a thread: a pipe that is full, because nobody reads it, must not stop the server."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Iterator

_MOST_RECORDS = 10_000
_END_S = 1.0


class _Queued(logging.Handler):
    """Passes records on to the handlers that were there before. Drops records while too many wait."""

    def __init__(self, handlers: list[logging.Handler]):
        super().__init__()
        self._handlers = handlers
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(_MOST_RECORDS)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(record)

    def end(self) -> None:
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(None)
        self._thread.join(_END_S)

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            for handler in self._handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)


@contextlib.contextmanager
def logging_in_thread() -> Iterator[None]:
    """Write the logs of this process in a thread while the body runs."""
    root = logging.getLogger()
    before = root.handlers[:]
    queued = _Queued(before)
    root.handlers[:] = [queued]
    try:
        yield
    finally:
        root.handlers[:] = before
        queued.end()
