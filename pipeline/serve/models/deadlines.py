"""The end of what waits for too long, with one timer for all: most requests are answered long before."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from beam_score.pipeline.serve.models.queue import Waiting

_log = logging.getLogger(__name__)

_TICK_S = 0.001  # of the timers of the loop


class Deadlines:
    """The requests that wait.

    Args:
      expire: called with each that is late, which it must discard.
    """

    def __init__(self, expire: Callable[[Waiting], None]):
        self._expire = expire
        self._waiting: set[Waiting] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = math.inf

    def add(self, waiting: Waiting) -> None:
        """Wait until a request is late."""
        self._waiting.add(waiting)
        if waiting.until < self._at:
            self._wake(waiting.until)

    def discard(self, waiting: Waiting) -> None:
        """Wait no longer for a request to be late."""
        self._waiting.discard(waiting)

    def _wake(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        seconds = max(_TICK_S, at - time.perf_counter())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._sweep)

    def _sweep(self) -> None:
        self._timer, self._at = None, math.inf
        now = time.perf_counter() + _TICK_S
        for waiting in [one for one in self._waiting if one.until <= now]:
            try:
                self._expire(waiting)
            except Exception:
                _log.exception("request %s is late, and this was not noted", waiting.request.id)
                self.discard(waiting)
        if self._waiting:
            self._wake(min(one.until for one in self._waiting))
