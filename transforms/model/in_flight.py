"""A register of the rows or files in progress, in a few bytes of shared memory that outlive a crash of the process.

Each thread notes the rows before it calls the model, and the file before a library decodes a part of it that can end
the process, and clears the note when the call returns. The memory is shared with the supervising process, which reads
it after a crash. Before `open_register` is called, notes are discarded.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

REGIONS, SLOTS = 16, 64
"""Maximum number of processes that share a register, and of threads of each; the notes of others are discarded."""

_PATH_BYTES = 1000
_SLOT = struct.Struct(f"<qq{_PATH_BYTES}sq{_PATH_BYTES}s")  # rows, first row and file, last row and file
_ROWS = struct.Struct("<q")  # the first field of a slot: 0 if it is empty
_SIZE = _SLOT.size * SLOTS * REGIONS


MODEL = -1
"""The `count` of a note that names a model, not rows."""

READ = -2
"""The `count` of a note that names a file that a library decodes."""


class Rows(NamedTuple):
    """The rows of one call of the model; or a model that a process has loaded, or began to load; or a file.

    Attributes:
      count: number of rows; `MODEL` if `first_source` is the path of a model, `READ` if it is a file that is read.
      first_source, first_row: file and number of the first row.
      last_source, last_row: file and number of the last row.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    first_source: str
    first_row: int
    last_source: str
    last_row: int

    @property
    def is_file(self) -> bool:
        """True for the note of a file that is being read."""
        return self.count == READ

    def __str__(self) -> str:
        if self.is_file:
            return self.first_source
        if self.first_source == self.last_source:
            return f"{self.first_source} rows {self.first_row}-{self.last_row}"
        return f"{self.first_source} row {self.first_row} to {self.last_source} row {self.last_row}"


class _Register:
    """The slots of one process."""

    def __init__(self, descriptor: int, region: int):
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, _SIZE)
        self.models: set[str] = set()
        begin = region * SLOTS * _SLOT.size
        # Used by all threads: pop and append of a list are safe without a lock.
        self.free = [begin + slot * _SLOT.size for slot in range(SLOTS)] if region < REGIONS else []


_register: _Register | None = None


def make_register() -> int | None:
    """Create the memory of an empty register, as a descriptor that child processes inherit. Returns None if the system
    refuses it, as under a tight limit on file sizes: no run must fail for it."""
    try:
        descriptor = os.memfd_create("in_flight")
        os.truncate(descriptor, _SIZE)
    except (OSError, AttributeError):  # memfd_create only exists on Linux
        return None
    return descriptor


def open_register(descriptor: int | None, region: int = 0) -> None:
    """Open a register, if there is one, for the notes of this process.

    Args:
      descriptor: see `make_register`.
      region: the region of this process, below `REGIONS`.
    """
    global _register
    _register = None if descriptor is None else _Register(descriptor, region)


def opened() -> int | None:
    """Return the descriptor of this process's register, for its children; None if there is no register."""
    return None if _register is None else _register.descriptor


def note(rows: Rows) -> int | None:
    """Note some rows. Takes three microseconds, including `clear`.

    Returns:
      the argument for `clear`; None if there is no register, or it is full.
    """
    register = _register
    if register is None:
        return None
    try:
        at = register.free.pop()
    except IndexError:
        return None
    count, first_source, first_row, last_source, last_row = rows
    _SLOT.pack_into(register.memory, at, 0, first_row, _encode(first_source), last_row, _encode(last_source))
    _ROWS.pack_into(register.memory, at, count)
    return at


def note_model(path: str) -> None:
    """Note a model before it is loaded, once; the note is never cleared."""
    register = _register
    if register is not None and path not in register.models:
        register.models.add(path)
        note(Rows(MODEL, path, 0, path, 0))


def clear(at: int | None) -> None:
    """Clear a note after the call has returned or raised."""
    register = _register
    if at is not None and register is not None:
        _ROWS.pack_into(register.memory, at, 0)
        register.free.append(at)


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Note that a library decodes a file, while the body runs."""
    noted = note(Rows(READ, path, 0, path, 0))
    try:
        yield
    finally:
        clear(noted)


def read_register(descriptor: int | None) -> list[Rows]:
    """Return the current notes of all processes; empty if there is no register."""
    found: list[Rows] = []
    if descriptor is None:
        return found
    with mmap.mmap(descriptor, _SIZE, prot=mmap.PROT_READ) as memory:
        for at in range(0, _SIZE, _SLOT.size):
            if _ROWS.unpack_from(memory, at)[0]:
                count, first_row, first, last_row, last = _SLOT.unpack_from(memory, at)
                found.append(Rows(count, _decode(first), first_row, _decode(last), last_row))
    return found


@functools.lru_cache(64)
def _encode(path: str) -> bytes:
    encoded = path.encode("utf-8", "surrogateescape")
    return encoded if len(encoded) <= _PATH_BYTES else b"..." + encoded[3 - _PATH_BYTES :]


def _decode(path: bytes) -> str:
    return path.rstrip(b"\0").decode("utf-8", "replace")
