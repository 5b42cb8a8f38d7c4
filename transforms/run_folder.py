"""Where the files of a run stand, and its plan: which splits there are, frozen at launch. Everything that comes
later, resume and commit too, reads it, and nobody splits again."""

from __future__ import annotations

import dataclasses
import errno
import operator
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from transforms import storage
from transforms.sealed import Damaged, checksum, read_sealed, seal
from transforms.splits import FileRange, Split
from transforms.storage import Place

STAGING = "_staging"
CURRENT = "current.json"
"""Under staging: which run is begun, and for what job. A run's folder is made only once it says so."""

JOB = "job-"
"""What the names of files begin with that tell of a job on an engine elsewhere."""

SHARD_SPLITS = 500

_RANGE = operator.attrgetter(*(field.name for field in dataclasses.fields(FileRange)))


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
    def path(self) -> Place:
        return storage.at(self.output) / STAGING / self.run

    @property
    def current(self) -> Place:
        return storage.at(self.output) / STAGING / CURRENT

    @property
    def plan(self) -> Place:
        return self.path / "plan.json"

    @property
    def parts(self) -> Place:
        return self.path / "parts"

    @property
    def receipts(self) -> Place:
        return self.path / "receipts"

    def receipt(self, split: int, version: int = 1) -> Place:
        """A further version stands for those before it, which are damaged."""
        return self.receipts / (f"{split:06d}.json" if version == 1 else f"{split:06d}.{version}.json")

    def verdict(self, number: int) -> Place:
        return self.path / f"commit-{number}.json"

    def job(self, name: str) -> Place:
        """What a launch notes of a job that it submits, and that goes on without it. On Flink a name may hold any
        character."""
        return self.path / f"{JOB}{quote(name, safe='')}.json"

    def shard(self, name: str) -> Place:
        return self.path / "plan" / name


def write_plan(folder: RunFolder, splits: Sequence[Split], header: dict[str, Any]) -> None:
    """Writes the plan's shards, then its header, which makes the plan complete, unless there is one already.

    Args:
      header: what else is frozen; see `read_plan`.
    """
    for path in (folder.path, folder.parts, folder.receipts, folder.path / "plan"):
        storage.make_folder(path)
    names = []
    for at in range(0, len(splits), SHARD_SPLITS):
        shard = splits[at : at + SHARD_SPLITS]
        content = b"\n".join(orjson.dumps([s.id, [_RANGE(r) for r in s.ranges]]) for s in shard)
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
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(folder.plan))
    return header


def read_shard(folder: RunFolder, name: str) -> Iterator[Split]:
    """The splits of one shard of the plan. Raises Damaged."""
    content = storage.read(folder.shard(name))
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(folder.shard(name)))
    if checksum(content) not in name:
        raise Damaged(
            f"{folder.shard(name)}: damaged: its content does not fit the checksum in its name; --restart begins anew"
        )
    for line in content.splitlines():
        id_, ranges = orjson.loads(line)
        yield Split(id_, tuple(FileRange(*r) for r in ranges))
