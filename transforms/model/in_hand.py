"""What is being worked on, by the model or by a reader: a few bytes of memory that outlive a process which dies of it.

Each thread notes the rows before it calls the model, and the file before a library decodes a part of it that can end
the process, and clears the note when the call returns. The
memory is shared with the process that watches over this one, and that reads it when there is no one
left to ask. Until someone calls `open_register`, notes go nowhere.
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
"""Processes that share a register, and threads of each that it has room for; others note nothing."""

_PATH_BYTES = 1000
_SLOT = struct.Struct(f"<qq{_PATH_BYTES}sq{_PATH_BYTES}s")  # rows, first row and file, last row and file
_ROWS = struct.Struct("<q")  # the first field of a slot: 0 where nothing is in hand
_SIZE = _SLOT.size * SLOTS * REGIONS


MODEL = -1
"""As the `count` of a note: it names a model, not rows."""

READ = -2
"""As the `count` of a note: it names a file that a library decodes."""


class Rows(NamedTuple):
    """Rows that were given to the model in one call; or a model that a process has loaded, or began to load.

    Attributes:
      count: how many; `MODEL` where `first_source` is the path of a model, `READ` where it is a file that is read.
      first_source, first_row: file and number of the first.
      last_source, last_row: of the last.
    """

    count: int
    first_source: str
    first_row: int
    last_source: str
    last_row: int

    @property
    def is_file(self) -> bool:
        """Whether it is a file that is being read, and no rows."""
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
        # Taken and given back by any thread: both ends of a list are safe without a lock.
        self.free = [begin + slot * _SLOT.size for slot in range(SLOTS)] if region < REGIONS else []


_register: _Register | None = None


def make_register() -> int | None:
    """Memory for a register, empty, as a descriptor that a child process inherits. None where the system
    gives none, as under a tight limit on the size of files: no run is to fail for it."""
    try:
        descriptor = os.memfd_create("in_hand")
        os.truncate(descriptor, _SIZE)
    except (OSError, AttributeError):  # memfd_create is Linux's own
        return None
    return descriptor


def open_register(descriptor: int | None, region: int = 0) -> None:
    """From now on this process notes what is in hand, if there is a register.

    Args:
      descriptor: see `make_register`.
      region: which of `REGIONS` is this process's own.
    """
    global _register
    _register = None if descriptor is None else _Register(descriptor, region)


def opened() -> int | None:
    """The descriptor of this process's register, to be passed on; None where there is none."""
    return None if _register is None else _register.descriptor


def note(rows: Rows) -> int | None:
    """Notes some rows. With `clear` it costs three microseconds.

    Returns:
      what `clear` is to be told; None where there is no register, or no room in it.
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
    """Notes a model before it is loaded, once; the note stays."""
    register = _register
    if register is not None and path not in register.models:
        register.models.add(path)
        note(Rows(MODEL, path, 0, path, 0))


def clear(at: int | None) -> None:
    """Takes a note back: the model has answered, or raised."""
    register = _register
    if at is not None and register is not None:
        _ROWS.pack_into(register.memory, at, 0)
        register.free.append(at)


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Notes that a library decodes a file."""
    noted = note(Rows(READ, path, 0, path, 0))
    try:
        yield
    finally:
        clear(noted)


def read_register(descriptor: int | None) -> list[Rows]:
    """What is in hand now, in any process; nothing where there is no register."""
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
