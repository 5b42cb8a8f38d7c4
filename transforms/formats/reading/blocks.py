"""Reading of splits as blocks, for all formats."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Iterator, Sequence

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.formats.base import Chunk, Format, ReadSettings, UnusableFile, empty_rows, format_named
from beam_score.transforms.formats.reading.small_files import Together
from beam_score.transforms.rows.block import Block
from beam_score.transforms.rows.faults import known_rows, stretch
from beam_score.transforms.rows.sources import Source
from beam_score.transforms.stores.compression import Refuted, damage_of
from beam_score.transforms.stores.fetch import StoreFails
from beam_score.transforms.stores.held import Ahead
from beam_score.transforms.stores.local_file import WAITS_S, ReadFails, fails, is_of_the_system, may_pass
from beam_score.transforms.stores.objects import is_object
from beam_score.transforms.stores.versions import InputChanged, check_unless_asked_for

_MOST_ATTEMPTS = 3  # of a split whose files do not change: the second attempt knows what is refused


def read_split(split: Split, settings: ReadSettings, attempt: str, stopping: Stopping | None = None) -> Iterator[Block]:
    """Read one split: yield its rows in blocks, then an empty block with the total.

    A checksum is verified at the end of the data that it covers, after the blocks of that data were yielded. If it
    fails, an empty block marked void revokes this whole attempt, and another attempt stops before the refused data. So
    no block is delayed, and a sound file is read once.

    Raises:
      InputChanged: a file is not, or is no longer, the version of the split: checked at the beginning of its range, and
        before the total is yielded, without which no block of a split counts.
      StoreFails, ReadFails: a store, or the system, does not return a file's bytes: the rows are not at fault.
    """
    for _ in range(_MOST_ATTEMPTS):
        try:
            yield from _attempt(split, settings, attempt, stopping)
            return
        except Refuted:
            ranges = [dataclasses.replace(r, sound=damage_of(r.path, r.version)) for r in split.ranges]
            split, attempt = dataclasses.replace(split, ranges=tuple(ranges)), new_attempt()
    raise ReadFails(f"split {split.id}: a checksum in one of its files failed in one read and was correct in the next")


def _attempt(split: Split, settings: ReadSettings, attempt: str, stopping: Stopping | None) -> Iterator[Block]:
    """Yield the blocks of one attempt. Raises Refuted after a void block."""
    seq = total = 0
    started = time.time()
    empty = None
    last = split.ranges[-1].path if split.ranges else ""
    begun: dict[str, str | None] = {}
    began = time.perf_counter()
    try:
        for source, chunk in _pieces(split, settings, begun, stopping):
            block = Block(split.id, attempt, seq, source, chunk.rows, chunk.rejected, chunk.origin, began=started)
            yield block.with_tally(read_s=time.perf_counter() - began)
            if stopping is not None:
                stopping.check()
            seq, total = seq + 1, total + block.count
            empty = chunk.rows.slice(0, 0)
            began = time.perf_counter()
    except Refuted:
        empty = empty_rows(settings) if empty is None else empty
        yield Block(split.id, attempt, seq, last, empty, void=True, began=started)
        raise
    for path, version in begun.items():
        check_unless_asked_for(path, version)
    empty = empty_rows(settings) if empty is None else empty
    yield Block(split.id, attempt, seq, last, empty, total=total, began=started)


def _pieces(
    split: Split, settings: ReadSettings, begun: dict[str, str | None], stopping: Stopping | None
) -> Iterator[tuple[Source, Chunk]]:
    """Yield the chunks of all ranges, in order, those of small files joined, with the source of their rows."""
    format_, together = format_named(settings.format), Together(settings)
    with Ahead(split.ranges) as ahead:
        for range_ in split.ranges:
            ahead.turn_of(range_)
            yield from together.of(range_.path, _chunks(format_, range_, settings, begun))
            if stopping is not None:
                stopping.check()
        yield from together.rest()


def _chunks(
    format_: Format, range_: FileRange, settings: ReadSettings, begun: dict[str, str | None]
) -> Iterator[Chunk]:
    first_row = range_.first_row
    try:
        check_unless_asked_for(range_.path, range_.version)
        begun[range_.path] = range_.version
        for chunk in read_range(format_, range_, settings):
            yield chunk
            first_row += _count(chunk)
    except (InputChanged, StoreFails, ReadFails):
        raise
    except Exception as error:
        # If the file is not the intended version, the error is not the fault of the intended file's rows.
        with contextlib.suppress(OSError):
            check_unless_asked_for(range_.path, range_.version)
        if isinstance(error, UnusableFile):
            # One dead letter a file: its other ranges report nothing.
            if range_.index == 0:
                yield Chunk(empty_rows(settings), stretch(0, None, error.reason, error.message, error.column))
        elif isinstance(error, OSError) and not is_of_the_system(error):
            message = f"the rest of the file could not be read: {error.strerror or type(error).__name__}"
            yield Chunk(empty_rows(settings), stretch(first_row, None, "unreadable", message))
        elif isinstance(error, OSError):
            raise fails(range_.path, error, 1) from error
        else:
            raise


def read_range(
    format_: Format, range_: FileRange, settings: ReadSettings, waits_s: Sequence[float] = WAITS_S
) -> Iterator[Chunk]:
    """Yield the chunks of a range, from the format's reader. After a transient error the range is read again, and the
    chunks that were already yielded are skipped.

    Args:
      waits_s: seconds to wait before each further try.

    Raises:
      ReadFails: the error persisted, or the file returned other rows when it was read again.
      Exception: as the reader.
    """
    given: list[int] = []
    tries = 0
    while True:
        try:
            for number, chunk in enumerate(format_.read(range_, settings)):
                if number >= len(given):
                    given.append(_count(chunk))
                    yield chunk
                elif given[number] != _count(chunk):
                    raise ReadFails(f"{range_.path}: it returned other rows when it was read again after an error")
            return
        except (OSError, MemoryError) as error:
            if not may_pass(error) or (isinstance(error, OSError) and is_object(range_.path)):
                raise
            if tries == len(waits_s):
                raise fails(range_.path, error, tries + 1) from error
        time.sleep(waits_s[tries])
        tries += 1


def _count(chunk: Chunk) -> int:
    return chunk.rows.num_rows + known_rows(chunk.rejected)


def new_attempt() -> str:
    """Return a unique id for an attempt."""
    return secrets.token_hex(6)
