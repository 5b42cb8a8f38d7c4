"""The plan of a run: which splits there are, frozen at launch. Everything that comes later, resume
and commit too, reads it, and nobody splits again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import orjson

from transforms import storage
from transforms.file_versions import check_unchanged
from transforms.read import ReadSettings, format_module
from transforms.sealed import Damaged, checksum, read_sealed, seal
from transforms.splits import FileRange, Split

STAGING = "_staging"
CURRENT = "current.json"
"""Under staging: which run is begun, and for what job. A run's folder is made only once it says so."""

SHARD_SPLITS = 500
SPLITS_A_WORKER = 20


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where the files of one run stand, under the job's output folder.

    Attributes:
      output: the job's output folder.
      run: id of the run.
    """

    output: str
    run: str

    @property
    def path(self) -> Path:
        return Path(self.output, STAGING, self.run)

    @property
    def current(self) -> Path:
        return Path(self.output, STAGING, CURRENT)

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def parts(self) -> Path:
        return self.path / "parts"

    @property
    def receipts(self) -> Path:
        return self.path / "receipts"

    def receipt(self, split: int, version: int = 1) -> Path:
        """A further version stands for those before it, which are damaged."""
        return self.receipts / (f"{split:06d}.json" if version == 1 else f"{split:06d}.{version}.json")

    def verdict(self, number: int) -> Path:
        return self.path / f"commit-{number}.json"

    def shard(self, name: str) -> Path:
        return self.path / "plan" / name


def effective_split_bytes(total: int, split_bytes: int, workers: int) -> int:
    """Bytes a split: fewer than asked for where that would leave no 20 splits a worker, since the
    engine deals them out once and nobody steals (FnApiRunner); not under 1 MiB."""
    return max(min(split_bytes, total // max(1, SPLITS_A_WORKER * workers)), min(split_bytes, 1 << 20))


def group(ranges: Sequence[FileRange], split_bytes: int) -> list[Split]:
    """File ranges into splits of about `split_bytes`, largest first: the engine deals them out in
    this order, and the small ones then even out the end."""
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
"""Path, size, and the version (`transforms.file_versions`) that it must have whenever it is read; without
one it is not checked."""


def cut_files(
    files: Sequence[ListedFile], split_bytes: int, cut: Callable[[str, int, int], list[FileRange]]
) -> list[FileRange]:
    """All files cut into ranges, in order; several files at once.

    Args:
      cut: of one file; see `transforms.read`.

    Raises:
      InputChanged: a file is not the version that was listed.
    """

    def ranges_of(path: str, size: int, version: str | None = None) -> list[FileRange]:
        try:
            ranges = cut(path, size, split_bytes)
        finally:
            # First of all: what cutting says of another file misleads.
            check_unchanged(path, version, "run the same command again to read it as it is now")
        return [dataclasses.replace(range_, version=version) for range_ in ranges]

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        cuts = pool.map(lambda file: ranges_of(*file), files)
        return [range_ for ranges in cuts for range_ in ranges]


def split_files(
    files: Sequence[ListedFile], settings: ReadSettings, split_bytes: int = 64_000_000, workers: int = 1
) -> list[Split]:
    """Files into units of work that can be read in any order, by any worker, largest first.

    Args:
      files: (path, size), or (path, size, version); see `ListedFile`.
      settings: how they are read.
      split_bytes: about so many bytes a split.
      workers: a split is smaller where there would be too few for each.
    """
    module = format_module(settings.format)
    size = effective_split_bytes(sum(file[1] for file in files), split_bytes, workers)
    return group(cut_files(files, size, lambda path, bytes_, most: module.cut(path, bytes_, most, settings)), size)


def write_plan(folder: RunFolder, splits: Sequence[Split], header: dict[str, Any]) -> None:
    """Writes the plan's shards, then its header, which makes the plan complete, unless there is one already.

    Args:
      header: what else is frozen; see `read_plan`.
    """
    for path in (folder.parts, folder.receipts, folder.path / "plan"):
        storage.make_folder(path)
    names = []
    for at in range(0, len(splits), SHARD_SPLITS):
        lines = [
            orjson.dumps([s.id, [dataclasses.astuple(r) for r in s.ranges]]) for s in splits[at : at + SHARD_SPLITS]
        ]
        content = b"\n".join(lines)
        # The name tells what is in it: two launches at once that plan the same write the same.
        names.append(f"{len(names):05d}-{checksum(content)}.jsonl")
        storage.create_if_absent(folder.shard(names[-1]), content)
    header = header | {"run": folder.run, "splits": len(splits), "shards": names}
    storage.create_if_absent(folder.plan, seal(header))


def read_plan(folder: RunFolder) -> dict[str, Any]:
    """The plan's header: among other things `splits`, how many there are, and `shards`, the names of the files
    that list them.

    Raises:
      FileNotFoundError: there is no plan.
      Damaged: there is one that cannot be believed.
    """
    header = read_sealed(folder.plan)
    if header is None:
        raise FileNotFoundError(folder.plan)
    return header


def read_shard(folder: RunFolder, name: str) -> Iterator[Split]:
    """The splits of one shard of the plan. Raises Damaged."""
    content = storage.read(folder.shard(name))
    if content is None:
        raise FileNotFoundError(folder.shard(name))
    if checksum(content) not in name:
        raise Damaged(
            f"{folder.shard(name)}: damaged: its content does not fit the checksum in its name; --restart begins anew"
        )
    for line in content.splitlines():
        id_, ranges = orjson.loads(line)
        yield Split(id_, tuple(FileRange(*r) for r in ranges))


class PlannedSplits(beam.PTransform):
    """Pipeline -> PCollection[Split]: the plan's splits, spread over the workers, largest first.

    Only the names of the plan's shards are in the graph, so that a launch does not grow with the
    number of files (Dataflow refuses requests of some 10 MB).
    """

    def __init__(self, folder: RunFolder, shards: Sequence[str]):
        super().__init__()
        self.folder, self.shards = folder, shards

    def expand(self, begin):
        return (
            begin
            # Create's own reshuffle would lose the order.
            | "Shards" >> beam.Create(self.shards, reshuffle=False)
            | "Splits" >> beam.FlatMap(_splits_of, self.folder).with_output_types(Split)
            | beam.Reshuffle()
        )


def _splits_of(shard: str, folder: RunFolder) -> Iterator[Split]:
    return read_shard(folder, shard)
