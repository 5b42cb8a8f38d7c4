"""Rows as JSON, by the writer of JSON Lines, so that a value looks the same online as in a file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import orjson
import pyarrow as pa

from beam_score.transforms.output.json_lines import to_json_lines


class Lines:
    """Predictions as JSON, of which any range can be taken.

    Args:
      predictions: one row each.
      bare: the name of the only column, whose values are written without it; None for objects.
    """

    def __init__(self, predictions: pa.RecordBatch, bare: str | None):
        # JSON has no NaN: the text says which value it was.
        self._text = to_json_lines(pa.Table.from_batches([predictions]), "string") if predictions.num_rows else b""
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == 10)
        if len(ends) < predictions.num_rows:
            ends = np.append(ends, len(self._text))
        self._starts, self._ends = np.append(0, ends[:-1] + 1), ends
        self._key = None if bare is None else b"{" + orjson.dumps(bare) + b":"

    def between(self, start: int, stop: int) -> bytes:
        """Return some rows, separated by commas."""
        if start == stop or not self._text:
            return b""
        text = self._text[self._starts[start] : self._ends[stop - 1]]
        if self._key is None:
            return text.replace(b"\n", b",")
        return text[len(self._key) : -1].replace(b"}\n" + self._key, b",")


def as_columns(columns: Mapping[str, pa.Array]) -> bytes:
    """Return a JSON object of columns; the values of the only column, if there is one."""
    lists = {}
    for name, column in columns.items():
        lists[name] = pa.LargeListArray.from_arrays(pa.array([0, len(column)], pa.int64()), column)
    text = to_json_lines(pa.table(lists), "string").rstrip(b"\n")
    if len(lists) > 1:
        return text
    (name,) = lists
    return text[len(b"{" + orjson.dumps(name) + b":") : -1]
