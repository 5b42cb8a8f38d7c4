"""The text of a block in the form in which pyarrow parses it."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import cut_out, valid_utf8
from beam_score.transforms.framing.csv import positions
from beam_score.transforms.framing.lines import BOM
from beam_score.transforms.framing.positions import Positions


@dataclasses.dataclass(frozen=True)
class Text:
    """Some whole records.

    Attributes:
      content: the text to parse; it ends with a line end.
      is_utf8: False if each byte of the original became a character, since some were not UTF-8.
      delimiter, quote: of the text.
    """

    content: bytes
    is_utf8: bool
    delimiter: str
    quote: str

    @classmethod
    def of(cls, data: bytes, delimiter: str, quote: str) -> Text:
        """Return records as pyarrow can parse them."""
        # pyarrow fails a block for bytes that are not UTF-8, wherever they are. In Latin-1 every byte is a character;
        # the used columns are converted back.
        is_utf8 = valid_utf8(data)
        content = data if is_utf8 else data.decode("latin-1").encode()
        if content.startswith(BOM):
            content = b"\n" + content  # treated as any other character, but pyarrow would drop it
        if not content.endswith((b"\n", b"\r")):
            content += b"\n"  # without it pyarrow 25 takes `"a",` as if it ended in `""`
        return cls(content, is_utf8, delimiter, quote)

    def records(self, index: np.ndarray) -> pa.Buffer:
        """Return the text of some of the records, by their numbers."""
        starts, ends = self.positions.of(index)
        # With the byte that ends each record: the last one has an end, too.
        return cut_out(pa.py_buffer(self.content), starts, ends + 1).buffers()[2]

    @functools.cached_property
    def positions(self) -> Positions:
        """The places of the records."""
        return positions(self.content, self.delimiter, self.quote)
