"""Dead letters of an earlier run as an input: the rows that they stand for, with their original file and row number.
Each dead letter is accounted for: its rows are read, or rejected again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.formats.base import Chunk, Format, ReadSettings, UnusableFile, format_named
from beam_score.transforms.formats.jsonl.reader import cut_lines
from beam_score.transforms.ledger.ended import DeadLettersLost, files_on_record
from beam_score.transforms.listing.files import InputFile, as_it_is
from beam_score.transforms.replay.dead_letter import DeadLetter, parse_dead_letters, refused_again
from beam_score.transforms.replay.from_payloads import from_payloads
from beam_score.transforms.replay.from_source import from_source
from beam_score.transforms.replay.options import Replay
from beam_score.transforms.stores.compression import open_file

_RESTORE = "restore the original file"


class DeadLetters(Format):
    """The dead letters of an earlier run, in place of the files that they describe."""

    name, title = "dead_letters", "dead letters"
    suffixes = ()
    options_type = Replay

    def check(self, path: str, settings: ReadSettings, version: str | None = None) -> None:
        """Do nothing: `pipeline.prepare.replay` checks dead letters; the files that they describe are checked when
        they are read."""

    def cut(
        self, path: str, size: int, split_bytes: int, settings: ReadSettings, version: str | None = None
    ) -> list[FileRange]:
        """Return ranges of about `split_bytes`, at line ends. One range if rows are read from their source files,
        since each range would have to read these again."""
        replay: Replay = settings.options
        if replay.by == "source" or (replay.by == "auto" and replay.prefers_source):
            return [FileRange(path, size, bytes=size)]
        return cut_lines(path, size, split_bytes, settings, version)

    def read(self, range_: FileRange, settings: ReadSettings) -> Iterator[Chunk]:
        """Yield the rows that the dead letters of a range stand for; a chunk contains rows of one file.

        Raises:
          DeadLettersLost: the replay is impossible, and not because of the files that the dead letters describe.
        """
        replay: Replay = settings.options
        original = dataclasses.replace(settings, format=replay.format, options=replay.options)
        files = files_on_record(replay.output, replay.run)
        for lines in _lines(range_, settings.max_block_bytes):
            try:
                dead_letters = parse_dead_letters(lines, replay.format)
            except (ValueError, KeyError, TypeError):
                raise DeadLettersLost(
                    f"{range_.path}: a line is not a dead letter: the file was changed; restore it"
                ) from None
            for source in dict.fromkeys(letter.source for letter in dead_letters):
                own = sorted(
                    (letter for letter in dead_letters if letter.source == source), key=lambda letter: letter.row
                )
                yield from _replayed(source, own, files.get(source), replay, original)


FORMAT = DeadLetters()


def _lines(range_: FileRange, size: int) -> Iterator[bytes]:
    """Yield whole lines of a range, about `size` bytes at a time."""
    rest, left = b"", (range_.size if range_.end < 0 else range_.end) - range_.start
    try:
        with open_file(range_.path, range_.version) as file:
            file.seek(range_.start)
            while left > 0 and (piece := file.read(min(size, left))):
                left -= len(piece)
                lines, end, begun = (rest + piece).rpartition(b"\n")
                rest = begun
                if end:
                    yield lines
    except OSError as error:
        raise DeadLettersLost(f"{range_.path}: {error.strerror or type(error).__name__}") from error
    if rest or left:
        raise DeadLettersLost(f"{range_.path}: the file of dead letters is truncated: restore it")


def _replayed(
    source: str,
    dead_letters: Sequence[DeadLetter],
    file: Mapping[str, Any] | None,
    replay: Replay,
    settings: ReadSettings,
) -> Iterator[Chunk]:
    """Yield the rows that some dead letters of one file stand for."""
    if file is None:
        raise DeadLettersLost(f"run {replay.run} has dead letters of {source}, but no record of this file")
    now = as_it_is(source)
    header = _header(source, file, now, settings)
    ways: dict[str, list[DeadLetter]] = {"payload": [], "source": []}
    for letter in dead_letters:
        way, why = _way(letter, file, now, header, replay, settings)
        if way is None:
            yield refused_again([letter], f"not replayed: {why}", settings)
        else:
            ways[way].append(letter)
    if ways["payload"]:
        yield from from_payloads(ways["payload"], header, settings)
    if ways["source"]:
        assert now is not None  # otherwise `_way` does not return `source`
        yield from from_source(now, ways["source"], settings)


def _header(source: str, file: Mapping[str, Any], now: Mapping[str, Any] | None, settings: ReadSettings) -> str | None:
    """Return the header that payloads need to be understood."""
    if not settings.options.header:
        return None
    if file["header"] is None and now is not None and _is_same(file, now):
        try:
            return format_named(settings.format).header_of(source, settings, InputFile(**now).version)
        except UnusableFile:
            return None
    return file["header"]


def _is_same(file: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return all(file.get(name) == value for name, value in now.items())


def _way(
    letter: DeadLetter,
    file: Mapping[str, Any],
    now: Mapping[str, Any] | None,
    header: str | None,
    replay: Replay,
    settings: ReadSettings,
) -> tuple[str | None, str]:
    """Return (`payload` or `source`, "") for the origin of a dead letter's rows; or (None, why neither is possible)."""
    not_there = _not_in_source(letter, file, now, replay)
    if letter.is_of_damage:
        if replay.by == "payload":
            return None, "its file was damaged there, so it can only be read from the file, and --from is payload"
        return (None, not_there) if not_there else ("source", "")
    not_shown = _not_in_payload(letter, header, settings)
    ways = {"payload": not_shown, "source": not_there}
    if replay.by != "auto":
        ways = {replay.by: ways[replay.by]}
    elif replay.prefers_source:
        ways = {"source": not_there, "payload": not_shown}  # source first, as it has the exact types
    for way, why in ways.items():
        if not why:
            return way, ""
    return None, ", and ".join(ways.values())


def _not_in_payload(letter: DeadLetter, header: str | None, settings: ReadSettings) -> str:
    """Return why a row cannot be read from its dead letter; empty if it can."""
    if letter.payload is None:
        return "the dead letter has no payload"
    if letter.payload_cut:
        return "the payload is truncated at 64 KiB"
    if settings.options.header and header is None:
        return "the header of its file is no longer known"
    if (letter.kind == "json") != (format_named(settings.format).payload_kind == "json"):
        return f"the payload is not a record of {settings.format}"
    return ""


def _not_in_source(letter: DeadLetter, file: Mapping[str, Any], now: Mapping[str, Any] | None, replay: Replay) -> str:
    """Return why rows cannot be read from their file; empty if they can.

    A damaged file may have been replaced: that is the remedy. The rows of the replacement are the same, in the same
    order, as those read before the damage.
    """
    if now is None:
        return f"its file is missing: {_RESTORE}"
    if not replay.same_rows and (letter.rows is not None or letter.row):
        return "with another format, delimiter, quote or header its row number is different"
    if letter.is_of_damage:
        known = file["predicted_before"] + file["read"]
        if letter.rows is None and letter.row != known:
            return "rows after this stretch were read, so its end is not known: score its file in a separate job"
    elif not _is_same(file, now):
        return f"its file has changed since run {replay.run}: {_RESTORE}"
    return ""
