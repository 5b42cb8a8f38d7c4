"""The text of a block in the form in which pyarrow parses it, and the records that it could not parse."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import cut_out, valid_utf8
from beam_score.transforms.framing.csv import field_counts, spans
from beam_score.transforms.framing.lines import BOM
from beam_score.transforms.rows.origin import Origin

_NONE = np.array([], np.int64)


@dataclasses.dataclass(frozen=True)
class Text:
    """Some whole records.

    Attributes:
      content: the text to parse; it ends with a line end.
      is_utf8: False if each byte of the original became a character, since some were not UTF-8.
      delimiter, quote: of the text.
      origin: of the same text, with the ragged records; None if there is none.
      ragged: numbers, among the records of the original text, of those with another number of fields than the header;
        none before `without_ragged`. They are not in `content`.
      fields: their numbers of fields.
      known: starts and ends of the records of `content`, if they are known already.
    """

    content: bytes
    is_utf8: bool
    delimiter: str
    quote: str
    origin: Origin | None
    ragged: np.ndarray = dataclasses.field(default_factory=lambda: _NONE)
    fields: np.ndarray = dataclasses.field(default_factory=lambda: _NONE)
    known: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, data: bytes, delimiter: str, quote: str, origin: Origin | None) -> Text:
        """Return records as pyarrow can parse them.

        Args:
          origin: of the same data.
        """
        # pyarrow fails a block for bytes that are not UTF-8, wherever they are. In Latin-1 every byte is a character;
        # the used columns are converted back.
        is_utf8 = valid_utf8(data)
        content = data if is_utf8 else data.decode("latin-1").encode()
        if content.startswith(BOM):
            content = b"\n" + content  # treated as any other character, but pyarrow would drop it
        if not content.endswith((b"\n", b"\r")):
            content += b"\n"  # without it pyarrow 25 takes `"a",` as if it ended in `""`
        return cls(content, is_utf8, delimiter, quote, origin if content is data else None)

    def without_ragged(self, columns: int) -> Text:
        """Return the text without the records that do not have one field for each column.

        pyarrow can pass over them, too, but it calls a function of Python for each, in a thread of its own: 30
        microseconds, in which other threads of Python wait.
        """
        starts, ends, count = field_counts(self.content, self.delimiter, self.quote)
        good = count == columns
        origin = None if self.origin is None else dataclasses.replace(self.origin, known=(starts, ends))
        ragged = np.flatnonzero(~good)
        if not len(ragged):
            return dataclasses.replace(self, origin=origin, known=(starts, ends))
        # The text from the end of one ragged record to the start of the next; their line ends become blank lines.
        begins, stops = np.append(0, ends[ragged]), np.append(starts[ragged], len(self.content))
        content = self._cut(begins, stops).to_pybytes()
        before = np.cumsum(np.where(good, 0, ends - starts))
        return dataclasses.replace(
            self,
            content=content,
            origin=origin,
            ragged=ragged,
            fields=count[ragged],
            known=((starts - before)[good], (ends - before)[good]),
        )

    def records(self, index: np.ndarray) -> pa.Buffer:
        """Return the text of some of the records of `content`, by their numbers in it."""
        starts, ends = self.spans
        # With the byte that ends each record: the last one has an end, too.
        return self._cut(starts[index], ends[index] + 1)

    def _cut(self, starts: np.ndarray, ends: np.ndarray) -> pa.Buffer:
        """Return pieces of the text, joined."""
        return cut_out(pa.py_buffer(self.content), starts, ends).buffers()[2]

    @functools.cached_property
    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Starts and ends of the records of `content`."""
        if self.known is not None:
            return self.known
        if self.origin is not None:
            return self.origin.spans
        found = spans(self.content, self.delimiter, self.quote)
        return found.starts, found.ends
