"""The code that all peers share: the columns, the rules of a valid row, the model's input, the clock."""

from __future__ import annotations

import json
import os
import resource
import time

import numpy as np

FEATURES = ("age", "income", "score")
LOW = np.array([0, 0, 0], np.float32)
HIGH = np.array([150, np.inf, 1], np.float32)
MEAN = np.array([40, 5e4, 0.5], np.float32)
STD = np.array([12, 3e4, 0.3], np.float32)


class Clock:
    """Wall and CPU time of this process from now, the first read, to `report`, the last write.

    Earlier time, for imports and loading the model, is start-up and not counted.
    """

    def __init__(self) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def report(self, rows: int, predicted: int, **extra: object) -> None:
        """Print one line of JSON, which `compare.py` reads."""
        seconds = time.perf_counter() - self._start
        line = {
            "rows": rows,
            "predicted": predicted,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(time.process_time() - self._cpu_start, 3),
            "rows_per_s": round(rows / seconds),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            **extra,
        }
        print(json.dumps(line), flush=True)


def quiet_tensorflow() -> None:
    """Silence TensorFlow's notes and its search for a GPU; call before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
