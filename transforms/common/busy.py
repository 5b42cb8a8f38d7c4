"""When splits were at work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LONGEST_OF_USUAL = 20
"""A split that took so many times as long as the median is one whose clock was set, or that slept."""


def busy_seconds(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in which at least one split was at work; the time between two launches is not.

    Args:
      spans: of splits, (began, ended) by the clocks of their workers. Where a clock was set meanwhile a
        span is negative, which counts as nothing, or far too long, which counts as a long one.
    """
    if not spans:
        return 0.0
    began, ended = np.array(sorted(spans), np.float64).T
    seconds = np.clip(ended - began, 0, None)
    if not seconds.any():
        return 0.0
    ended = began + np.minimum(seconds, _LONGEST_OF_USUAL * np.median(seconds[seconds > 0]))
    until = np.append(began[0], np.maximum.accumulate(ended)[:-1])
    return float(np.clip(ended - np.maximum(began, until), 0, None).sum())
