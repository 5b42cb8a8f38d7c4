"""The requests that wait for a version: whatever waits while the model works is the next batch."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.models.process import Done

_log = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Batches with the process of a model: one that it works on, and one that is ready when it is done. The second is sent
only if it is full: if it waits, it grows, and a batch of many requests takes hardly longer than one of few."""


@dataclasses.dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits for its answer.

    Attributes:
      request: that waits.
      rows: an estimate of its rows.
      protocol: that it came by.
      began, until: when it came, and when it is late, by `time.perf_counter`.
      done: called with the answer; None once it is not waited for any more.
    """

    request: Request
    rows: int
    protocol: str
    began: float
    until: float
    done: Callable[[Answer], object] | None


class Batches:
    """Forms batches without a timer.

    Args:
      call: answers a batch, of which it gets the number of rows, later.
      note: called with the rows of each batch.
      end: called with each request and its answer.
      most_rows: of a batch; a single request may have more.
      most_bytes: of the bodies of a batch; likewise.
      window_s: seconds that requests wait for company although the model is free, unless they fill a batch.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Request], int, Done], None],
        note: Callable[[int], None],
        end: Callable[[Waiting, Answer], None],
        most_rows: int,
        window_s: float = 0.0,
        most_bytes: int = 16 << 20,
    ):
        self._call, self._note, self._end = call, note, end
        self._most_rows, self._most_bytes = most_rows, most_bytes
        self._waiting: collections.deque[Waiting] = collections.deque()
        self._waiting_rows = 0
        self._free = IN_FLIGHT
        self._window_s, self._over = window_s, False
        self._is_called = False  # `_start` is about to be
        self._window: asyncio.TimerHandle | None = None

    def add(self, waiting: Waiting) -> None:
        """Answer a request, together with all that are read from sockets in the same turn of the loop."""
        self._waiting.append(waiting)
        self._waiting_rows += waiting.rows
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._is_called = False
        while self._waiting and self._is_due():
            batch = self._next()
            if not batch:
                continue
            self._free -= 1
            try:
                rows = sum(waiting.rows for waiting in batch)
                self._call([waiting.request for waiting in batch], rows, functools.partial(self._answered, batch))
            except Exception:
                _log.exception("a batch of %d requests failed", len(batch))
                answers = [refusal(500, "prediction failed", waiting.request.id) for waiting in batch]
                asyncio.get_running_loop().call_soon(self._answered, batch, answers)

    def _is_due(self) -> bool:
        """Return whether those that wait are to be sent; if they only wait for the window, they will be at its end."""
        if not self._free:
            return False
        if self._waiting_rows >= self._most_rows:
            return True
        if self._free < IN_FLIGHT:
            return False
        if not self._window_s or self._over:
            self._over = False
            return True
        if self._window is None:
            self._window = asyncio.get_running_loop().call_later(self._window_s, self._end_window)
        return False

    def _end_window(self) -> None:
        self._window, self._over = None, True
        self._start()

    def _next(self) -> list[Waiting]:
        batch, rows, size = list[Waiting](), 0, 0
        while self._waiting:
            waiting = self._waiting[0]
            rows, size = rows + waiting.rows, size + len(waiting.request.body)
            if batch and (rows > self._most_rows or size > self._most_bytes):
                break
            self._waiting.popleft()
            self._waiting_rows -= waiting.rows
            if waiting.done is not None:  # else its client has gone, or it is late
                batch.append(waiting)
        return batch

    def _answered(self, batch: list[Waiting], answers: Sequence[Answer] | None) -> None:
        if answers is None:
            message = "the process of the model has ended"
            answers = [refusal(503, message, waiting.request.id, shed=True) for waiting in batch]
        self._free += 1
        self._start()  # the model works while these answers are written
        self._note(sum(answer.received for answer in answers))
        for waiting, answer in zip(batch, answers, strict=True):
            try:
                self._end(waiting, answer)
            except Exception:
                _log.exception("the answer to request %s failed", waiting.request.id)
