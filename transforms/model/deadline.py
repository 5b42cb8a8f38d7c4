"""A call that is given a time to return: the one way to get away from a model that hangs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

THREAD = "model call"
"""The name of the threads that make the calls. Nobody should wait for one: it may never return."""


class ModelHangs(RuntimeError):
    """The model has not answered in time. No row's fault: its batch is not to be halved.

    Attributes:
      deadline_s: seconds that it had.
      rows: the rows that it was given.
    """

    def __init__(self, deadline_s: float, rows: object = "a call"):
        super().__init__(deadline_s, rows)
        self.deadline_s, self.rows = deadline_s, rows

    def __str__(self) -> str:
        return (
            f"the model has not answered within {self.deadline_s:g} s for {self.rows}: try these rows alone, lower "
            "model.batch_rows, or raise model.deadline; what is done stays done, and the same command goes on"
        )


class _Caller:
    """A thread that makes one call after another for its owner, and ends with it."""

    def __init__(self):
        self._calls, self._results = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self._calls, self._results), name=THREAD, daemon=True).start()

    def __del__(self):
        self._calls.put(None)

    def result(self, call: Callable[[], Result], deadline_s: float) -> Result:
        """Raises queue.Empty where it is late."""
        self._calls.put(call)
        result, error = self._results.get(timeout=deadline_s)
        if error is not None:
            raise error
        return result


def _serve(calls: queue.SimpleQueue, results: queue.SimpleQueue) -> None:
    while (call := calls.get()) is not None:
        try:
            results.put((call(), None))
        except BaseException as error:
            results.put((None, error))
        del call  # else its batch stays in memory until the next one comes


_own = threading.local()


def within(deadline_s: float | None, call: Callable[[], Result]) -> Result:
    """Calls, and waits so long for the result. A call that is late goes on, abandoned, in its thread.

    Args:
      deadline_s: seconds; None to wait for ever, in this thread.

    Raises:
      ModelHangs: it took longer.
      Exception: what the call raises.
    """
    if deadline_s is None:
        return call()
    if not hasattr(_own, "caller"):
        _own.caller = _Caller()
    try:
        return _own.caller.result(call, deadline_s)
    except queue.Empty:
        del _own.caller  # the next call gets a thread of its own
        raise ModelHangs(deadline_s) from None
