"""Where the records and fields of a CSV text begin and end, by RFC 4180: a quote opens only at the start of a field,
`""` inside quotes is a quote, and line ends (LF, CRLF, CR alone) inside quotes belong to the field. Inside quotes an
escape character, where there is one, takes the next byte as it is. Text after a closing quote runs on to the
delimiter or line end, and is an error of its record (`Spans.joined`).

Every text here begins at the start of a record, and is any buffer of bytes. An empty `quote` or `escape` stands for
none."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np

from beam_score.transforms.framing.lines import CR, LF, byte_positions, line_end_positions

_LINE_END = re.compile(rb"\r\n|\r|\n")
_NONE = np.array([], np.int64)


@dataclasses.dataclass(frozen=True)
class Spans:
    """The records of a text.

    Attributes:
      starts, ends: int64 byte positions of each record, line ends left out; blank lines have none.
      open_quote: whether a quote is still open at the end of the last record.
      joined: positions, ascending, of the closing quotes that text follows.
    """

    starts: np.ndarray
    ends: np.ndarray
    open_quote: bool
    joined: np.ndarray


def spans(data, delimiter: str, quote: str, escape: str = "") -> Spans:
    """The records of a text."""
    text = np.frombuffer(data, np.uint8)
    line_ends = line_end_positions(text)
    quoted = _quoted(data, text, delimiter, quote, escape)
    if quoted is not None:
        line_ends = line_ends[~quoted.hold(line_ends)]
    edges = np.empty(len(line_ends) + 2, np.int64)
    edges[0], edges[1:-1], edges[-1] = -1, line_ends, len(text)
    starts, ends = edges[:-1] + 1, edges[1:]
    filled = ends > starts
    if not filled.all():
        starts, ends = starts[filled], ends[filled]
    if quoted is None:
        return Spans(starts, ends, False, _NONE)
    return Spans(starts, ends, quoted.is_open, quoted.joined(text, delimiter))


@dataclasses.dataclass(frozen=True)
class Whole:
    """The whole records at the beginning of a text.

    Attributes:
      end: the position after the last line end that ends a record; 0 where there is none.
      joined: as `Spans` has it, up to there.
    """

    end: int
    joined: np.ndarray


def whole_records(data: bytes, delimiter: str, quote: str, escape: str = "") -> Whole:
    """The whole records at the beginning of a text that may go on.

    A CR may be cut from its LF: what follows is then a blank line, which is not a record."""
    end = max(data.rfind(b"\n"), data.rfind(b"\r"))
    if not quote or quote.encode() not in data:
        return Whole(end + 1, _NONE)
    text = np.frombuffer(data, np.uint8)
    quoted = _quoted(data, text, delimiter, quote, escape)
    begins, closes = quoted.begins, quoted.closes
    while end >= 0:
        before = int(np.searchsorted(begins, end))
        if before <= np.searchsorted(closes, end):
            break
        # Inside quotes: the next that may be one stands before the quote that opened them.
        start = int(begins[before - 1])
        end = max(data.rfind(b"\n", 0, start), data.rfind(b"\r", 0, start))
    joined = quoted.joined(text, delimiter)
    return Whole(end + 1, joined[joined < end])


@dataclasses.dataclass(frozen=True)
class _Quoted:
    """The quoted stretches of a text.

    Attributes:
      begins, closes: positions of the quotes that open and close them. A doubled quote may stand for an end and a
        beginning. The end of the text closes one that is not closed, or nothing does.
      is_open: whether the last one is not closed.
    """

    begins: np.ndarray
    closes: np.ndarray
    is_open: bool

    def hold(self, positions: np.ndarray) -> np.ndarray:
        """Which positions are inside quotes: more stretches begin before them than end."""
        return np.searchsorted(self.begins, positions) > np.searchsorted(self.closes, positions)

    def joined(self, text: np.ndarray, delimiter: str) -> np.ndarray:
        """The closing quotes that are followed by text."""
        closes = self.closes[: np.searchsorted(self.closes, len(text) - 1)]
        if not len(closes):
            return _NONE
        after = text[closes + 1]
        good = (after == ord(delimiter)) | (after == LF) | (after == CR) | (after == text[self.begins[0]])
        return _NONE if good.all() else closes[~good]


def _quoted(data, text: np.ndarray, delimiter: str, quote: str, escape: str) -> _Quoted | None:
    """The quoted stretches of a text; None where it has no quote."""
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
    """Without the quotes that an escape character precedes which is not escaped itself. Outside quotes, where an
    escape is text, such a quote is text as well: it is not at the start of a field."""
    escaped = (text[quotes - 1] == ord(escape)) & (quotes > 0)
    if not escaped.any():
        return quotes
    escapes, rank = _escapes(text, escape)
    index = np.flatnonzero(escaped)
    escaped[index] = rank[np.searchsorted(escapes, quotes[index] - 1)] % 2 == 0
    return quotes[~escaped]


def _escapes(text: np.ndarray, escape: str) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the escape characters, and of each its number, from 0, among those right before it."""
    found = byte_positions(text, ord(escape))
    index = np.arange(len(found))
    first = np.append(True, np.diff(found) != 1)[: len(found)]
    return found, index - np.maximum.accumulate(np.where(first, index, 0))


def quotes_are_plain(text: np.ndarray, quotes: np.ndarray, delimiter: str) -> bool:
    """Whether every second quote really closes what the one before opened.

    True where each opening quote is at the start of a field, or doubles the quote just before it;
    then, by induction from the start, the parity of quotes is the state of the parser.

    Args:
      text: uint8.
      quotes: positions of the quotes in it that are not escaped.
    """
    opening = quotes[::2]
    odd = np.flatnonzero(~_at_field_start(text, opening, delimiter))
    if not len(odd):
        return True
    # A quote that doubles the one before stands right after it.
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
    data, text: np.ndarray, quotes: np.ndarray, delimiter: str, quote: str, escape: str
) -> tuple[np.ndarray, np.ndarray]:
    """Where quoted stretches begin and are closed (the end of the text for one that is not), for
    texts with quotes that are none of RFC 4180's. Takes a step of Python for each stretch."""
    rest = _rest_of_quoted(quote, escape)
    begins, closes, done = [], [], -1
    # A quote that is not at the start of a field opens nothing: it closes, doubles, or is text.
    for position in quotes[_at_field_start(text, quotes, delimiter)].tolist():
        if position > done:
            done = rest.match(data, position + 1).end()
            begins.append(position)
            closes.append(done)
    return np.array(begins, np.int64), np.array(closes, np.int64)


def joined_message(record: bytes, quote: str, escape: str) -> str:
    """What is wrong with a record in which text follows a closing quote."""
    lines = len(_LINE_END.findall(record)) + 1
    message = (
        f"text follows a closing quote in this record, which spans {lines} line{'s' * (lines != 1)}; expected the "
        "delimiter or the end of the line"
    )
    if not escape and b"\\" + quote.encode() in record:
        return message + ": if quotes in this data are escaped by a backslash (Spark's default), set input.csv.escape"
    return message + ": double the quotes that are text"


def without_escapes(data: bytes, delimiter: str, quote: str, escape: str) -> bytes:
    """The same records as RFC 4180 has them: an escaped quote is doubled, other escapes are dropped.

    Args:
      data: whole records; no quote is open at the end.
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
    """The texts of a record's fields, quotes resolved; the record has no open quote, nor text after one."""
    d, q, e = re.escape(delimiter), re.escape(quote), re.escape(escape)
    more = f"(?:{q}{q}|{e}.)" if escape else f"{q}{q}"
    quoted = f"{q}([^{q}{e}]*+(?:{more}[^{q}{e}]*+)*+){q}|" if quote else "()"
    taken = re.compile(f"{e}(.)|{q}({q})" if escape else f"({q}){q}", re.DOTALL)
    found = []
    for match in re.finditer(f"(?:\\A|(?<={d}))(?:{quoted}([^{d}]*+))(?:{d}|\\Z)", record, re.DOTALL):
        found.append(taken.sub(lambda m: m[m.lastindex], match[1]) if match[1] else match[2] or "")
    return found


class RecordSkipper:
    """Finds the end of one record that is too large to hold, fed piece by piece from its start."""

    def __init__(self, delimiter: str, quote: str, escape: str = ""):
        self._delimiter, self._quote, self._escape = delimiter.encode(), quote.encode(), escape.encode()
        self._stop = re.compile(b"[%b\r\n]" % re.escape(self._delimiter) if quote else b"[\r\n]")
        self._in_quotes = re.compile(b"[%b]" % (re.escape(self._quote) + re.escape(self._escape))) if quote else None
        self._state = "start"  # of a field; field; quoted; escaped; closing: just after a quote inside quotes

    @property
    def in_quotes(self) -> bool:
        return self._state in ("quoted", "escaped")

    def feed(self, piece: bytes) -> int | None:
        """The position in `piece` of the line end that ends the record; None if it goes on."""
        at, size = 0, len(piece)
        while at < size:
            if self._state == "start":
                quoted = self._quote and piece[at : at + 1] == self._quote
                self._state = "quoted" if quoted else "field"
                at += bool(quoted)
            elif self._state == "quoted":
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
