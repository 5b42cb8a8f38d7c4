"""Lines of a block of text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

LF, CR, TAB, SPACE = 10, 13, 9, 32

Buffer = bytes | bytearray | memoryview
"""Any buffer of bytes, such as a `pa.Buffer`."""

PIECE_BYTES = 1 << 20
"""Of a text, a multiple of 64. Small enough for a processor's cache; but each call of numpy lets another thread take
Python's lock: with 64 KiB two threads had 0.92 of the rate over CSV with 1% bad rows, and 0.85 over JSON Lines."""


def line_spans(data: Buffer) -> tuple[np.ndarray, np.ndarray]:
    """Return the lines of a text that are not blank.

    LF, CRLF and CR alone end lines; a line of only spaces and tabs is blank. Other Unicode line
    separators are characters.

    Args:
      data: any buffer of bytes; begins at the start of a line.

    Returns:
      int64 positions of each line's first byte, and of the byte after its last, without the line end.
    """
    text = np.frombuffer(data, np.uint8)
    line_ends = line_end_positions(text)
    starts = np.append(0, line_ends + 1)
    ends = np.append(line_ends, len(text))
    filled = ends > starts
    if not filled.all():
        starts, ends = starts[filled], ends[filled]
    if len(starts):
        white = np.flatnonzero(is_white(text[starts]))
        if len(white):
            view = memoryview(data)
            blank = [i for i in white.tolist() if not bytes(view[starts[i] : ends[i]]).strip(b" \t")]
            starts, ends = np.delete(starts, blank), np.delete(ends, blank)
    return starts, ends


def line_end_positions(text: np.ndarray) -> np.ndarray:
    """Return the positions of every LF and CR in a uint8 array."""
    return byte_positions(text, LF, CR)


def byte_positions(text: np.ndarray, *bytes_: int) -> np.ndarray:
    """Return the positions, ascending, of all occurrences of some bytes in a uint8 array."""
    found = [np.array([], np.int64)]
    for start in range(0, len(text), PIECE_BYTES):
        piece = text[start : start + PIECE_BYTES]
        same = piece == bytes_[0]
        for byte in bytes_[1:]:
            same |= piece == byte
        if same.any():
            found.append(np.flatnonzero(same) + start)
    return np.concatenate(found)


def count_bytes(data: Buffer, byte: int) -> int:
    """Return how often a byte occurs; `bytes.count` takes several times as long where it is frequent."""
    return count_where(data, lambda text: text == byte)


def count_where(data: Buffer, test: Callable[[np.ndarray], np.ndarray]) -> int:
    """Return how many bytes pass a test.

    Args:
      test: takes uint8 numbers, returns booleans.
    """
    text = np.frombuffer(data, np.uint8)
    pieces = range(0, len(text), PIECE_BYTES)
    return sum(int(np.count_nonzero(test(text[at : at + PIECE_BYTES]))) for at in pieces)


def is_white(byte: np.ndarray) -> np.ndarray:
    """Return which bytes are a space or a tab."""
    return (byte == SPACE) | (byte == TAB)


BOM = b"\xef\xbb\xbf"
"""The byte order mark of UTF-8."""

MAX_PAYLOAD_BYTES = 64 * 1024
"""A longer payload is cut, and marked as cut."""
