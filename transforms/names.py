"""Near misses in names: `did you mean`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200  # to compare two names takes the square of their length


def near_miss(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'age'?` where a known name is near, case apart; else an empty string."""
    if len(name) > _LONGEST:
        return ""
    by_fold = {k.strip().casefold(): k for k in known if isinstance(k, str)}
    found = difflib.get_close_matches(name.strip().casefold(), by_fold, n=1, cutoff=0.6)
    return f"; did you mean {by_fold[found[0]]!r}?" if found else ""
