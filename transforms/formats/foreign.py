"""Detection of files of an unexpected kind, by their first bytes: archives, other formats, other encodings."""

from __future__ import annotations

import dataclasses
import re

from beam_score.transforms.formats.base import UnusableFile

_MAGIC = (
    (rb"PK\x03\x04", "a ZIP archive or a workbook: unpack it, or save it as CSV"),
    (rb"\xfd7zXZ\0", "compressed by xz, which is not read: write it anew, as with xz -dc FILE | zstd > FILE.zst"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (rb"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (rb"\x04\x22\x4d\x18", "compressed by lz4, which is not read: write it anew with zstd or gzip"),
    (rb"\xff\x06\0\0sNaPpY", "compressed by snappy, which is not read: write it anew with zstd or gzip"),
    # In a text these letters are not followed by a control character.
    (rb"PAR1[\0-\x08\x0e-\x1f\x7f-\xff]", "a Parquet file: set input.format: parquet"),
    (rb"Obj\x01", "an Avro file"),
    (rb"ORC[\0-\x08\x0e-\x1f\x7f-\xff]", "an ORC file"),
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
