"""CRC32C of many records at once: a call for each would take 0.15 us, in which no other thread can run Python.

The CRC of a text followed by n bytes is that of the text, changed by a linear function of its bits that depends only on
n, XOR that of the bytes (as in zlib's `crc32_combine`). So the CRCs of many records that follow each other give the one
of all their bytes.
"""

from __future__ import annotations

import functools

import google_crc32c
import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.texts import Texts

_GROUP_BITS = 12
"""Records that end in the same 4 KiB are checked together: two tables suffice, and a wrong record costs few calls."""

_DIGIT_BITS = 6


def hold(records: pa.Array, crcs: np.ndarray) -> np.ndarray:
    """Return which records have these CRCs.

    That wrong records of a group cancel each other is as improbable as that a CRC does not notice damage. Single bits
    in the CRCs of two records could, if less than 4 bytes lie between: so short records are checked one by one.

    Args:
      records: binary, without nulls, each after the other in memory.
      crcs: uint32.
    """
    count = len(records)
    good = np.ones(count, bool)
    if not count:
        return good
    offsets, data = Texts(records, (count,)).buffers()
    starts, ends = offsets[:-1], offsets[1:]
    short = np.flatnonzero(ends - starts < 4)
    stored, crcs = crcs, crcs.copy()
    crcs[short] = _crcs(data, starts[short], ends[short])
    good[short] = crcs[short] == stored[short]
    first = np.flatnonzero(np.diff(ends - 1 >> _GROUP_BITS, prepend=-2))
    last = np.append(first[1:], count) - 1
    tails = np.repeat(ends[last], last - first + 1) - ends
    expected = np.bitwise_xor.reduceat(_followed(crcs, tails), first)
    for group in np.flatnonzero(expected != _crcs(data, starts[first], ends[last])).tolist():
        own = slice(first[group], last[group] + 1)
        good[own] = _crcs(data, starts[own], ends[own]) == stored[own]
    return good


def _crcs(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.array([google_crc32c.value(data[start:end].tobytes()) for start, end in pairs], np.uint32)


def _followed(crcs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return what becomes of some CRCs when so many bytes follow, without what these bytes add."""
    digit, most = 0, int(sizes.max(initial=0))
    while most >> _DIGIT_BITS * digit:
        which = (sizes >> _DIGIT_BITS * digit) & ((1 << _DIGIT_BITS) - 1)
        crcs = _apply(_tables(digit), crcs, which << 10)
        digit += 1
    return crcs


def _apply(tables: np.ndarray, crcs: np.ndarray, at: np.ndarray | int = 0) -> np.ndarray:
    """Apply linear functions of 32 bits, each given by 4 tables of 256: its values for each byte of its argument.

    Args:
      tables: uint32, flat.
      at: where the function of each argument begins in `tables`.
    """
    result = tables[at + (crcs & np.uint32(255))]
    for byte in (1, 2, 3):
        result ^= tables[at + 256 * byte + ((crcs >> np.uint32(8 * byte)) & np.uint32(255))]
    return result


@functools.cache
def _tables(digit: int) -> np.ndarray:
    """Return the functions for k * 64**digit following bytes, k from 0 to 63, as one flat array of uint32."""
    identity = (np.arange(256, dtype=np.uint32)[None, :] << (8 * np.arange(4, dtype=np.uint32))[:, None]).ravel()
    if digit:
        below = _tables(digit - 1)
        once = _apply(below[1 << 10 : 2 << 10], below[-1 << 10 :])  # one of the digit below after 63 of them
    else:
        # One byte: what is shifted out selects what is added.
        nothing = google_crc32c.value(b"\0")
        added = np.array([google_crc32c.value(bytes([byte])) ^ nothing for byte in range(256)], np.uint32)
        once = added[identity & np.uint32(255)] ^ (identity >> np.uint32(8))
    functions = [identity]
    while len(functions) < 1 << _DIGIT_BITS:
        functions.append(_apply(once, functions[-1]))
    return np.concatenate(functions)
