"""The header of a CSV file: the names of its columns, and whether the file can be used at all."""

from __future__ import annotations

import collections
import dataclasses

from beam_score.transforms.common.names import near_miss
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.detect import refuse_foreign
from beam_score.transforms.framing import csv as csv_records
from beam_score.transforms.framing.lines import BOM
from beam_score.transforms.stores.compression import CorruptStream, RawStream

_FIRST_READ = 1 << 16
_COMMENT = "; the first line begins with #, and CSV has no comments: remove them, for example with grep -v '^#'"


@dataclasses.dataclass(frozen=True)
class Header:
    """The header of a CSV file.

    Attributes:
      names: of the fields, in the file's order.
      size: bytes before the first record: byte order mark, blank lines and header.
      text: the header itself; None if the file has no header.
    """

    names: tuple[str, ...]
    size: int
    text: str | None = None


def header_of(path: str, settings: ReadSettings, version: str | None = None) -> Header | None:
    """Return the header of a file; None for a file without records.

    Args:
      version: see `transforms.steps.read`.

    Raises:
      UnusableFile: a column is missing or duplicated, or the header is not UTF-8 text.
      OSError: the file cannot be read.
    """
    head, whole, found = _head(path, settings, version)
    refuse_foreign(head)
    bom = len(BOM) if head.startswith(BOM) else 0
    if not settings.options.header:
        return Header((*settings.contract_columns, *settings.kept_undeclared), bom)
    head = head[bom:]
    if not len(found.starts):
        return None
    if found.open_quote and len(found.starts) == 1:
        raise UnusableFile("unterminated_quote", "the header has a quote that is never closed: close it")
    start, end = int(found.starts[0]), int(found.ends[0])
    if not whole and end == len(head):
        raise UnusableFile("unreadable", "the file ends inside its header")
    if len(found.joined) and found.joined[0] < end:
        why = csv_records.joined_message(head[start:end], settings.options.quote, settings.options.escape)
        raise UnusableFile("malformed", f"the header: {why}")
    try:
        text = head[start:end].decode()
    except UnicodeDecodeError:
        raise UnusableFile("bad_encoding", "the header is not UTF-8 text: convert the file") from None
    names = tuple(csv_records.fields(text, *settings.options.dialect))
    _refuse(names, settings)
    return Header(names, bom + end, text)


def _head(path: str, settings: ReadSettings, version: str | None) -> tuple[bytes, bool, csv_records.Spans]:
    """Return the first bytes of a file, which include its first record; False if damage follows them; the records in
    them, without a byte order mark."""
    dialect = settings.options.dialect
    head, size, found = b"", _FIRST_READ, csv_records.spans(b"", *dialect)
    with RawStream(path, version=version) as stream:
        while True:
            try:
                piece = stream.read(size)
            except CorruptStream as damage:
                if head.strip(b"\r\n"):
                    return head, False, found
                raise UnusableFile("unreadable", str(damage)) from None
            head += piece
            found = csv_records.spans(head.removeprefix(BOM), *dialect)
            # A second record shows that the first is whole; without a header the first bytes are enough.
            if not piece or not settings.options.header or len(found.starts) > 1:
                return head, True, found
            if len(head) > settings.max_row_bytes:
                raise UnusableFile("too_large", f"the header is longer than {settings.max_row_bytes} bytes")
            size = len(head)


def _refuse(names: tuple[str, ...], settings: ReadSettings) -> None:
    counts = collections.Counter(names)
    for name, column in settings.contract_columns.items():
        if counts[name] > 1:
            raise UnusableFile("duplicate_key", f"the header has column {name!r} {counts[name]} times", name)
        if not counts[name] and column.required:
            hint = _COMMENT if names[0].startswith("#") else near_miss(name, names)
            raise UnusableFile("missing_column", f"the header has no column {name!r}{hint}", name)
    for name in settings.kept_undeclared:
        if counts[name] != 1:
            raise UnusableFile(
                "missing_column" if not counts[name] else "duplicate_key",
                f"the kept column {name!r} occurs {counts[name]} times in the header{near_miss(name, names)}",
                name,
            )
    if settings.extra == "reject":
        known = settings.contract_columns.keys() | set(settings.kept_undeclared)
        if extra := [n for n in names if n not in known]:
            raise UnusableFile(
                "not_allowed", f"the header has columns that the contract does not name: {extra}", extra[0]
            )
