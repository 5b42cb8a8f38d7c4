"""Detection of the format of files, by their suffixes or by their first bytes; also of archives, and of text in another
encoding, which no format reads."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

from beam_score.transforms.formats.base import UnusableFile, formats
from beam_score.transforms.formats.registry import FORMATS
from beam_score.transforms.listing.files import InputFile

_COMPRESSED = re.compile(r"\.(?:gz|gzip|bz2|zst|zstd)$", re.IGNORECASE)


def format_of(files: Sequence[InputFile]) -> tuple[str | None, str]:
    """Return the format that the suffixes identify, without those of compression; else None and why not."""
    by_suffix = {suffix: format_.name for format_ in formats() for suffix in format_.suffixes}
    by_format: dict[str | None, str] = {}
    for file in files:
        suffix = os.path.splitext(_COMPRESSED.sub("", file.path))[1].lower()
        by_format.setdefault(by_suffix.get(suffix), file.path)
    if len(by_format) == 1 and None not in by_format:
        return next(iter(by_format)), ""
    shown = ", ".join(f"{path} ({kind or 'unknown'})" for kind, path in by_format.items())
    known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    return None, f"input.format cannot be detected from the suffixes: {shown}; set input.format to {known}"


def format_by_content(head: bytes) -> str | None:
    """Return the format that the first bytes of a file identify; None if they do not."""
    for format_ in formats():
        if format_.magic is not None and format_.magic.match(head):
            return format_.name
    return None


_MAGIC = (
    (rb"PK\x03\x04", "a ZIP archive or a workbook: unpack it, or save it as CSV"),
    (
        rb"\xfd7zXZ\0",
        "compressed by xz, which is not supported: compress it again: xz -dc FILE | zstd > FILE.zst",
    ),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (rb"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (rb"\x04\x22\x4d\x18", "compressed by lz4, which is not supported: compress it again with zstd or gzip"),
    (rb"\xff\x06\0\0sNaPpY", "compressed by snappy, which is not supported: compress it again with zstd or gzip"),
    (rb"SQLite format 3\0", "a SQLite database: export the table"),
)
_FIRST = 8  # bytes that identify an encoding


@dataclasses.dataclass(frozen=True)
class Foreign:
    """A detected kind of file.

    Attributes:
      reason: `unreadable`, or `bad_encoding` for text in another encoding.
      what: the kind of file and the remedy: completes the sentence "it is ...".
    """

    reason: str
    what: str


def foreign(head: bytes) -> Foreign | None:
    """Return the kind of a file that is neither UTF-8 text nor TFRecord, by its first bytes; None if they do not
    identify it."""
    for magic, what in _MAGIC:
        if re.match(magic, head):
            return Foreign("unreadable", what)
    for format_ in formats():
        if format_.payload_kind == "json" and format_.magic is not None and format_.magic.match(head):
            article = "an" if format_.title[0] in "AEIOU" else "a"
            return Foreign("unreadable", f"{article} {format_.title} file: set input.format: {format_.name}")
    if encoding := _wide_encoding(head):
        what = f"{encoding}, expected UTF-8: convert it, as with iconv -f {encoding} -t UTF-8"
        return Foreign("bad_encoding", what)
    return None


def refuse_foreign(head: bytes) -> None:
    """Raise UnusableFile for a file that is not text in UTF-8."""
    if (kind := foreign(head)) is not None:
        raise UnusableFile(kind.reason, f"the file is {kind.what}")


def _wide_encoding(head: bytes) -> str | None:
    """Return UTF-16 or UTF-32, by the byte order mark, or by the zero bytes that all of the first characters have."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    head = head[: min(len(head), _FIRST) & ~3]
    for order, zeros in (("LE", slice(1, None, 2)), ("BE", slice(0, None, 2))):
        other = head[1 - (zeros.start or 0) :: 2]
        if head and not any(head[zeros]) and any(other):
            wide = other[1::2] if order == "LE" else other[::2]
            return f"UTF-32{order}" if not any(wide) else f"UTF-16{order}"
    return None
