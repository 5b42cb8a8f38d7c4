"""Division of files into splits, units of work that can be read in any order, by any worker."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from numbers import Integral

from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.formats.base import ReadSettings, format_named
from beam_score.transforms.stores.fetch import StoreFails
from beam_score.transforms.stores.objects import is_object
from beam_score.transforms.stores.versions import check_unchanged, check_unless_asked_for

SPLITS_A_WORKER = 20


_OBJECTS_AT_ONCE = 16  # each request has a latency


_AGAIN = "run the same command again to read it as it is now"


def effective_split_bytes(total: int, split_bytes: int, workers: int) -> int:
    """Return the bytes a split: fewer than requested if that would leave fewer than 20 splits a worker, since the
    engine assigns them once without work stealing (FnApiRunner); at least 1 MiB."""
    return max(min(split_bytes, total // max(1, SPLITS_A_WORKER * workers)), min(split_bytes, 1 << 20))


def group(ranges: Sequence[FileRange], split_bytes: int) -> list[Split]:
    """Group file ranges into splits of about `split_bytes`, largest first: the engine assigns them in this order,
    and the small ones even out the end."""
    groups: list[list[FileRange]] = []
    filled = 0
    for range_ in ranges:
        if not groups or filled + range_.bytes > split_bytes * 1.25:
            groups.append([])
            filled = 0
        groups[-1].append(range_)
        filled += range_.bytes
    groups.sort(key=lambda g: -sum(r.bytes for r in g))
    return [Split(number, tuple(g)) for number, g in enumerate(groups)]


ListedFile = tuple[str, int] | tuple[str, int, str | None]
"""Path, size, and the version (`transforms.stores.versions`) that it must have whenever it is read; without a
version it is not checked."""


def _check_listed(files: Sequence[ListedFile]) -> None:
    for file in files:
        if isinstance(file, str | bytes | os.PathLike) or len(file) not in (2, 3) or not isinstance(file[1], Integral):
            raise TypeError(
                f"split_files: {file!r} is not (path, size) or (path, size, version): pass for example "
                "[(path, os.path.getsize(path))]"
            )


def cut_files(
    files: Sequence[ListedFile], split_bytes: int, cut: Callable[[str, int, int, str | None], list[FileRange]]
) -> list[FileRange]:
    """Cut all files into ranges, in order; several files at once.

    Args:
      cut: (path, size, split_bytes, version) of one file; see `Format.cut`.

    Raises:
      InputChanged: a file is not the version that was listed.
      StoreFails: a store does not return an object.
    """

    def ranges_of(path: str, size: int, version: str | None = None) -> list[FileRange]:
        try:
            ranges = cut(path, size, split_bytes, version)
        except StoreFails:
            raise
        except Exception:
            # Checked first: an error from cutting another version is misleading.
            check_unchanged(path, version, _AGAIN)
            raise
        check_unless_asked_for(path, version, _AGAIN)
        return [dataclasses.replace(range_, version=version) for range_ in ranges]

    objects = any(is_object(file[0]) for file in files)
    at_once = _OBJECTS_AT_ONCE if objects else min(8, 2 * (os.cpu_count() or 1))
    return [range_ for ranges in parallel_map(lambda file: ranges_of(*file), files, at_once) for range_ in ranges]


def split_files(
    files: Sequence[ListedFile], settings: ReadSettings, split_bytes: int = 64_000_000, workers: int = 1
) -> list[Split]:
    """Divide files into units of work that can be read in any order, by any worker, largest first.

    Args:
      files: (path, size), or (path, size, version); see `ListedFile`.
      settings: how they are read.
      split_bytes: approximate bytes of a split.
      workers: splits are smaller if there would be too few for each worker.
    """
    _check_listed(files)
    format_ = format_named(settings.format)
    size = effective_split_bytes(sum(file[1] for file in files), split_bytes, workers)
    ranges = cut_files(
        files, size, lambda path, bytes_, most, version: format_.cut(path, bytes_, most, settings, version)
    )
    return group(ranges, size)
