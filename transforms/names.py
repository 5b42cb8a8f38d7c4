"""Near misses in names: `did you mean`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200  # to compare two names takes the square of their length

_MOST_COMPARED = 1000


def near_miss(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'age'?` where a known name is near, case apart; else an empty string."""
    if len(name) > _LONGEST:
        return ""
    by_fold = {k.strip().casefold(): k for k in known if isinstance(k, str)}
    if len(by_fold) > _MOST_COMPARED:  # a millisecond for each hundred, and there may be as many names that are missing
        return f"; did you mean {by_fold[name.strip().casefold()]!r}?" if name.strip().casefold() in by_fold else ""
    found = difflib.get_close_matches(name.strip().casefold(), by_fold, n=1, cutoff=0.6)
    return f"; did you mean {by_fold[found[0]]!r}?" if found else ""
