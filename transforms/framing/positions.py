"""Positions of the records of a text, looked up for some of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import numpy as np

from beam_score.transforms.framing.lines import LF, PIECE_BYTES, byte_positions

_MANY = 0.1
"""Share of the records; to look twice as many up takes as long as to list all."""


class Positions(Protocol):
    """The places of the records of a text."""

    def __len__(self) -> int:
        """Return the number of records."""
        ...

    def of(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the starts and ends, int64, of the records with these numbers (int64, ascending), without their line
        ends."""
        ...


@dataclasses.dataclass(frozen=True)
class Listed:
    """The starts and ends, int64, of all records."""

    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.starts[index], self.ends[index]


@dataclasses.dataclass(frozen=True)
class ByLineEnds:
    """Records of which each is one line, and ends in LF.

    To list the positions of all line ends takes four times as long as to count them, and usually few are wanted. So
    there is only a bit for each byte, and their counts; all are listed once many are wanted.

    Attributes:
      text: uint8.
      words: the bits, 64 in a word; the first byte of a text is the lowest bit.
      until: number of line ends up to and with each word, int64.
      first: number of the line end that ends the first record: 1 if the text begins with a line end, as after a header.
    """

    text: np.ndarray
    words: np.ndarray
    until: np.ndarray
    first: int

    def __len__(self) -> int:
        return int(self.until[-1]) - self.first

    def of(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number = index + self.first
        starts = np.where(number > 0, self._line_ends(np.maximum(number - 1, 0)) + 1, 0)
        return starts, self._line_ends(number)

    def _line_ends(self, number: np.ndarray) -> np.ndarray:
        """Return the positions of the line ends with these numbers."""
        if len(number) > len(self) * _MANY:
            return self._listed[number]
        word = np.searchsorted(self.until, number, "right")
        bits = self.words[word]
        before = number - (self.until[word] - np.bitwise_count(bits))  # line ends of the same word
        while (more := before > 0).any():  # 63 times at most
            bits = np.where(more, bits & (bits - np.uint64(1)), bits)  # without the lowest
            before = before - more
        lowest = bits & (~bits + np.uint64(1))
        return word * 64 + np.bitwise_count(lowest - np.uint64(1))

    @functools.cached_property
    def _listed(self) -> np.ndarray:
        return byte_positions(self.text, LF)


def by_line_ends(text: np.ndarray) -> ByLineEnds | None:
    """Return the lines of a text in which only LF ends lines; None if one but the first is blank, or the last one has
    no end.

    Args:
      text: uint8.
    """
    if not len(text) or text[-1] != LF:
        return None
    words = np.zeros(-(-len(text) // 64), "<u8")
    octets = words.view(np.uint8)
    for start in range(0, len(text), PIECE_BYTES):
        bits = np.packbits(text[start : start + PIECE_BYTES] == LF, bitorder="little")
        octets[start // 8 : start // 8 + len(bits)] = bits
    follows = words << np.uint64(1)
    follows[1:] |= words[:-1] >> np.uint64(63)
    if (words & follows).any():
        return None
    return ByLineEnds(text, words, np.cumsum(np.bitwise_count(words), dtype=np.int64), int(text[0] == LF))
