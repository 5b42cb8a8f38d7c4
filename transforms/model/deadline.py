"""Calls with a deadline, the only way to recover from a model that hangs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

THREAD = "model call"
"""Name of the threads that make the calls. Never join one: its call may not return."""


WARM_UP_S = 300.0
"""Extra seconds for a call that has to trace or compile: XLA may take minutes."""


class ModelHangs(RuntimeError):
    """The model has not returned in time. This is not a row's fault, so the batch must not be halved.

    Attributes:
      deadline_s: seconds that the call had.
      rows: the rows that the model was given.
    """

    def __init__(self, deadline_s: float, rows: object = "a call"):
        super().__init__(deadline_s, rows)
        self.deadline_s, self.rows = deadline_s, rows

    def __str__(self) -> str:
        return (
            f"the model has not returned within {self.deadline_s:g} s for {self.rows}: try these rows alone, lower "
            "model.batch_rows, or raise model.deadline; finished splits are kept, and the same command continues from "
            "here"
        )


class _Caller:
    """A thread that makes one call after another for its owner, and ends with it."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=_serve, args=(self._calls, self._results), name=THREAD, daemon=True).start()

    def __del__(self) -> None:
        self._calls.put(None)

    def result(self, call: Callable[[], Result], deadline_s: float) -> Result:
        """Make a call in the thread. Raises queue.Empty if it is late."""
        self._calls.put(call)
        result, error = self._results.get(timeout=deadline_s)
        if error is not None:
            raise error
        return result


def _serve(
    calls: queue.SimpleQueue[Callable[[], Any] | None], results: queue.SimpleQueue[tuple[Any, BaseException | None]]
) -> None:
    while (call := calls.get()) is not None:
        try:
            results.put((call(), None))
        except BaseException as error:
            results.put((None, error))
        del call  # otherwise its batch stays in memory until the next call


_own = threading.local()


def within(deadline_s: float | None, call: Callable[[], Result]) -> Result:
    """Make a call and wait for its result up to a deadline. A late call is abandoned and continues in its thread.

    Args:
      deadline_s: seconds; None to call without a deadline, in this thread.

    Raises:
      ModelHangs: the call took longer.
      Exception: raised by the call.
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
