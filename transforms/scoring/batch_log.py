"""A safe summary of a batch for the log: count, shape and value range, never the exact value of a row."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

log = logging.getLogger(__name__)


def log_batch(arrays: Mapping[str, np.ndarray]) -> None:
    """Log a line for each array of a batch that is passed to the model, at debug level."""
    if log.isEnabledFor(logging.DEBUG):
        for name, array in arrays.items():
            log.debug("batch: %s %s", name, describe_batch(array))


def describe_batch(array: np.ndarray) -> str:
    """Return for example `float32 [8192, 3] min 0 max 2.5e+05 finite 24576 of 24576`. A single row gets only its
    shape, since its smallest and largest value would reveal the row; text gets only its shape, too."""
    text = f"{array.dtype if array.dtype != object else 'string'} {list(array.shape)}"
    if array.dtype.kind not in "fiub" or len(array) < 2:
        return text
    finite = np.isfinite(array)
    if array.dtype.kind == "f":
        text += f" finite {np.count_nonzero(finite)} of {array.size}"
    known = array[finite]
    return f"{text} min {known.min():.3g} max {known.max():.3g}" if len(known) else text
