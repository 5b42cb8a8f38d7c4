"""Results that are remembered for arguments that cannot be hashed at little cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., object])

_MOST = 8


def recent(function: Function) -> Function:
    """Remember the last few results of a function, and find them by equality of its arguments.

    For schemas: two of a thousand columns are compared in a microsecond, but hashed in hundreds.
    """
    results: list[tuple[tuple[object, ...], object]] = []

    @functools.wraps(function)
    def remembered(*arguments: object) -> object:
        for known, result in results:
            if known == arguments:
                return result
        result = function(*arguments)
        results[:] = [(arguments, result), *results[: _MOST - 1]]  # at once, since threads share it
        return result

    return cast(Function, remembered)
