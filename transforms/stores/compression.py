"""Byte streams of plain and compressed files. The first bytes show the compression."""

from __future__ import annotations

import bz2
import functools
import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from beam_score.transforms.stores.byte_file import ByteFile
from beam_score.transforms.stores.local_file import LocalFile
from beam_score.transforms.stores.object_file import ObjectFile
from beam_score.transforms.stores.objects import is_object

_MAGIC = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
_ZLIB = b"\x78"
_SUFFIXES = {".gz": "gzip", ".gzip": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".zstd": "zstd"}
_PIECE = 64 * 1024
SMALL_BYTES = 64 << 10
"""Files up to this size are never cut, and a launch does not open them: over thousands of files, opening costs more
than reading."""
# zstandard does not limit the output of one call. A block of 128 KiB takes at least 4 bytes, so
# this many bytes give at most 4 MiB.
_ZSTD_PIECE = 128
_BZIP2_BLOCK = 1 << 20  # compressed; a block contains at most 900 kB
_BZIP2_END = 11  # bytes: an end marker of 48 bits, a checksum of 32, and up to 7 bits of padding
_MEMBERS = {"gzip": "gzip member", "zlib": "zlib stream", "zstd": "zstd frame"}
_CHECKSUM_FAILS = ("incorrect data check", "incorrect length check", "Restored data doesn't match checksum")
"""Messages of zlib and zstd for a stream that was decompressed to its end, but whose checksum does not match."""
_ZSTD_WINDOW = 128 << 20  # the limit of the zstd command without --long


class CorruptStream(Exception):
    """A compressed stream that is cut off, fails its checksum, or is followed by other data.

    Raised only after all bytes before the damage were returned: those that could be decompressed or, if a checksum
    does not match, those before the bytes that it covers.

    Attributes:
      sound_bytes: number of decompressed bytes before those whose checksum does not match; None if no checksum failed.
    """

    def __init__(self, message: str, loses_output: bool = False, sound_bytes: int | None = None):
        super().__init__(message)
        self.loses_output, self.sound_bytes = loses_output, sound_bytes


class Refuted(CorruptStream):
    """A checksum does not match bytes that were returned before it was reached. The caller discards them and reads
    again, with the damage that `damage_of` finds as `sound`."""


def open_file(path: str, version: str | None = None) -> ByteFile:
    """Open a file, or an object in a store, as a seekable stream of its stored bytes.

    Args:
      version: the version of an object to read (`transforms.stores.versions`); None for the current one.

    Raises:
      OSError: the file cannot be opened.
      ReadFails, StoreFails: the system or the store failed. Reads of the stream raise them too.
    """
    return ObjectFile(path, version) if is_object(path) else LocalFile(path)


def compression_of(path: str, version: str | None = None) -> str | None:
    """Return `gzip`, `bzip2`, `zstd`, or None for an uncompressed file. The first bytes decide; for an empty file,
    the name.
    """
    if is_object(path) and version is not None:
        return _compression_of_object(path, version)
    return _compression_of(path, version)


def is_compressed(path: str, size: int, split_bytes: int, version: str | None = None) -> bool:
    """Return whether a file that is to be cut is compressed.

    Small files are never cut, so the extension is enough: it only affects the estimated weight of the split, and
    opening thousands of files once more takes longer than reading them."""
    if size <= min(SMALL_BYTES, split_bytes):
        return _kind(b"", path) is not None
    return compression_of(path, version) is not None


@functools.lru_cache(1 << 18)  # a launch asks for each file twice, and a request is slow
def _compression_of_object(path: str, version: str) -> str | None:
    return _compression_of(path, version)


def _compression_of(path: str, version: str | None) -> str | None:
    with open_file(path, version) as file:
        return _kind(file.read(4), path)


def _kind(head: bytes, path: str) -> str | None:
    if not head:
        return next((kind for suffix, kind in _SUFFIXES.items() if path.lower().endswith(suffix)), None)
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


class RawStream:
    """The content of a file, decompressed if necessary; a context manager.

    Args:
      path: the file.
      start, end: the bytes of the file to return; only for a file that is not compressed. `end` -1:
        to the end.
      version: see `open_file`.
      ahead: whether the file will be read to its end; the next bytes of an object are then fetched in advance.
      sound: known damage found by a checksum; it is raised after the bytes before it.
      kind: the compression, if known; required for `zlib`, whose first bytes may also begin a text.

    Attributes:
      compression: `gzip`, `bzip2`, `zstd`, `zlib`, or None.
    """

    def __init__(
        self,
        path: str,
        start: int = 0,
        end: int = -1,
        version: str | None = None,
        ahead: bool = False,
        sound: CorruptStream | None = None,
        kind: str | None = None,
    ):
        self._path, self._version, self._sound = path, version, sound
        self._file = open_file(path, version)
        # The first bytes of an object are then cached for the reads that follow.
        asked = version is not None and is_object(path)
        self.compression = kind or (compression_of(path, version) if asked else _kind(self._file.read(4), path))
        if ahead and isinstance(self._file, ObjectFile):
            to_the_end = end < 0 or self.compression
            self._file.stream(0 if self.compression else start, self._file.size if to_the_end else end)
        self._left = None if end < 0 else max(0, end - start)
        self._given = 0
        self._damage: CorruptStream | None = None
        self._stepped_back = False
        self._members = _Members(self._file, self.compression) if self.compression else None
        self._file.seek(0 if self.compression else start)

    def read(self, n: int) -> bytes:
        """Return about `n` bytes, at least one; `b""` at the end.

        Raises:
          CorruptStream: see the class. Refuted if bytes that were already returned belong to the damage.
          ReadFails, StoreFails, MemoryError: a failure that is not the file's fault.
        """
        if self._members is not None:
            return self._read_members(self._members, n)
        if self._left is not None:
            n = min(n, self._left)
        data = self._file.read(n) if n else b""
        if self._left is not None:
            self._left -= len(data)
        return data

    def _read_members(self, members: _Members, n: int) -> bytes:
        before = self._given
        if self._sound is not None and self._sound.sound_bytes is not None:
            n = min(n, self._sound.sound_bytes - before)
            if n <= 0:
                raise CorruptStream(str(self._sound), sound_bytes=self._sound.sound_bytes)
        parts, size = [], 0
        while size < n and self._damage is None:
            try:
                part = members.next(min(n - size, 1 if members.in_small_steps else _PIECE))
            except CorruptStream as error:
                if self._stepped_back or not error.loses_output:
                    self._damage = error
                else:
                    members = self._step_back(members)
                continue
            if not part:
                break
            parts.append(part)
            size += len(part)
            self._given += len(part)
        data = b"".join(parts)
        if self._damage is not None and self._damage.sound_bytes is not None:
            if self._damage.sound_bytes < before:
                raise Refuted(str(self._damage), sound_bytes=self._damage.sound_bytes)
            data = data[: self._damage.sound_bytes - before]
            self._given = before + len(data)
        if self._damage is not None and not data:
            raise self._damage
        return data

    def _step_back(self, failed: _Members) -> _Members:
        """Go back to just before the piece that failed, to feed it in the smallest steps: the error discarded what
        the decompressor had made of the bytes before the damage.
        """
        self._stepped_back = True
        near = failed.taken - 3 * _PIECE - (_BZIP2_BLOCK if failed.kind == "bzip2" else 0)
        self._file.close()
        self._file = open_file(self._path, self._version)
        self._members = again = _Members(self._file, failed.kind, near)
        skipped = 0
        while skipped < self._given:
            skipped += len(again.next(min(self._given - skipped, _PIECE)))
        return again

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RawStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_zlib(head: bytes) -> bool:
    """Return whether these bytes may begin a zlib stream (RFC 1950). They may also begin a text."""
    return len(head) > 1 and head[0] == _ZLIB[0] and int.from_bytes(head[:2]) % 31 == 0


def damage_of(path: str, version: str | None = None) -> CorruptStream | None:
    """Read a compressed file to its end; return the damage that a checksum shows, or None. Raises OSError."""
    with open_file(path, version) as file:
        kind = "zlib" if is_zlib(file.read(2)) else None
    with RawStream(path, version=version, ahead=True, kind=kind) as stream:
        try:
            while stream.compression and stream.read(_PIECE):
                pass
        except CorruptStream as damage:
            return damage if damage.sound_bytes is not None else None
    return None


class _Decompressor(Protocol):
    """The common part of the three libraries' decompressors.

    Attributes:
      eof: whether the end of the stream was reached.
      unused_data: the bytes after that end.
      decompress: returns the output for more input; for zlib and bzip2 it takes a maximum number of bytes, too.
    """

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def decompress(self) -> Callable[..., bytes]: ...


class _Members:
    """Decompressor of a file of one or more gzip members, bzip2 streams or zstd frames.

    Args:
      near: the compressed byte from which single bytes are fed, so that an error comes only after the output of
        all bytes before it; None for never.

    Attributes:
      kind: the compression.
      taken: number of compressed bytes consumed.
      given: number of decompressed bytes returned.
    """

    def __init__(self, file: ByteFile, kind: str, near: int | None = None):
        self._near = near
        self._file, self.kind = file, kind
        self._is_zlib = kind in ("gzip", "zlib")
        self._magic = next((magic for magic, name in _MAGIC if name == kind), _ZLIB)
        self._pending = b""  # compressed bytes not yet consumed
        self.taken = self.given = 0
        self._member: _Decompressor | None = None  # of the open member
        self._member_from = self._member_at = 0  # start of the open member, in decompressed and in compressed bytes
        self._block_from = 0  # bzip2: all bytes before it belong to blocks whose checksum matches
        self._last = b""  # bzip2: the last bytes that were fed one by one
        self._draining = False  # bzip2: there may be output without more input
        self._count = 0

    @property
    def fine(self) -> bool:
        return self._near is not None and self.taken >= self._near

    @property
    def in_small_steps(self) -> bool:
        """Return whether to request the output byte by byte, too; bzip2 returns whole blocks."""
        return self.fine and self.kind != "bzip2"

    def next(self, n: int) -> bytes:
        """Return at most `n` decompressed bytes (zstd: some more); `b""` at the end; raise CorruptStream."""
        while True:
            member = self._member or self._begin()
            if member is None:
                return b""
            if not self._pending and not self._draining:
                self._pending = self._file.read(_PIECE)
                if not self._pending and not self._is_zlib:
                    raise CorruptStream(f"the {self.kind} stream is cut off at byte {self.taken}")
            data = self._step(member, n)
            if data:
                self.given += len(data)
                return data
            if not self._pending and self._is_zlib and self._member is not None:
                # zlib may keep output back while it has no input: the end is reached only when it returns none.
                self._pending = self._file.read(_PIECE)
                if not self._pending:
                    raise CorruptStream(f"the {self.kind} stream is cut off at byte {self.taken}")

    def _begin(self) -> _Decompressor | None:
        """Open the next member and return its decompressor; None at a proper end of the file."""
        while len(self._pending) < 8 and (more := self._file.read(_PIECE)):
            self._pending += more
        if not self._pending:
            if not self._count:
                raise CorruptStream(f"the {self.kind} file is empty: zero bytes")
            return None
        if not self._pending.startswith(self._magic):
            if self.kind == "gzip" and not self._pending.strip(b"\0"):
                # Zero bytes are padding after the last member; gzip accepts them too.
                self._take(len(self._pending))
                return self._begin()
            if self.kind == "zstd" and self._pending[1:4] == b"\x2a\x4d\x18" and self._pending[0] >> 4 == 5:
                self._pass_over()
                return self._begin()
            raise CorruptStream(f"the data after the {self.kind} stream, at byte {self.taken}, is not {self.kind}")
        self._count += 1
        self._member_from, self._member_at, self._block_from = self.given, self.taken, self.given
        if self._is_zlib:
            self._member = zlib.decompressobj(wbits=31 if self.kind == "gzip" else 15)
        elif self.kind == "bzip2":
            self._member = bz2.BZ2Decompressor()
        else:
            self._member = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
        return self._member

    def _pass_over(self) -> None:
        """Skip a skippable zstd frame (RFC 8878, 3.1.2)."""
        left = 8 + int.from_bytes(self._pending[4:8], "little")
        while left:
            self._pending = self._pending or self._file.read(_PIECE)
            if not self._pending:
                raise CorruptStream(f"the zstd stream is cut off at byte {self.taken}")
            step = min(left, len(self._pending))
            self._take(step)
            left -= step

    def _take(self, count: int) -> bytes:
        taken, self._pending = self._pending[:count], self._pending[count:]
        self.taken += len(taken)
        return taken

    def _step(self, member: _Decompressor, n: int) -> bytes:
        """Feed a piece to the open member and return its output; close the member at its end."""
        if self._draining:
            piece = b""
        else:
            piece = self._take(1 if self.fine else _ZSTD_PIECE if self.kind == "zstd" else _PIECE)
            if self.kind == "bzip2":
                self._block_from = self.given
                self._last = (self._last + piece)[-_BZIP2_END:]
        try:
            data = member.decompress(piece) if self.kind == "zstd" else member.decompress(piece, n)
        except (zlib.error, OSError, ValueError, zstandard.ZstdError) as error:
            if _is_short_of_memory(error):
                raise MemoryError(f"the {self.kind} decompressor: {error}") from error
            raise self._damage(error) from error
        rest = member.unused_data if member.eof else getattr(member, "unconsumed_tail", b"")
        if rest:
            self._pending = rest + self._pending
            self.taken -= len(rest)
        if isinstance(member, bz2.BZ2Decompressor):
            self._draining = not member.eof and (bool(data) or not member.needs_input)
        if member.eof:
            self._member = None
        return data

    def _damage(self, error: Exception) -> CorruptStream:
        """Return the damage to the stream that an error of the decompressor shows."""
        near = f"near byte {self.taken}"
        if self.kind == "bzip2":
            # The library does not say which checksum failed: usually that of a block, and all blocks before it are
            # sound; or that of the stream, at its end.
            if not self.fine:
                return CorruptStream(f"the bzip2 stream is damaged {near}: {error}", True)
            ended = _is_bzip2_end(self._last)
            what = f"stream that begins at byte {self._member_at}" if ended else f"block that ends {near}"
            return CorruptStream(
                f"the bzip2 {what} is damaged, or its checksum does not match ({error}): it and everything after it "
                "are ignored",
                sound_bytes=self._member_from if ended else self._block_from,
            )
        if any(text in str(error) for text in _CHECKSUM_FAILS):
            what = f"{_MEMBERS[self.kind]} that begins at byte {self._member_at}"
            return CorruptStream(
                f"the checksum of the {what} does not match ({error}): it and everything after it are ignored",
                sound_bytes=self._member_from,
            )
        return CorruptStream(f"the {self.kind} stream is damaged {near}: {error}", True)


def _is_bzip2_end(last: bytes) -> bool:
    """Return whether these bytes end in the end marker of a stream and its checksum, at any bit of the last byte."""
    bits = int.from_bytes(last)
    return any(bits >> (32 + pad) & ((1 << 48) - 1) == 0x177245385090 for pad in range(8))


def _is_short_of_memory(error: Exception) -> bool:
    """Return whether a decompressor's error is that the machine ran out of memory, which is not damage. The zstd error
    for a window over `_ZSTD_WINDOW` is a different one."""
    text = str(error)
    return text.startswith("Error -4 ") or "Allocation error" in text
