"""Where the records and fields of a CSV text begin and end, by RFC 4180 and pyarrow's own parser: a
quote opens only at the start of a field, `""` inside quotes is a quote, text after a closing quote is
joined to the field, and line ends (LF, CRLF, CR alone) inside quotes belong to the field.

Every text here begins at the start of a record, and is any buffer of bytes."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np

from transforms.framing import CR, LF, byte_positions, line_end_positions


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
    """The records of a text. An empty `quote` stands for none."""
    text = np.frombuffer(data, np.uint8)
    line_ends = line_end_positions(text)
    open_quote = False
    quotes = _positions(text, quote)
    if len(quotes):
        if quotes_are_plain(text, quotes, delimiter):
            inside = np.searchsorted(quotes, line_ends) % 2 == 1
            open_quote = len(quotes) % 2 == 1
        else:
            begins, closes = _quoted(data, text, quotes, delimiter, quote)
            # Between an opening quote and the one that closes it there are more begins than closes.
            inside = np.searchsorted(begins, line_ends) > np.searchsorted(closes, line_ends)
            open_quote = len(closes) > 0 and closes[-1] == len(text)
        line_ends = line_ends[~inside]
    edges = np.empty(len(line_ends) + 2, np.int64)
    edges[0], edges[1:-1], edges[-1] = -1, line_ends, len(text)
    starts, ends = edges[:-1] + 1, edges[1:]
    filled = ends > starts
    if not filled.all():
        starts, ends = starts[filled], ends[filled]
    return Spans(starts, ends, open_quote)


def last_record_end(data: bytes, delimiter: str, quote: str) -> int:
    """The position after the last line end that ends a record; 0 where there is none.

    A CR may be cut from its LF: what follows is then a blank line, which is not a record."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r"))
    if not quote or quote.encode() not in data:
        return end + 1
    text = np.frombuffer(data, np.uint8)
    quotes = _positions(text, quote)
    if quotes_are_plain(text, quotes, delimiter):
        begins, closes = quotes[::2], quotes[1::2]
    else:
        begins, closes = _quoted(data, text, quotes, delimiter, quote)
    while end >= 0:
        before = int(np.searchsorted(begins, end))
        if before <= np.searchsorted(closes, end):
            break
        # Inside quotes: the next that may be one stands before the quote that opened them.
        start = int(begins[before - 1])
        end = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start))
    return end + 1


def _positions(text: np.ndarray, quote: str) -> np.ndarray:
    return byte_positions(text, ord(quote)) if quote else np.array([], np.int64)


def quotes_are_plain(text: np.ndarray, quotes: np.ndarray, delimiter: str) -> bool:
    """Whether every second quote really closes what the one before opened.

    True where each opening quote is at the start of a field, or doubles the quote just before it;
    then, by induction from the start, the parity of quotes is the state of the parser.

    Args:
      text: uint8.
      quotes: positions of the quotes in it.
    """
    opening = quotes[::2]
    odd = opening[~_at_field_start(text, opening, delimiter)]
    if not len(odd):
        return True
    # A quote that doubles the one before: also a quote, and at the place just before it.
    return bool(np.all(text[odd - 1] == text[quotes[0]]))


def _at_field_start(text: np.ndarray, positions: np.ndarray, delimiter: str) -> np.ndarray:
    before = text[positions - 1]
    if len(positions) and positions[0] == 0:
        before[0] = LF
    return (before == ord(delimiter)) | (before == LF) | (before == CR)


@functools.lru_cache
def _rest_of_quoted(quote: str) -> re.Pattern[bytes]:
    q = re.escape(quote.encode())
    return re.compile(b"[^%b]*+(?:%b%b[^%b]*+)*+" % (q, q, q, q))


def _quoted(data, text: np.ndarray, quotes: np.ndarray, delimiter: str, quote: str) -> tuple[np.ndarray, np.ndarray]:
    """Where quoted stretches begin and are closed (the end of the text for one that is not), for
    texts with quotes that are none of RFC 4180's. Takes a step of Python for each stretch."""
    rest = _rest_of_quoted(quote)
    begins, closes, done = [], [], -1
    # A quote that is not at the start of a field opens nothing: it closes, doubles, or is text.
    for position in quotes[_at_field_start(text, quotes, delimiter)].tolist():
        if position > done:
            done = rest.match(data, position + 1).end()
            begins.append(position)
            closes.append(done)
    return np.array(begins, np.int64), np.array(closes, np.int64)


def fields(record: str, delimiter: str, quote: str) -> list[str]:
    """The texts of a record's fields, quotes resolved; the record has no open quote."""
    d, q = re.escape(delimiter), re.escape(quote)
    rest = f"([^{d}]*+)"
    quoted = f"{q}([^{q}]*+(?:{q}{q}[^{q}]*+)*+){q}{rest}|" if quote else "()()"
    found = []
    for match in re.finditer(f"(?:\\A|(?<={d}))(?:{quoted}{rest})(?:{d}|\\Z)", record):
        found.append((match[1] or "").replace(quote * 2, quote) + (match[2] or "") + (match[3] or ""))
    return found


class RecordSkipper:
    """Finds the end of one record that is too large to hold, fed piece by piece from its start."""

    def __init__(self, delimiter: str, quote: str):
        self._delimiter, self._quote = delimiter.encode(), quote.encode()
        self._stop = re.compile(b"[%b\r\n]" % re.escape(self._delimiter) if quote else b"[\r\n]")
        self._state = "start"  # of a field; field; quoted; closing: just after a quote inside quotes

    @property
    def in_quotes(self) -> bool:
        return self._state == "quoted"

    def feed(self, piece: bytes) -> int | None:
        """The position in `piece` of the line end that ends the record; None if it goes on."""
        at, size = 0, len(piece)
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
                match = self._stop.search(piece, at)
                if match is None:
                    return None
                if match.group() != self._delimiter:
                    return match.start()
                self._state, at = "start", match.end()
        return None
