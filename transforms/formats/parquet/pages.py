"""Headers of Parquet pages: the memory that decoding a column chunk takes, before it is decoded.

A page is decompressed and decoded as a whole. pyarrow allocates the size that a page's header claims, and reads the
header wherever the footer points to; so headers are compared with the footer first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

DATA, INDEX, DICTIONARY, DATA_V2 = 0, 1, 2, 3
_FIRST_BYTES = 512  # a header has some 20 bytes, and optionally the smallest and largest value of the page
_MOST_BYTES = 16 << 20  # pyarrow's own limit on a header
_PADDING = 100  # parquet-mr 1.2.8 and before did not count the header of the dictionary (PARQUET-816)
_SLACK, _ALLOCATED_BYTES = 4, 64 << 20  # writers disagree on what the sizes in the footer include
_DICTIONARY_ENCODINGS = (2, 8)  # PLAIN_DICTIONARY, RLE_DICTIONARY


class BadPage(Exception):
    """An invalid page header, or one that contradicts the footer."""


@dataclasses.dataclass(frozen=True)
class PageHeader:
    """The content of a page's header.

    Attributes:
      kind: DATA, DATA_V2, DICTIONARY; others contain no values.
      decoded: bytes of the page without compression.
      stored: bytes of the page in the file, after the header.
      values: number of its values, nulls included; of a dictionary its entries.
      by_dictionary: whether its values are indices into a dictionary.
      size: bytes of the header itself.
    """

    kind: int
    decoded: int
    stored: int
    values: int
    by_dictionary: bool
    size: int


@dataclasses.dataclass(frozen=True)
class Pages:
    """Summary of the pages of one column chunk.

    Attributes:
      values: of all data pages, nulls included.
      plain: decoded bytes of the data pages whose values are not of the dictionary.
      largest: decoded bytes of the largest page.
      dictionary: decoded bytes of the dictionary; 0 if there is none.
      entries: of the dictionary.
      by_dictionary: whether any values are indices into a dictionary.
    """

    values: int
    plain: int
    largest: int
    dictionary: int
    entries: int
    by_dictionary: bool


def pages_of(read: Callable[[int, int], bytes], start: int, end: int, decoded: int, values: int) -> Pages:
    """Summarize the pages of a column chunk by their headers.

    Args:
      read: returns the bytes at a position, fewer at the end of the file.
      start, end: of the chunk in the file.
      decoded: bytes of the chunk without compression, according to the footer.
      values: in the chunk, according to the footer.

    Raises:
      BadPage: the headers contradict the footer.
    """
    at, seen, plain, largest, dictionary, entries, by_dictionary = start, 0, 0, 0, 0, 0, False
    while at < end and seen < values:
        header = first_page(read, at, end, decoded)
        if header.kind in (DATA, DATA_V2):
            seen += header.values
            if header.by_dictionary:
                by_dictionary = True
            else:
                plain += header.decoded
        elif header.kind == DICTIONARY:
            dictionary, entries = header.decoded, header.values
        largest = max(largest, header.decoded)
        at += header.size + header.stored
    return Pages(max(seen, values), plain, largest, dictionary, entries, by_dictionary)


def first_page(read: Callable[[int, int], bytes], at: int, end: int, decoded: int) -> PageHeader:
    """Return the header of a page. Arguments and errors are those of `pages_of`."""
    header = _header_at(read, at, end)
    most = max(_SLACK * decoded, _ALLOCATED_BYTES)
    if not (0 <= header.stored <= end + _PADDING - at and 0 <= header.decoded <= most and header.values >= 0):
        raise BadPage(f"the size of the page at byte {at} contradicts the size of its column chunk")
    return header


def _header_at(read: Callable[[int, int], bytes], at: int, end: int) -> PageHeader:
    size = _FIRST_BYTES
    while True:
        data = read(at, min(size, end - at))
        try:
            return parse_header(data)
        except IndexError:
            if len(data) < size or size >= _MOST_BYTES:
                raise BadPage(f"the page header at byte {at} does not end") from None
            size *= 16


def parse_header(data: bytes) -> PageHeader:
    """Parse a `PageHeader` of parquet.thrift, in Thrift's compact protocol.

    Raises:
      BadPage: it is not valid.
      IndexError: the data end before it does.
    """
    fields: _Fields = {}
    at = _struct(data, 0, fields, 0)
    kind, decoded, stored = fields.get(1), fields.get(2), fields.get(3)
    if not (isinstance(kind, int) and isinstance(decoded, int) and isinstance(stored, int)):
        raise BadPage("a page header lacks its type or its sizes")
    inner = fields.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, 0), {})
    inner = inner if isinstance(inner, dict) else {}
    if kind in (DATA, DICTIONARY, DATA_V2) and not inner:
        raise BadPage("a page header lacks the fields of its type")
    values, encoding = inner.get(1, 0), inner.get(4 if kind == DATA_V2 else 2, 0)
    if not (isinstance(values, int) and isinstance(encoding, int)):
        raise BadPage("a page header has a struct in place of a number")
    return PageHeader(kind, decoded, stored, values, encoding in _DICTIONARY_ENCODINGS, at)


_Fields: TypeAlias = "dict[int, int | _Fields]"
"""The integers and structs of a struct, by the number of their field."""


def _struct(data: bytes, at: int, into: _Fields, depth: int) -> int:
    """Parse the integers and structs of a struct; skip the rest. Return its end."""
    if depth > 8:
        raise BadPage("a page header is nested too deep")
    field = 0
    while True:
        byte = data[at]
        at += 1
        if byte == 0:
            return at
        kind = byte & 15
        if byte >> 4:
            field += byte >> 4
        else:
            field, at = _zigzag(data, at)
        if kind in (4, 5, 6):
            into[field], at = _zigzag(data, at)
        elif kind == 12:
            inner: _Fields = {}
            at = _struct(data, at, inner, depth + 1)
            into[field] = inner
        else:
            at = _passed(data, at, kind, depth)


def _passed(data: bytes, at: int, kind: int, depth: int) -> int:
    """Return the end of a value that is skipped."""
    if kind in (1, 2):  # a boolean is in its field's header
        return at
    if kind == 3:
        return at + 1
    if kind == 7:
        return at + 8
    if kind == 8:
        size, at = _varint(data, at)
        at += size
        if at > len(data):
            raise IndexError
        return at
    if kind in (9, 10):
        head = data[at]
        count, at = (head >> 4, at + 1) if head >> 4 != 15 else _varint(data, at + 1)
        for _ in range(count):
            kind_ = head & 15
            at = _struct(data, at, {}, depth + 1) if kind_ == 12 else _element(data, at, kind_, depth)
        return at
    raise BadPage("a page header has a field of an unknown type")


def _element(data: bytes, at: int, kind: int, depth: int) -> int:
    if kind in (1, 2):
        data[at]
        return at + 1
    if kind in (4, 5, 6):
        return _varint(data, at)[1]
    return _passed(data, at, kind, depth + 1)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise BadPage("a number in a page header has too many digits")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
