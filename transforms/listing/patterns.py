"""Rules of file name patterns, for local files and objects."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

MAGIC = re.compile(r"[*?\[]")
"""Characters that make a name a pattern."""


class NoFiles(ValueError):
    """A pattern that matches nothing, or only paths that are not files. The text describes the search."""


def is_hidden(path: str, pattern: str) -> bool:
    """Return whether a part of the path, but no part of the pattern, begins with _ or ."""
    return bool(hidden_parts(path)) and not hidden_parts(pattern)


def hidden_parts(path: str) -> list[str]:
    """Return the parts of a path, or of a pattern, that begin with _ or ."""
    return [part for part in path.split("/") if part.startswith(("_", "."))]


def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path matches a pattern, both given as parts, by the rules of `glob.glob(..., recursive=True)`:
    `**` matches any number of folders, and a leading dot is matched only by a literal dot."""
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == "**":
        if not rest:
            return bool(parts) and not any(part.startswith(".") for part in parts)
        deeper = bool(parts) and not parts[0].startswith(".") and fits(parts[1:], pattern)
        return fits(parts, rest) or deeper
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], first) and fits(parts[1:], rest)
