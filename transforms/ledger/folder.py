"""The paths of the files of a run, and its plan: its splits, frozen at launch. All later steps, including resume and
commit, read the plan; nothing splits again."""

from __future__ import annotations

import dataclasses
import errno
import operator
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile, checksum, read_sealed, seal, unseal
from beam_score.transforms.durable.storage import Place
from beam_score.transforms.ledger.names import is_in_run, is_run
from beam_score.transforms.ledger.shapes import CURRENT as CURRENT_SHAPE
from beam_score.transforms.ledger.shapes import PLAN, WHOLE_PLAN, Misfit, fit

STAGING = "_staging"
CURRENT = "current.json"
"""Under staging: names the current run and its job. A run's folder is created only after this file names the run."""

LAUNCHES = "launches"
"""Under staging: the folder of files that launches keep locked while they prepare."""

JOB = "job-"
"""Prefix of the names of files that describe a job on a remote engine."""

SHARD_SPLITS = 500

_RANGE = operator.attrgetter(*(field.name for field in dataclasses.fields(FileRange) if field.name != "sound"))


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of the files of one run, under the job's output folder.

    Attributes:
      output: the job's output folder.
      run: id of the run; empty if only the path of `current.json` is needed.

    Raises:
      CorruptFile: `run` is not the id of a run, so it must not become a path.
    """

    output: str
    run: str

    def __post_init__(self) -> None:
        check_type("RunFolder: output", self.output, str, "pass the path of the output folder as text")
        if self.run and not is_run(self.run):
            raise CorruptFile(f"{self.output}: {self.run!r} is not the id of a run")

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
        """Return the path of a receipt. A further version replaces earlier ones, which are damaged."""
        return self.receipts / (f"{split:06d}.json" if version == 1 else f"{split:06d}.{version}.json")

    def verdict(self, number: int) -> Place:
        return self.path / f"commit-{number}.json"

    def job(self, name: str) -> Place:
        """Return the path of a launch's note about a job that it submits and that continues without it. On Flink a
        name may contain any character."""
        return self.path / f"{JOB}{quote(name, safe='')}.json"

    def shard(self, name: str) -> Place:
        return self.path / "plan" / name

    def remove(self) -> None:
        """Remove the folder with all files that a run writes in it; files with other names stay."""
        storage.remove_folder(self.path, is_in_run)


def parse_current(content: bytes) -> dict[str, Any]:
    """Return the content of `current.json`: `run`, `fingerprint`, and if it is being published. Raises CorruptFile."""
    found = unseal(content, CURRENT)
    try:
        fit(found, CURRENT_SHAPE)
    except Misfit as error:
        raise CorruptFile(f"{CURRENT}: damaged: {error}") from None
    return found


def write_plan(folder: RunFolder, splits: Sequence[Split], header: dict[str, Any]) -> None:
    """Write the plan's shards, then its header, which makes the plan complete, unless there is one already.

    Args:
      header: what else is frozen; see `read_plan`.
    """
    for path in (folder.path, folder.parts, folder.receipts, folder.path / "plan"):
        storage.make_folder(path)
    names: list[str] = []
    for at in range(0, len(splits), SHARD_SPLITS):
        shard = splits[at : at + SHARD_SPLITS]
        content = b"\n".join(orjson.dumps([s.id, [_RANGE(r) for r in s.ranges]]) for s in shard)
        # The name contains a checksum: two launches at once that plan the same write the same files.
        names.append(f"{len(names):05d}-{checksum(content)}.jsonl")
        storage.create_if_absent(folder.shard(names[-1]), content)
    header = header | {"run": folder.run, "splits": len(splits), "shards": names}
    storage.create_if_absent(folder.plan, seal(header))


def read_plan(folder: RunFolder, whole: bool = False) -> dict[str, Any]:
    """Return the plan's header, with among others `splits`, the number of splits, and `shards`, the names of the files
    that list them.

    Args:
      whole: whether everything needed to continue the run must be there.

    Raises:
      FileNotFoundError: there is no plan.
      CorruptFile: the plan is not valid.
    """
    header = read_sealed(folder.plan)
    if header is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(folder.plan))
    try:
        fit(header, WHOLE_PLAN if whole else PLAN)
    except Misfit as error:
        raise CorruptFile(f"{folder.plan}: damaged: {error}") from None
    if header["run"] != folder.run:
        raise CorruptFile(f"{folder.plan}: damaged: it is the plan of run {header['run']}")
    return header


def read_shard(folder: RunFolder, name: str) -> Iterator[Split]:
    """Yield the splits of one shard of the plan. Raises CorruptFile."""
    content = storage.read(folder.shard(name))
    if content is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(folder.shard(name)))
    if checksum(content) not in name:
        raise CorruptFile(
            f"{folder.shard(name)}: damaged: its content does not match the checksum in its name; "
            "--restart begins again"
        )
    for line in content.splitlines():
        try:
            yield _split(*orjson.loads(line))
        except (TypeError, ValueError):
            raise CorruptFile(f"{folder.shard(name)}: damaged: a line is not a split; --restart begins again") from None


def _split(id_: Any, ranges: Any) -> Split:
    """Return a split of a plan. Raises ValueError or TypeError for values that are not valid in a plan."""
    if not isinstance(id_, int) or isinstance(id_, bool) or id_ < 0:
        raise ValueError
    found = tuple(FileRange(*r) for r in ranges)
    for r in found:
        if not isinstance(r.path, str) or not isinstance(r.version, str | None):
            raise TypeError
        if any(type(n) is not int for n in (r.size, r.start, r.end, r.first_row, r.index, r.bytes)):
            raise TypeError
    return Split(id_, found)
