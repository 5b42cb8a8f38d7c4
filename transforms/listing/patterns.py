"""What a pattern of file names means, wherever the files are."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

MAGIC = re.compile(r"[*?\[]")
"""What makes a name a pattern."""


class NoFiles(ValueError):
    """A pattern that matches nothing, or something that is no file. The text says what was looked for."""


def is_hidden(path: str, pattern: str) -> bool:
    """Whether a part of the path begins with _ or . and the pattern does not say so itself."""
    return bool(hidden_parts(path)) and not hidden_parts(pattern)


def hidden_parts(path: str) -> list[str]:
    """The parts of a path, or of a pattern, that begin with _ or ."""
    return [part for part in path.split("/") if part.startswith(("_", "."))]


def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path are what those of a pattern say, as `glob.glob(..., recursive=True)` has it:
    `**` stands for any number of folders, and no pattern for a first dot that it does not have itself."""
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
