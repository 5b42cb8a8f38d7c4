"""Suggestions for misspelled names: `did you mean`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200  # comparing two names takes time quadratic in their length
_MOST_COMPARED = 1000  # known names; there may be as many unknown ones


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'age'?` if a known name is similar, ignoring case; else an empty string."""
    if len(name) > _LONGEST:
        return ""
    by_fold = {k.strip().casefold(): k for k in known if isinstance(k, str)}
    fold = name.strip().casefold()
    few = len(by_fold) <= _MOST_COMPARED
    found = difflib.get_close_matches(fold, by_fold, n=1, cutoff=0.6) if few else [fold] * (fold in by_fold)
    return f"; did you mean {by_fold[found[0]]!r}?" if found else ""


def quoted(text: str) -> str:
    """Return a text as a double-quoted YAML scalar."""
    escaped = []
    for c in text:
        if c in '"\\':
            escaped.append("\\" + c)
        elif c.isprintable():
            escaped.append(c)
        else:
            code = ord(c)
            escaped.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}")
    return '"' + "".join(escaped) + '"'
