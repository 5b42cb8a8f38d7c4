"""Near misses in names: `did you mean`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200  # to compare two names takes the square of their length
_MOST_COMPARED = 1000  # names, and there may be as many to find one for


def near_miss(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'age'?` where a known name is near, case apart; else an empty string."""
    if len(name) > _LONGEST:
        return ""
    by_fold = {k.strip().casefold(): k for k in known if isinstance(k, str)}
    fold = name.strip().casefold()
    few = len(by_fold) <= _MOST_COMPARED
    found = difflib.get_close_matches(fold, by_fold, n=1, cutoff=0.6) if few else [fold] * (fold in by_fold)
    return f"; did you mean {by_fold[found[0]]!r}?" if found else ""
