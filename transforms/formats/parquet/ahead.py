"""Prefetching of the row groups of a Parquet object: the bytes of used columns are fetched before they are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beam_score.transforms.stores.object_file import PIECE_BYTES, ObjectFile, Span

HELD_BYTES = 32 << 20
"""A row group with larger columns is not fetched as a whole: each column is then fetched in pieces, one ahead."""

_GAP_BYTES = 1 << 20
"""Gaps between two columns up to this size are fetched too, to save a request."""

_LEAST_PIECE = 1 << 20


class GroupsAhead:
    """The bytes of row groups that are read one after the other.

    Args:
      source: the file.
      groups: (start, end) of each column chunk that is read, for each row group in order.
    """

    def __init__(self, source: ObjectFile, groups: Sequence[Sequence[tuple[int, int]]]):
        self._source, self._groups = source, groups
        self._held: dict[int, list[Span]] = {}

    def turn_of(self, index: int) -> None:
        """Start fetching a row group that is about to be decoded, and the next one, if both are small enough."""
        for passed in [i for i in self._held if i < index]:
            self._source.drop(self._held.pop(passed))
        self._begin(index)
        following = index + 1
        if following < len(self._groups) and max(map(_size, self._groups[index : index + 2])) <= HELD_BYTES:
            self._begin(following)

    def _begin(self, index: int) -> None:
        if index in self._held:
            return
        chunks = self._groups[index]
        if _size(chunks) <= HELD_BYTES:
            self._held[index] = self._source.hold(list(_joined(chunks)), PIECE_BYTES, ahead=HELD_BYTES, keeps=True)
        else:
            piece = min(max(HELD_BYTES // (2 * len(chunks)), _LEAST_PIECE), PIECE_BYTES)
            self._held[index] = self._source.hold(chunks, piece, ahead=1, keeps=False)
        for span in self._held[index]:
            span.begin()


def _joined(chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield spans that contain the chunks, and small gaps between them."""
    if not chunks:
        return
    start, end = chunks[0]
    for next_start, next_end in chunks[1:]:
        if next_start - end > _GAP_BYTES:
            yield start, end
            start, end = next_start, next_end
        else:
            end = max(end, next_end)
    yield start, end


def _size(chunks: Sequence[tuple[int, int]]) -> int:
    return sum(end - start for start, end in chunks)
