"""An open ORC file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyarrow import orc

from beam_score.transforms.formats.base import UnusableFile
from beam_score.transforms.formats.typed import suspects
from beam_score.transforms.formats.typed.columns import first_line
from beam_score.transforms.model import in_flight
from beam_score.transforms.stores.byte_file import ByteFile
from beam_score.transforms.stores.compression import open_file
from beam_score.transforms.stores.local_file import is_of_the_system

_MOST_ROWS = 1 << 27
"""In a stripe: its narrowest column would take a gigabyte of memory."""

_NARROW = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_temporal)


class OrcDamage(Exception):
    """A stripe cannot be decoded."""


class _Source(io.RawIOBase):
    """A file that remembers its first error: the ORC library passes on the text of an error alone.

    Attributes:
      error: what a read raised.
    """

    def __init__(self, file: ByteFile):
        self._file = file
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = self.error or error
            raise

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class OrcInput:
    """An open ORC file.

    Attributes:
      path: its path.
      schema: its columns.
      stripes: their number.
      total: rows, as the footer says.
    """

    def __init__(self, path: str, version: str | None, source: _Source):
        self.path, self._version, self._source = path, version, source
        self._file = file = orc.ORCFile(source)
        self.schema: pa.Schema = file.schema
        self.stripes: int = file.nstripes
        self.total: int = file.nrows
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
            _raise_unless_damage(error, self._source)
            raise OrcDamage(first_line(error)) from error

    def rows(self, index: int) -> int:
        """Return the number of rows of a stripe. Raises as `stripe`."""
        if self._narrowest is not None:
            why = suspects.why_not("orc", self.path, self._version, (index,), (self._narrowest,))
            if why is not None:
                raise OrcDamage(why)
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
    with open_file(path, version) as file:
        source = _Source(file)
        try:
            with in_flight.reading(path):
                opened = OrcInput(path, version, source)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            _raise_unless_damage(error, source)
            raise UnusableFile("unreadable", f"not a whole ORC file: {first_line(error)}") from error
        if opened.total > _MOST_ROWS * max(1, opened.stripes):
            raise UnusableFile("unreadable", f"its footer claims {opened.total:,} rows in {opened.stripes:,} stripes")
        yield opened


def _raise_unless_damage(error: Exception, source: _Source) -> None:
    """Raise an error that is not caused by the file's content."""
    if source.error is not None:
        raise source.error
    if is_of_the_system(error):
        raise error
