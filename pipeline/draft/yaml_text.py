"""YAML text for names and lists, which parses to the same values in YAML 1.1 and 1.2."""

from __future__ import annotations

import re
from collections.abc import Sequence

from beam_score.transforms.common.names import quoted

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./*+=@-]*(://[A-Za-z0-9_./*+=@-]+)?")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "nan", "inf"}


def scalar(text: str) -> str:
    """Return a text as a YAML scalar, quoted if necessary."""
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not re.match(r"\.[0-9]|\.\.\.$|---", text)
    return text if plain else quoted(text)


def flow(items: Sequence[str | int | None]) -> str:
    """Return a list as YAML on one line."""
    shown = ("null" if i is None else str(i) if isinstance(i, int) else scalar(i) for i in items)
    return "[" + ", ".join(shown) + "]"
