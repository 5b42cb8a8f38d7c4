"""Finding the rows that a call fails on: the batch is halved until they stand alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

MAX_FIRST_FAILURES = 32
"""So many single rows may fail before any has ever succeeded; then it is not the rows' fault."""


class EveryRowFails(Exception):
    """No row gets through: the job fails, with the first message."""


@dataclasses.dataclass
class Attempts:
    """What is known of a callable in this process.

    Attributes:
      succeeded: whether a call has ever returned.
      failures: single rows that failed while none had succeeded.
      first: the first exception of all.
    """

    succeeded: bool = False
    failures: int = 0
    first: Exception | None = None


def halve(
    size: int,
    call: Callable[[int, int], Result],
    attempts: Attempts,
    fatal: tuple[type[Exception], ...] = (),
) -> tuple[list[tuple[int, int, Result]], list[tuple[int, Exception]]]:
    """Calls `call(start, stop)` on rows 0 to `size`, and on halves of what it raises on.

    Returns:
      (start, stop, result) of the calls that returned, in order; and (row, exception) of the single
      rows that raised.

    Raises:
      EveryRowFails: after `MAX_FIRST_FAILURES` single rows, where no call has ever returned.
      any of `fatal`: as it is.
    """
    good: list[tuple[int, int, Result]] = []
    bad: list[tuple[int, Exception]] = []
    todo = [(0, size)] if size else []
    while todo:
        start, stop = todo.pop()
        try:
            result = call(start, stop)
        except fatal:
            raise
        except Exception as error:  # whatever it raises on is the row's, as long as other rows go through
            attempts.first = attempts.first or error
            if stop - start > 1:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
                continue
            bad.append((start, error))
            attempts.failures += not attempts.succeeded
            if attempts.failures >= MAX_FIRST_FAILURES:
                raise EveryRowFails(
                    f"{attempts.failures} single rows failed and none got through; first: {attempts.first}"
                ) from attempts.first
            continue
        attempts.succeeded = True
        good.append((start, stop, result))
    return good, bad
