"""An open ORC file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import orc

from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.formats.typed import suspects
from beam_score.transforms.formats.typed.columns import first_line
from beam_score.transforms.model import in_flight
from beam_score.transforms.stores.compression import open_file
from beam_score.transforms.stores.local_file import is_of_the_system

_NARROW = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal)


class OrcDamage(Exception):
    """A stripe cannot be decoded."""


class OrcInput:
    """An open ORC file.

    Attributes:
      path: its path.
      schema: its columns.
      stripes: their number.
    """

    def __init__(self, path: str, file: orc.ORCFile):
        self.path, self._file = path, file
        self.schema: pa.Schema = file.schema
        self.stripes: int = file.nstripes
        # A count of rows requires that a column is decoded.
        narrow = (f.name for f in self.schema if any(is_(f.type) for is_ in _NARROW))
        self._narrowest = next(narrow, next(iter(self.schema.names), None))

    def stripe(self, index: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of a whole stripe, the smallest unit that can be read.

        Raises:
          OrcDamage: it cannot be decoded.
          OSError: the file cannot be read, which is not damage.
        """
        try:
            with in_flight.reading(self.path):
                if names:
                    return self._file.read_stripe(index, columns=list(names)).select(list(names))
                rows = self._file.read_stripe(index, columns=[self._narrowest]).num_rows if self._narrowest else 0
                return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            if is_of_the_system(error):
                raise
            raise OrcDamage(first_line(error)) from error

    def rows(self, index: int) -> int:
        """Return the number of rows of a stripe. Raises as `stripe`."""
        return self.stripe(index, []).num_rows


@contextlib.contextmanager
def open_orc(path: str, version: str | None) -> Iterator[OrcInput]:
    """Open an ORC file.

    Args:
      version: of an object (`transforms.stores.versions`).

    Raises:
      UnusableFile: its footer is broken.
      OSError: the file cannot be read, which is not damage.
    """
    if (why := suspects.why_not("orc", path, version)) is not None:
        raise UnusableFile("unreadable", why)
    with open_file(path, version) as source:
        try:
            with in_flight.reading(path):
                opened = OrcInput(path, orc.ORCFile(source))
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            if is_of_the_system(error):
                raise
            raise UnusableFile("unreadable", f"not a whole ORC file: {first_line(error)}") from error
        yield opened
