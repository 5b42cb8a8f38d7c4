"""Additive measurements: seconds by stage, counts by name."""

from __future__ import annotations

from collections.abc import Mapping


def add_tally(tally: Mapping[str, float], amounts: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of two tallies."""
    total = dict(tally)
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount
    return total
