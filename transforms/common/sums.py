"""Additive measurements: seconds by stage, counts by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Amount = TypeVar("Amount", int, float)


def add_tally(tally: Mapping[str, Amount], amounts: Mapping[str, Amount]) -> dict[str, Amount]:
    """Return the sum of two tallies."""
    total = dict(tally)
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount
    return total
