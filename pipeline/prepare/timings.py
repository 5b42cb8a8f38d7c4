"""The time of model calls by their rows."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from beam_score.transforms.common.peak_memory import resident_bytes, with_peak

_ROUNDS = 5
_SAME = 0.98


@dataclasses.dataclass(frozen=True)
class Timing:
    """The measured duration of a model call.

    Attributes:
      batch_rows: rows per call.
      compiled: whether the call used XLA.
      ms: best of several durations of a call.
    """

    batch_rows: int
    compiled: bool
    ms: float

    @property
    def rows_per_s(self) -> float:
        return self.batch_rows / self.ms * 1e3


def tile(feeds: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Return some rows again and again, up to a number of rows."""
    index = np.resize(np.arange(len(next(iter(feeds.values())))), rows)
    return {name: feed.take(index, axis=0) for name, feed in feeds.items()}


def time_sizes(
    call: Callable[[Mapping[str, np.ndarray]], object],
    feeds: Mapping[str, np.ndarray],
    sizes: Sequence[int],
    may_bytes: int,
    compiled: bool = False,
    longest_call_s: float = 1.0,
    sweep_s: float = 2.0,
) -> list[Timing]:
    """Return the best time of each size; the calls are interleaved, so that noise does not fall on one size. The list
    ends before a size that the model refuses, or that takes too much memory.

    Args:
      call: calls the model.
      feeds: some rows, which are repeated.
      sizes: rows of a call, ascending.
      may_bytes: of memory that a call may take, except the first.
      compiled: see `Timing`.
      longest_call_s: no larger size is tried after a call that took longer.
      sweep_s: no further round is begun after so many seconds.
    """
    tiled: dict[int, dict[str, np.ndarray]] = {}
    best: dict[int, float] = {}
    before = resident_bytes()
    for size in sizes:
        tiled[size] = tile(feeds, size)
        try:
            _, peak = with_peak(functools.partial(call, tiled[size]))  # traces, compiles, warms up
            if best and peak - before > may_bytes:
                break
            best[size] = _clock(call, tiled[size])
        except Exception:  # out of memory, or a limit of the model
            break
        if best[size] > longest_call_s:
            break
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        for size in best:
            best[size] = min(best[size], _clock(call, tiled[size]))
        if time.perf_counter() - began > sweep_s:
            break
    return [Timing(size, compiled, 1e3 * seconds) for size, seconds in best.items()]


def _clock(call: Callable[[Mapping[str, np.ndarray]], object], feeds: Mapping[str, np.ndarray]) -> float:
    began = time.perf_counter()
    call(feeds)
    return time.perf_counter() - began


def fastest(timings: Sequence[Timing]) -> Timing:
    """Return the smallest size that is as fast as the fastest, within noise: it takes less memory."""
    most = max(t.rows_per_s for t in timings)
    return next(t for t in timings if t.rows_per_s >= most * _SAME)


def around(size: int, sizes: Sequence[int]) -> list[int]:
    """Return a size and its neighbours only: compiling each size takes about a second."""
    at = list(sizes).index(size)
    return list(sizes[max(0, at - 1) : at + 3])
