"""The code that peers share: arguments, the columns, the rules of a valid row, the model's input, the clock."""

from __future__ import annotations

import argparse
import json
import os
import time

import numpy as np

FEATURES = ("age", "income", "score")
LOW = np.array([0, 0, 0], np.float32)
HIGH = np.array([150, np.inf, 1], np.float32)
MEAN = np.array([40, 5e4, 0.5], np.float32)
STD = np.array([12, 3e4, 0.3], np.float32)


def parse_arguments(description: str | None) -> argparse.Namespace:
    """Return the arguments of a peer without options: pattern, model, out, threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", help="input files, .csv")
    parser.add_argument("--model", required=True, help="a SavedModel")
    parser.add_argument("--out", required=True, help="folder of the predictions")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


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
            **extra,
        }
        print(json.dumps(line), flush=True)


def quiet_tensorflow() -> None:
    """Silence TensorFlow's notes and its search for a GPU; call before TensorFlow is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
