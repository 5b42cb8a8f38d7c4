"""Isolation of the rows that a call fails on: the batch is halved until single rows fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

MAX_FIRST_FAILURES = 32
"""Single rows that may fail before any call has succeeded; after that the rows are not considered at fault."""


class EveryRowFails(Exception):
    """No row succeeds: the job fails, with the first message."""


@dataclasses.dataclass
class Attempts:
    """The history of a callable in this process.

    Attributes:
      succeeded: whether a call has ever returned.
      failures: single rows that failed before any call had succeeded.
      first: the message of the first of these failures.
    """

    succeeded: bool = False
    failures: int = 0
    first: str = ""


def halve(
    size: int,
    call: Callable[[int, int], Result],
    attempts: Attempts,
    describe: Callable[[int, Exception], str],
    fatal: tuple[type[Exception], ...] = (),
) -> tuple[list[tuple[int, int, Result]], list[tuple[int, str]]]:
    """Call `call(start, stop)` on rows 0 to `size`, and on the halves of each range that it raises on: one bad row of n
    costs 2 log2(n) additional calls.

    Args:
      attempts: kept by the caller from one batch to the next.
      describe: (row, exception) to a text without values of the row.
      fatal: exceptions that are not the fault of a row.

    Returns:
      (start, stop, result) of the calls that returned, in order; and (row, text) of the single rows that it raised on,
        in order.

    Raises:
      EveryRowFails: after `MAX_FIRST_FAILURES` single rows, if no call has ever returned.
      any of `fatal`: unchanged.
    """
    good: list[tuple[int, int, Result]] = []
    bad: list[tuple[int, str]] = []
    todo = [(0, size)] if size else []
    while todo:
        start, stop = todo.pop()
        try:
            result = call(start, stop)
        except fatal:
            raise
        except Exception as error:  # any exception is the row's fault, as long as other rows succeed
            if stop - start > 1:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
                continue
            text = describe(start, error)
            bad.append((start, text))
            if not attempts.succeeded:
                attempts.first = attempts.first or text
                attempts.failures += 1
                if attempts.failures >= MAX_FIRST_FAILURES:
                    message = f"{attempts.failures} single rows failed and none succeeded; first: {attempts.first}"
                    raise EveryRowFails(message) from None
            continue
        attempts.succeeded = True
        good.append((start, stop, result))
    return good, bad
