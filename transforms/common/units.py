"""Human-readable sizes, shares, durations and counts."""

from __future__ import annotations

from typing import Any

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_bytes(value: Any) -> int:
    """Parse 64MB, 64 MiB or a number, as bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip().upper().replace(" ", "")
    digits = text.rstrip("BKMGI")
    try:
        return int(float(digits) * _UNITS[text[len(digits) :]])
    except (ValueError, KeyError):
        raise ValueError(f"{value!r} is not a size: expected a number of bytes, or for example 64MB or 64MiB") from None


def parse_share(value: Any) -> int | float:
    """Parse 1% as a float share of 0.01; a whole number as a count."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is not a share: expected for example 1%, or a whole number of rows") from None
        if not 0 <= share <= 1:
            raise ValueError(f"{value!r}: expected a share from 0% to 100%")
        return share
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value < 1:
        return value
    raise ValueError(f"{value!r}: expected a share, for example 1%, or a whole number of rows")


def parse_seconds(value: Any) -> float | None:
    """Parse 30s, 2m, 1h or a number of seconds, as seconds; null for none."""
    if value is None:
        return None
    text = str(value).strip().lower()
    unit = text[-1:] if text[-1:] in _SECONDS else "s"
    try:
        seconds = float(text.removesuffix(unit)) * _SECONDS[unit]
    except ValueError:
        seconds = 0.0
    if isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise ValueError(f"{value!r} is not a duration: expected 30s, 2m, 1h or a number of seconds above 0")
    return seconds


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun: `1 file`, `2,000 files`.

    Args:
      plural: of the noun, if it is not the noun and an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
