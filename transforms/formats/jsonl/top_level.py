"""The JSON text of values of top-level keys, in lines that are known to be JSON objects.

Arrow returns values, not their text, and the exact parser takes some 100 microseconds for a line with nested values.
Here all lines of a block are scanned at once: which bytes are inside strings, how deep each bracket is, and so where
the keys and values of the outermost objects are.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_QUOTE, _BACKSLASH, _COLON, _COMMA = b'"\\:,'
_OPEN, _CLOSE = b"{}"
_LOWER = 32  # turns [ into { and ] into }
_IS_WHITE = np.zeros(256, bool)
_IS_WHITE[list(b" \t\r\n")] = True


class TopLevel:
    """The members of the objects in some lines.

    Args:
      data: the lines, each one valid JSON object.
      starts: where each line starts, ascending.
    """

    def __init__(self, data: bytes, starts: np.ndarray):
        self._data, self._starts = data, starts
        text = self._text = np.frombuffer(data, np.uint8)
        quotes = text == _QUOTE
        if _BACKSLASH in data:
            quotes[_escaped(text)] = False
        # True from an opening quote up to the byte before the closing one.
        self._inside = np.bitwise_xor.accumulate(quotes.view(np.uint8)).view(bool)
        bracket = text | _LOWER
        structure = (bracket == _OPEN) | (bracket == _CLOSE) | (text == _COLON) | (text == _COMMA)
        at = np.flatnonzero(structure & ~self._inside)
        byte, bracket = text[at], bracket[at]
        depth = np.cumsum((bracket == _OPEN).view(np.int8) - (bracket == _CLOSE).view(np.int8), dtype=np.int32)
        self._colons = at[(byte == _COLON) & (depth == 1)]
        # A value ends at a comma between members, or where the object is closed.
        self._ends = at[((byte == _COMMA) & (depth == 1)) | (depth == 0)]

    def _key_ends(self) -> np.ndarray:
        """Return the position after each key, which need not be next to its colon."""
        ends = self._colons
        while (white := _IS_WHITE[self._text[ends - 1]]).any():
            ends = ends - white
        return ends

    def has_escaped_key(self) -> np.ndarray:
        """Return which lines have a key with an escape: it may be any name."""
        found = np.zeros(len(self._starts), bool)
        if _BACKSLASH in self._data:
            ends = self._key_ends()
            opening = np.flatnonzero(np.diff(self._inside.view(np.int8), prepend=0) == 1)
            starts = opening[np.searchsorted(opening, ends) - 1]
            before = np.append(0, np.cumsum(self._text == _BACKSLASH))
            escaped = self._colons[before[ends] > before[starts]]
            found[np.searchsorted(self._starts, escaped, side="right") - 1] = True
        return found

    def texts(self, name: str) -> tuple[pa.Array, np.ndarray]:
        """Return the text of a key's value in each line, null if the value is null or the key is missing; and in how
        many members of each line the key occurs."""
        key = json.dumps(name, ensure_ascii=False).encode()
        key_starts, colons = self._key_ends() - len(key), self._colons
        key_starts, colons = key_starts[key_starts > 0], colons[key_starts > 0]
        for offset in (len(key) - 2, *range(len(key) - 2)):  # names differ in their last character more often
            same = self._text[key_starts + offset] == key[offset]
            key_starts, colons = key_starts[same], colons[same]
        colons = colons[self._inside[key_starts]]  # a quote before the name may be the end of another string
        lines = np.searchsorted(self._starts, colons, side="right") - 1
        starts, ends = colons + 1, self._ends[np.searchsorted(self._ends, colons)]
        while (white := _IS_WHITE[self._text[starts]]).any():
            starts = starts + white
        while (white := _IS_WHITE[self._text[ends - 1]]).any():
            ends = ends - white
        found = _cut_out(self._data, starts, ends)
        found = pc.if_else(pc.equal(found, "null"), pa.scalar(None, pa.string()), found)
        take = np.full(len(self._starts), -1)
        take[lines] = np.arange(len(lines))
        times = np.bincount(lines, minlength=len(self._starts))
        return found.take(pa.array(take, mask=take < 0)), times


def _escaped(text: np.ndarray) -> np.ndarray:
    """Return the positions of the bytes that follow an odd number of backslashes, or one of an even number."""
    at = np.flatnonzero(text == _BACKSLASH)
    first = np.flatnonzero(np.diff(at, prepend=-2) != 1)
    run_starts = np.repeat(at[first], np.diff(first, append=len(at)))
    return at[(at - run_starts) % 2 == 0] + 1


def _cut_out(data: bytes, starts: np.ndarray, ends: np.ndarray) -> pa.Array:
    """Return stretches of a text that is UTF-8, as strings."""
    if not len(starts):
        return pa.array([], pa.string())
    offsets = np.stack([starts, ends], axis=1).ravel()  # every second stretch between these is one
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data)]
    stretches = pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers)
    return stretches.take(pa.array(np.arange(0, len(offsets), 2))).cast(pa.string())
