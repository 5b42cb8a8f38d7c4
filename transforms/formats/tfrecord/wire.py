"""The wire format of tf.Example, parsed with numpy for all records of a block in lock-step.

One load of eight bytes a record decides what comes next, for all records at once. A record that is not in the plain
form of every tf.Example writer, or is broken, is marked `slow` and left to protobuf
(`transforms.formats.tfrecord.examples`). This module never decides that a record is malformed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import broken_text, cut_out
from beam_score.transforms.framing.tfrecord import Records

BYTES, FLOAT, INT64 = 1, 2, 3
KIND_NAMES = {BYTES: "bytes_list", FLOAT: "float_list", INT64: "int64_list"}
_FEW = 16
"""Fewer records than this are not worth a separate step."""


@dataclasses.dataclass(frozen=True)
class Lists:
    """The values of one feature, of one kind.

    Attributes:
      rows: int64, ascending: the records that have the feature with this kind.
      counts: int64: how many values each record has.
      values: of all records, flat: binary, float32 or int64.
    """

    rows: np.ndarray
    counts: np.ndarray
    values: pa.Array


class LockStep:
    """Flat arrays over the entries of the feature maps of all records.

    After `find_entries` and `find_lists`: `row` of each entry; `key`, `key_size`; `kind` (0: none);
    `start` and `end` of its values: of the packed numbers, or of the list of byte strings.
    """

    def __init__(self, records: Records):
        buffer = records.buffer
        self.buffer, self.starts, self.ends = buffer, records.starts, records.ends
        self.bytes = np.frombuffer(buffer, np.uint8)
        self.words = np.ndarray(len(buffer) - 7, "<u8", buffer, 0, 1)
        self.floats = np.ndarray(len(buffer) - 3, "<u4", buffer, 0, 1)
        self.slow = np.zeros(len(records), bool)  # records left to protobuf

    def head(self, at: np.ndarray, tag: int | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parse a tag and a length at these positions: return where the content starts and ends, and whether they
        are valid."""
        word = self.words[at]
        good = (word & np.uint64(0xFF)) == tag
        size, width, fits = _varint(word >> np.uint64(8))
        start = at + (1 + width)
        return start, start + size, good if fits is None else good & fits

    def find_entries(self) -> None:
        """Find the entries of the feature maps."""
        some = np.flatnonzero(self.ends > self.starts)
        at, end, good = self.head(self.starts[some], 0x0A)
        good &= end == self.ends[some]
        self.slow[some[~good]] = True
        good &= at < end
        row, at, end = some[good], at[good], end[good]
        found = []
        while len(row) >= _FEW:
            start, stop, good = self.head(at, 0x0A)
            good &= stop <= end
            if not good.all():
                self.slow[row[~good]] = True
                row, start, stop, end = row[good], start[good], stop[good], end[good]
            found.append((row, start, stop))
            at = stop
            more = at < end
            if not more.all():
                row, at, end = row[more], at[more], end[more]
        self.slow[row] = True
        empty = (np.zeros(0, np.int64),) * 3
        self.row, self.entry, self.entry_end = map(np.concatenate, zip(empty, *found, strict=True))

    def find_lists(self) -> None:
        """Parse each entry: its key, and its list of values."""
        word, end = self.words[self.entry], self.entry_end
        key_size = ((word >> np.uint64(8)) & np.uint64(0xFF)).astype(np.int64)
        self.key = self.entry + 2
        value = self.key + key_size
        good = ((word & np.uint64(0xFF)) == 0x0A) & (key_size < 128) & (value < end)
        value = np.where(good, value, self.entry)
        self.key_size = np.where(good, key_size, 0)
        # Usually all lengths take one byte: 12 SIZE KIND SIZE 0a SIZE
        word = self.words[value]
        rest = end - value
        tag = ((word >> np.uint64(16)) & np.uint64(0xFF)).astype(np.int64)
        size = rest.astype(np.uint64)
        plain = (word & np.uint64(0xFF)) == 0x12
        plain &= ((word >> np.uint64(8)) & np.uint64(0xFF)) == size - np.uint64(2)
        plain &= ((word >> np.uint64(24)) & np.uint64(0xFF)) == size - np.uint64(4)
        plain &= (rest >= 6) & (rest < 128) & good
        packed = (tag == 0x12) | (tag == 0x1A)
        inner = ((word >> np.uint64(32)) & np.uint64(0xFFFF)) == (
            ((size - np.uint64(6)) << np.uint64(8)) | np.uint64(0x0A)
        )
        plain &= (packed & inner) | (tag == 0x0A)
        self.kind = np.where(plain, tag >> 3, 0)
        self.start = value + np.where(tag == 0x0A, 4, 6)
        self.end = end
        other = np.flatnonzero(good & ~plain)
        if len(other):
            self._find_lists_of_any_size(other, value[other], end[other])
        self.drop(~good)

    def _find_lists_of_any_size(self, which: np.ndarray, value: np.ndarray, end: np.ndarray) -> None:
        feature, stop, good = self.head(value, 0x12)
        good &= stop == end
        empty = good & (feature == end)  # a feature without a list
        at = np.where(good & ~empty, feature, value)
        tag = self.bytes[at].astype(np.int64)
        start, stop, sized = self.head(at, tag)
        listed = good & ~empty & sized & (stop == end) & ((tag == 0x0A) | (tag == 0x12) | (tag == 0x1A))
        numbers = listed & (tag != 0x0A) & (start < end)
        at = np.where(numbers, start, value)
        inner, stop, sized = self.head(at, 0x0A)
        packed = numbers & sized & (stop == end)
        good = empty | (listed & (~numbers | packed))
        self.kind[which] = np.where(listed & good, tag >> 3, 0)
        self.start[which] = np.where(packed, inner, start)
        self.slow[self.row[which[~good]]] = True

    def drop(self, bad: np.ndarray) -> None:
        """Leave the records of these entries to protobuf."""
        if bad.any():
            self.slow[self.row[bad]] = True

    def match(self, names: Sequence[str]) -> list[np.ndarray]:
        """Return the entries of each name, ascending by row."""
        keys = [name.encode() for name in names]
        first = self.words[self.key] & _LOW_BYTES[np.minimum(self.key_size, 8)]
        matches = []
        for key in keys:
            word = np.uint64(int.from_bytes(key[:8], "little"))
            at = np.flatnonzero((first == word) & (self.key_size == len(key)))
            for offset in range(8, len(key), 8):
                offset = min(offset, len(key) - 8)
                word = np.uint64(int.from_bytes(key[offset : offset + 8], "little"))
                at = at[self.words[self.key[at] + offset] == word]
            row = self.row[at]
            if not (np.diff(row) > 0).all():
                order = np.argsort(row, kind="stable")
                at, row = at[order], row[order]
                twice = row[1:][np.diff(row) == 0]
                self.slow[twice] = True  # of duplicate names the last counts
            matches.append(at)
        return matches

    def check_other_names(self, known: list[np.ndarray]) -> None:
        """Leave records with a name that is not UTF-8 to protobuf: they are malformed."""
        self.other = np.ones(len(self.row), bool)
        for at in known:
            self.other[at] = False
        at = np.flatnonzero(self.other)
        high = self.words[self.key[at]] & _LOW_BYTES[np.minimum(self.key_size[at], 8)] & np.uint64(0x8080808080808080)
        at = at[(high != 0) | (self.key_size[at] > 8)]
        if len(at):
            at = at[np.argsort(self.key[at])]
            names = cut_out(pa.py_buffer(self.buffer), self.key[at], self.key[at] + self.key_size[at])
            self.slow[self.row[at[broken_text(names)]]] = True

    def values(self) -> dict[int, tuple[np.ndarray, ...]]:
        """Return all values; finding them also verifies the lists."""
        return {BYTES: self._byte_strings(), INT64: self._integers(), FLOAT: self._check_floats()}

    def _check_floats(self) -> tuple[()]:
        size = self.end - self.start
        self.drop((self.kind == FLOAT) & (size % 4 != 0))
        return ()

    def _byte_strings(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (entry, start, end) of each value, ordered by entry."""
        entry = np.flatnonzero((self.kind == BYTES) & ~self.slow[self.row])
        at, end = self.start[entry], self.end[entry]
        more = at < end
        entry, at, end = entry[more], at[more], end[more]
        found = []
        while len(entry) >= _FEW:
            start, stop, good = self.head(at, 0x0A)
            good &= stop <= end
            if not good.all():
                self.slow[self.row[entry[~good]]] = True
                entry, start, stop, end = entry[good], start[good], stop[good], end[good]
            found.append((entry, start, stop))
            at = stop
            more = at < end
            if not more.all():
                entry, at, end = entry[more], at[more], end[more]
        self.slow[self.row[entry]] = True
        if len(found) == 1:
            return found[0]
        empty = (np.zeros(0, np.int64),) * 3
        entry, start, stop = map(np.concatenate, zip(empty, *found, strict=True))
        order = np.argsort(entry, kind="stable")
        return entry[order], start[order], stop[order]

    def _integers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return values of all int64 lists in entry order; the position of each entry's first value, and their
        number."""
        entry = np.flatnonzero((self.kind == INT64) & ~self.slow[self.row])
        size = self.end[entry] - self.start[entry]
        before = np.cumsum(size) - size
        octets = self.bytes[np.repeat(self.start[entry] - before, size) + np.arange(size.sum())]
        first = np.zeros(len(self.row), np.int64)
        counts = np.zeros(len(self.row), np.int64)
        if not len(octets):
            return np.zeros(0, np.int64), first, counts
        last = octets < 128
        tails = (before + size - 1)[size > 0]
        bad = np.zeros(len(entry), bool)
        bad[size > 0] = ~last[tails]
        last[tails] = True  # a truncated value does not extend into another record
        index = np.cumsum(last)  # how many values end here or before
        starts = np.append(0, np.flatnonzero(last)[:-1] + 1)
        place = np.arange(len(octets)) - starts[index - last]
        odd = (place > 9) | ((place == 9) & (octets > 1))  # more than 64 bits
        if odd.any():
            bad[np.repeat(np.arange(len(entry)), size)[odd]] = True
        self.slow[self.row[entry[bad]]] = True
        parts = (octets & 0x7F).astype(np.uint64) << np.minimum(place * 7, 63).astype(np.uint64)
        values = np.add.reduceat(parts, starts).view(np.int64)
        up_to = np.zeros(len(entry), np.int64)
        up_to[size > 0] = index[tails]
        through = np.maximum.accumulate(up_to)
        counts[entry] = np.diff(through, prepend=0)
        first[entry] = through - counts[entry]
        return values, first, counts

    def lists(self, at: np.ndarray, kind: int, values: dict[int, tuple[np.ndarray, ...]]) -> Lists | None:
        """Return the lists of one kind at these entries, without those of records left to protobuf."""
        row = self.row[at]
        mine = (self.kind[at] == kind) & ~self.slow[row]
        if not mine.all():
            at, row = at[mine], row[mine]
        if not len(at):
            return None
        if kind == FLOAT:
            counts = (self.end[at] - self.start[at]) // 4
            flat = self.floats[_ragged(self.start[at], counts, 4)].view(np.float32)
            return Lists(row, counts, pa.array(flat))
        if kind == INT64:
            found, first, counts = values[INT64]
            counts = counts[at]
            return Lists(row, counts, pa.array(found[_ragged(first[at], counts, 1)]))
        entry, start, end = values[BYTES]
        lo, hi = np.searchsorted(entry, at), np.searchsorted(entry, at, side="right")
        counts = hi - lo
        index = _ragged(lo, counts, 1)
        return Lists(row, counts, cut_out(pa.py_buffer(self.buffer), start[index], end[index]))

    def others(self, known: list[np.ndarray]) -> list[tuple[int, str]]:
        at = np.flatnonzero(self.other & ~self.slow[self.row])
        keys = zip(self.row[at].tolist(), self.key[at].tolist(), self.key_size[at].tolist(), strict=True)
        return [(row, self.buffer[key : key + size].decode()) for row, key, size in keys]


_LOW_BYTES = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)


def _ragged(starts: np.ndarray, counts: np.ndarray, stride: int) -> np.ndarray:
    """Return start, start + stride, ... of each run."""
    if len(counts) and (counts == counts[0]).all():
        if counts[0] == 1:
            return starts
        return (starts[:, None] + stride * np.arange(counts[0])).ravel()
    before = np.cumsum(counts) - counts
    return np.repeat(starts - stride * before, counts) + stride * np.arange(counts.sum())


def _varint(word: np.ndarray) -> tuple[np.ndarray, np.ndarray | int, np.ndarray | None]:
    """Return the varint in the low bytes: its value, its width, and whether four bytes sufficed (None: all)."""
    if not (word & np.uint64(0x80)).any():
        return (word & np.uint64(0x7F)).astype(np.int64), 1, None
    value, width = word & np.uint64(0x7F), np.ones(len(word), np.int64)
    goes_on = (word & np.uint64(0x80)) != 0
    for k in range(1, 4):
        part = word >> np.uint64(8 * k)
        value |= np.where(goes_on, (part & np.uint64(0x7F)) << np.uint64(7 * k), np.uint64(0))
        width += goes_on
        goes_on = goes_on & ((part & np.uint64(0x80)) != 0)
    return value.astype(np.int64), width, ~goes_on
