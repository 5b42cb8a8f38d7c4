"""Where the records of a CSV text begin and end, by RFC 4180 and pyarrow's own parser: a quote opens
only at the start of a field, `""` inside quotes is a quote, text after a closing quote is joined to
the field, and line ends (LF, CRLF, CR alone) inside quotes belong to the field."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np

LF, CR = 10, 13


@dataclasses.dataclass(frozen=True)
class Spans:
    """Attributes:
    starts, ends: int64 byte positions of each record, line ends left out; blank lines have none.
    open_quote: whether a quote is still open at the end of the last record.
    """

    starts: np.ndarray
    ends: np.ndarray
    open_quote: bool


def spans(data, delimiter: str, quote: str) -> Spans:
    """The records of `data` (any buffer), which begins at the start of a record."""
    text = np.frombuffer(data, np.uint8)
    line_ends = np.flatnonzero((text == LF) | (text == CR))
    open_quote = False
    quotes = np.flatnonzero(text == ord(quote)) if quote else np.array([], np.int64)
    if len(quotes):
        if not quotes_are_plain(text, quotes, delimiter, quote):
            return _scan(data, delimiter, quote)
        line_ends = line_ends[np.searchsorted(quotes, line_ends) % 2 == 0]
        open_quote = len(quotes) % 2 == 1
    starts = np.append(0, line_ends + 1)
    ends = np.append(line_ends, len(text))
    filled = ends > starts
    return Spans(starts[filled], ends[filled], open_quote)


def quotes_are_plain(text: np.ndarray, quotes: np.ndarray, delimiter: str, quote: str, before: int = LF) -> bool:
    """Whether every second quote really closes what the one before opened.

    True where each opening quote follows a delimiter or a line end, or doubles the quote just
    before it; then, by induction from the start, parity is the state of the parser.

    Args:
      text: uint8; starts outside quotes.
      quotes: positions of the quotes in it.
      before: the byte before the text; a line end at the start of a record.
    """
    opening = quotes[::2]
    previous = np.where(opening > 0, text[opening - 1], before)
    doubled = np.zeros(len(opening), bool)
    doubled[1:] = opening[1:] == quotes[1::2][: len(opening) - 1] + 1
    at_start = (previous == ord(delimiter)) | (previous == LF) | (previous == CR)
    return bool(np.all(at_start | doubled))


def last_record_end(data: bytes, delimiter: str, quote: str) -> int:
    """The position after the last record end in `data`; 0 where there is none.

    A CR may be cut from its LF: what follows is then a blank line, which is not a record."""
    if not quote or quote.encode() not in data:
        return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
    found = spans(data, delimiter, quote)
    if not len(found.starts):
        return len(data)
    # The last record may go on in the bytes to come, unless a line end follows it.
    end = int(found.ends[-1])
    return len(data) if end < len(data) else int(found.starts[-1])


@functools.lru_cache
def _patterns(delimiter: str, quote: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    d, q = re.escape(delimiter.encode()), re.escape(quote.encode())
    rest = b"[^%b\r\n]*+" % d
    field = b"(?:%b[^%b]*+(?:%b%b[^%b]*+)*+(?:%b|(?P<open>\\Z))%b|(?!%b)%b)" % (q, q, q, q, q, q, rest, q, rest)
    # The group can be named once only; fields after the first use an unnamed twin.
    other = field.replace(b"(?P<open>\\Z)", b"(?P<open2>\\Z)")
    record = re.compile(b"%b(?:%b%b)*+" % (field, d, other))
    return record, re.compile(b"[%b\r\n]" % d)


def _scan(data, delimiter: str, quote: str) -> Spans:
    """The exact way, one record at a time: for texts with quotes where they do not belong."""
    record, _ = _patterns(delimiter, quote)
    starts, ends, at, size = [], [], 0, len(memoryview(data))
    open_quote = False
    view = memoryview(data)
    while at < size:
        if view[at] in (LF, CR):
            at += 1
            continue
        match = record.match(data, at)
        starts.append(at)
        ends.append(match.end())
        open_quote = match.group("open") is not None or match.group("open2") is not None
        at = match.end() + 1
    return Spans(np.array(starts, np.int64), np.array(ends, np.int64), open_quote)


class RecordSkipper:
    """Finds the end of one record that is too large to hold, fed piece by piece from its start."""

    def __init__(self, delimiter: str, quote: str):
        self._delimiter, self._quote = delimiter.encode(), quote.encode()
        self._state = "start"  # of a field; field; quoted; closing: just after a quote inside quotes

    @property
    def in_quotes(self) -> bool:
        return self._state == "quoted"

    def feed(self, piece: bytes) -> int | None:
        """The position in `piece` of the line end that ends the record; None if it goes on."""
        at, size = 0, len(piece)
        _, stop = _patterns(self._delimiter.decode(), self._quote.decode() or '"')
        while at < size:
            if self._state == "start":
                quoted = self._quote and piece[at : at + 1] == self._quote
                self._state = "quoted" if quoted else "field"
                at += bool(quoted)
            elif self._state == "quoted":
                found = piece.find(self._quote, at)
                if found < 0:
                    return None
                self._state, at = "closing", found + 1
            elif self._state == "closing":
                doubled = piece[at : at + 1] == self._quote
                self._state = "quoted" if doubled else "field"
                at += doubled
            else:
                match = stop.search(piece, at)
                if match is None:
                    return None
                if match.group() != self._delimiter:
                    return match.start()
                self._state, at = "start", match.end()
        return None
