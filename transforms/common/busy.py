"""Computes the time in which splits were processed."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST_OF_USUAL = 20
"""A split that took more than this many times the median had its clock changed, or its machine suspended."""


def busy_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Return the seconds in which at least one split was processed, without the time between launches.

    Args:
      spans: (began, ended) of each split, by the clock of its worker. If a clock was changed meanwhile, a span may be
        negative, which counts as 0, or far too long, which is capped.
    """
    if not spans:
        return 0.0
    import numpy as np  # `status` seldom needs it

    began, ended = np.array(sorted(spans), np.float64).T
    seconds = np.clip(ended - began, 0, None)
    if not seconds.any():
        return 0.0
    ended = began + np.minimum(seconds, _LONGEST_OF_USUAL * np.median(seconds[seconds > 0]))
    until = np.append(began[0], np.maximum.accumulate(ended)[:-1])
    return float(np.clip(ended - np.maximum(began, until), 0, None).sum())
