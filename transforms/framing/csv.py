"""Records and fields of a CSV text, by RFC 4180: a quote opens only at the start of a field, `""` inside quotes is a
quote, and line ends (LF, CRLF, CR alone) inside quotes belong to the field. Inside quotes an escape character, if one
is set, makes the next byte literal. Text after a closing quote extends to the delimiter or line end, and is an error
of its record (`Spans.joined`).

Every text here begins at the start of a record, and may be any buffer of bytes. An empty `quote` or `escape` means
that there is none."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np

from beam_score.transforms.framing.lines import CR, LF, Buffer, byte_positions, line_end_positions
from beam_score.transforms.framing.positions import Listed, Positions, by_line_ends

_LINE_END = re.compile(rb"\r\n|\r|\n")
_NONE = np.array([], np.int64)


@dataclasses.dataclass(frozen=True)
class Spans:
    """The records of a text.

    Attributes:
      starts, ends: int64 byte positions of each record, without its line end; blank lines are not records.
      open_quote: whether a quote is still open at the end of the last record.
      joined: positions, ascending, of the closing quotes that are followed by text.
    """

    starts: np.ndarray
    ends: np.ndarray
    open_quote: bool
    joined: np.ndarray


def spans(data: Buffer, delimiter: str, quote: str, escape: str = "") -> Spans:
    """Return the records of a text."""
    text = np.frombuffer(data, np.uint8)
    quoted = _quoted(data, text, delimiter, quote, escape)
    starts, ends = _records(text, quoted)
    if quoted is None:
        return Spans(starts, ends, False, _NONE)
    return Spans(starts, ends, quoted.is_open, quoted.joined(text, delimiter))


def positions(data: Buffer, delimiter: str, quote: str, escape: str = "") -> Positions:
    """Return where the records of a text are."""
    lines = None
    # One byte is found in bytes in a tenth of the time that numpy takes.
    if isinstance(data, bytes) and b"\r" not in data and not (quote and quote.encode() in data):
        lines = by_line_ends(np.frombuffer(data, np.uint8))
    if lines is not None:
        return lines
    found = spans(data, delimiter, quote, escape)
    return Listed(found.starts, found.ends)


def _records(text: np.ndarray, quoted: _Quoted | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and ends of the records of a text, as in `Spans`."""
    line_ends = line_end_positions(text)
    if quoted is not None:
        line_ends = line_ends[~quoted.hold(line_ends)]
    edges = np.empty(len(line_ends) + 2, np.int64)
    edges[0], edges[1:-1], edges[-1] = -1, line_ends, len(text)
    starts, ends = edges[:-1] + 1, edges[1:]
    filled = ends > starts
    return (starts, ends) if filled.all() else (starts[filled], ends[filled])


@dataclasses.dataclass(frozen=True)
class Whole:
    """The complete records at the beginning of a text.

    Attributes:
      end: the position after the last line end that ends a record; 0 if there is none.
      joined: as in `Spans`, up to `end`.
    """

    end: int
    joined: np.ndarray


def whole_records(data: bytes, delimiter: str, quote: str, escape: str = "") -> Whole:
    """Return the complete records at the beginning of a text whose end may be missing.

    A cut between CR and LF only leaves a blank line, which is not a record."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r"))
    if not quote or quote.encode() not in data:
        return Whole(end + 1, _NONE)
    text = np.frombuffer(data, np.uint8)
    quoted = _quoted(data, text, delimiter, quote, escape)
    assert quoted is not None  # there is a quote
    begins, closes = quoted.begins, quoted.closes
    while end >= 0:
        before = int(np.searchsorted(begins, end))
        if before <= np.searchsorted(closes, end):
            break
        # This line end is inside quotes: the next candidate is before the opening quote.
        start = int(begins[before - 1])
        end = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start))
    joined = quoted.joined(text, delimiter)
    return Whole(end + 1, joined[joined < end])


@dataclasses.dataclass(frozen=True)
class _Quoted:
    """The quoted sections of a text.

    Attributes:
      begins, closes: positions of the opening and closing quotes. A doubled quote may count as a closing and an
        opening one. For an unclosed section, `closes` has the end of the text, or no position.
      is_open: whether the last section is not closed.
    """

    begins: np.ndarray
    closes: np.ndarray
    is_open: bool

    def hold(self, positions: np.ndarray) -> np.ndarray:
        """Return which positions are inside quotes, i.e. have more opening than closing quotes before them."""
        return np.searchsorted(self.begins, positions) > np.searchsorted(self.closes, positions)

    def joined(self, text: np.ndarray, delimiter: str) -> np.ndarray:
        """Return the closing quotes that are followed by text."""
        closes = self.closes[: np.searchsorted(self.closes, len(text) - 1)]
        if not len(closes):
            return _NONE
        after = text[closes + 1]
        good = (after == ord(delimiter)) | (after == LF) | (after == CR) | (after == text[self.begins[0]])
        return _NONE if good.all() else closes[~good]


def _quoted(data: Buffer, text: np.ndarray, delimiter: str, quote: str, escape: str) -> _Quoted | None:
    """Return the quoted sections of a text; None if it has no quote."""
    quotes = byte_positions(text, ord(quote)) if quote else _NONE
    if not len(quotes):
        return None
    if escape:
        quotes = _not_escaped(text, quotes, escape)
    if quotes_are_plain(text, quotes, delimiter):
        return _Quoted(quotes[::2], quotes[1::2], len(quotes) % 2 == 1)
    begins, closes = _one_by_one(data, text, quotes, delimiter, quote, escape)
    return _Quoted(begins, closes, len(closes) > 0 and closes[-1] == len(text))


def _not_escaped(text: np.ndarray, quotes: np.ndarray, escape: str) -> np.ndarray:
    """Return the quotes that are not preceded by an unescaped escape character. Outside quotes, where an escape is
    text, a quote after it is text as well, since it is not at the start of a field."""
    escaped = (text[quotes - 1] == ord(escape)) & (quotes > 0)
    if not escaped.any():
        return quotes
    escapes, rank = _escapes(text, escape)
    index = np.flatnonzero(escaped)
    escaped[index] = rank[np.searchsorted(escapes, quotes[index] - 1)] % 2 == 0
    return quotes[~escaped]


def _escapes(text: np.ndarray, escape: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the escape characters, and the index of each, from 0, in its run of adjacent ones."""
    found = byte_positions(text, ord(escape))
    index = np.arange(len(found))
    first = np.append(True, np.diff(found) != 1)[: len(found)]
    return found, index - np.maximum.accumulate(np.where(first, index, 0))


def quotes_are_plain(text: np.ndarray, quotes: np.ndarray, delimiter: str) -> bool:
    """Return whether every second quote closes the section that the one before opened.

    True if each opening quote is at the start of a field, or doubles the quote just before it;
    then, by induction from the start, the parity of quotes is the state of the parser.

    Args:
      text: uint8.
      quotes: positions of the quotes in it that are not escaped.
    """
    opening = quotes[::2]
    odd = np.flatnonzero(~_at_field_start(text, opening, delimiter))
    if not len(odd):
        return True
    # A quote that doubles the one before is adjacent to it.
    return bool(odd[0] > 0 and np.all(quotes[2 * odd - 1] == opening[odd] - 1))


def _at_field_start(text: np.ndarray, positions: np.ndarray, delimiter: str) -> np.ndarray:
    before = text[positions - 1]
    if len(positions) and positions[0] == 0:
        before[0] = LF
    return (before == ord(delimiter)) | (before == LF) | (before == CR)


@functools.lru_cache
def _rest_of_quoted(quote: str, escape: str) -> re.Pattern[bytes]:
    q, e = re.escape(quote.encode()), re.escape(escape.encode())
    if not escape:
        return re.compile(b"[^%b]*+(?:%b%b[^%b]*+)*+" % (q, q, q, q))
    return re.compile(b"[^%b%b]*+(?:(?:%b%b|%b.?)[^%b%b]*+)*+" % (q, e, q, q, e, q, e), re.DOTALL)


def _one_by_one(
    data: Buffer, text: np.ndarray, quotes: np.ndarray, delimiter: str, quote: str, escape: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions where quoted sections begin and end (the end of the text for an unclosed section), for
    texts whose quotes violate RFC 4180. Takes a step of Python per section."""
    rest = _rest_of_quoted(quote, escape)
    begins, closes, done = [], [], -1
    # A quote that is not at the start of a field opens nothing: it closes, doubles, or is text.
    for position in quotes[_at_field_start(text, quotes, delimiter)].tolist():
        if position > done:
            section = rest.match(data, position + 1)
            assert section is not None  # the pattern matches the empty text, too
            done = section.end()
            begins.append(position)
            closes.append(done)
    return np.array(begins, np.int64), np.array(closes, np.int64)


def joined_message(record: bytes, quote: str, escape: str) -> str:
    """Return the error message for a record in which text follows a closing quote."""
    lines = len(_LINE_END.findall(record)) + 1
    message = (
        f"text follows a closing quote in this record, which spans {lines} line{'s' * (lines != 1)}; expected the "
        "delimiter or the end of the line"
    )
    if not escape and b"\\" + quote.encode() in record:
        return message + ": if quotes in this data are escaped by a backslash (Spark's default), set input.csv.escape"
    return message + ": double the quotes inside quoted fields"


def without_escapes(data: bytes, delimiter: str, quote: str, escape: str) -> bytes:
    """Return the same records in the form of RFC 4180: escaped quotes are doubled, other escapes are dropped.

    Args:
      data: complete records; no quote is open at the end.
    """
    if not escape or escape.encode() not in data:
        return data
    text = np.frombuffer(data, np.uint8)
    quoted = _quoted(data, text, delimiter, quote, escape)
    if quoted is None:
        return data
    escapes, rank = _escapes(text, escape)
    escapes = escapes[(rank % 2 == 0) & quoted.hold(escapes)]
    if not len(escapes):
        return data
    before_quote = text[escapes + 1] == ord(quote)
    text = text.copy()
    text[escapes[before_quote]] = ord(quote)
    return np.delete(text, escapes[~before_quote]).tobytes()


def fields(record: str, delimiter: str, quote: str, escape: str = "") -> list[str]:
    """Return the values of a record's fields, unquoted. Quotes are closed, and no text follows a closing quote."""
    d, q, e = re.escape(delimiter), re.escape(quote), re.escape(escape)
    more = f"(?:{q}{q}|{e}.)" if escape else f"{q}{q}"
    quoted = f"{q}([^{q}{e}]*+(?:{more}[^{q}{e}]*+)*+){q}|" if quote else "()"
    taken = re.compile(f"{e}(.)|{q}({q})" if escape else f"({q}){q}", re.DOTALL)
    found = []
    for match in re.finditer(f"(?:\\A|(?<={d}))(?:{quoted}([^{d}]*+))(?:{d}|\\Z)", record, re.DOTALL):
        found.append(taken.sub(lambda m: m[m.lastindex], match[1]) if match[1] else match[2] or "")
    return found


class RecordSkipper:
    """Finds the end of a record that is too large for memory, fed piece by piece from its start."""

    def __init__(self, delimiter: str, quote: str, escape: str = ""):
        self._delimiter, self._quote, self._escape = delimiter.encode(), quote.encode(), escape.encode()
        self._stop = re.compile(b"[%b\r\n]" % re.escape(self._delimiter) if quote else b"[\r\n]")
        self._in_quotes = re.compile(b"[%b]" % (re.escape(self._quote) + re.escape(self._escape))) if quote else None
        self._state = "start"  # of a field; field; quoted; escaped; closing: just after a quote inside quotes

    @property
    def in_quotes(self) -> bool:
        return self._state in ("quoted", "escaped")

    def feed(self, piece: bytes) -> int | None:
        """Return the position in `piece` of the line end that ends the record; None if the record continues."""
        at, size = 0, len(piece)
        while at < size:
            if self._state == "start":
                quoted = self._quote and piece[at : at + 1] == self._quote
                self._state = "quoted" if quoted else "field"
                at += bool(quoted)
            elif self._state == "quoted":
                assert self._in_quotes is not None  # without a quote no field is quoted
                found = self._in_quotes.search(piece, at)
                if found is None:
                    return None
                self._state, at = "closing" if found.group() == self._quote else "escaped", found.end()
            elif self._state == "escaped":
                self._state, at = "quoted", at + 1
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
