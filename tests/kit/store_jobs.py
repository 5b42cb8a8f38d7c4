"""A small job over an output folder in a store, driven through the protocol itself, without a model or an engine."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection

import google_crc32c
import pyarrow as pa
from small_blocks import blocks_of

from beam_score.pipeline.run.begin import freeze
from beam_score.pipeline.run.output_state import OutputState
from beam_score.pipeline.run.protocol import bring_to_verdict, publish
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.attempt import WriteSettings
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder, read_plan, read_shard
from beam_score.transforms.ledger.manifest import read_manifest
from beam_score.transforms.ledger.receipts import is_done
from beam_score.transforms.steps.write import WriteParts
from beam_score.transforms.stores.registry import store_of

SCHEMA = pa.schema([("id", pa.string())])
ROWS = 4
"""Rows per split; the last row of each split is rejected."""


ENOUGH = Budget(share=1.0)


def nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class StoreJob:
    """A job whose rows are identified by its name.

    Attributes:
      output: the output folder.
      name: a different name is a different job.
      splits: number of splits.
      budget: of rejections.
      keep_replaced: see `transforms.ledger.publication.roll_forward`.
    """

    output: str
    name: str = "a"
    splits: int = 3
    budget: Budget = ENOUGH
    keep_replaced: bool = False

    @property
    def ids(self) -> Counter:
        return Counter(f"{self.name}{split}-{row}" for split in range(self.splits) for row in range(ROWS - 1))

    def launch(
        self, run: str, replace: bool = False, restart: bool = False, between: Callable[[], None] = nothing, **settings
    ):
        """Do the work of `beam-score run`. Returns the outcome.

        Args:
          run: id for a new run.
          between: called after each split.
        """
        job = dataclasses.replace(self, **settings)
        discards = OutputState.of(job.output).allowing(replace, restart)
        return bring_to_verdict(StoreLaunch(job, run, discards, between))

    def write(self, folder: RunFolder, split: int) -> None:
        """Write the files of an attempt at a split."""
        writer = WriteParts(WriteSettings(folder, SCHEMA, "jsonl")).writer()
        writer.start_bundle()
        for block in self._blocks(split):
            list(writer.process(block))
        writer.finish_bundle()

    def _blocks(self, split: int):
        return blocks_of(split, f"{self.name}{split}", [f"{self.name}{split}-{row}" for row in range(ROWS - 1)])


@dataclasses.dataclass(frozen=True)
class StoreLaunch:
    """A launch of a job, as `beam_score.pipeline.run.protocol` wants it; see `StoreJob.launch`."""

    job: StoreJob
    run: str
    discards: Collection[str]
    between: Callable[[], None]

    @property
    def output(self) -> str:
        return self.job.output

    @property
    def fingerprint(self) -> dict[str, str]:
        return {"job": self.job.name}

    @property
    def keep_replaced(self) -> bool:
        return self.job.keep_replaced

    def state(self) -> OutputState:
        return OutputState.of(self.output, self.discards)

    def refuse(self, state: OutputState) -> None:
        pass

    def plan(self, state: OutputState) -> RunFolder:
        splits = [Split(n, (FileRange(f"{self.job.name}{n}", 10),)) for n in range(self.job.splits)]
        header = {
            "fingerprint": self.fingerprint, "start_up_s": {}, "engine": None, "versions": {}, "inputs": [],
            "job": {"output": {"format": "jsonl", "not_finite": "null"}},
            "model": {"path": "m", "version": None, "sha256": "00", "signature": "s"},
            "headers": [], "parent": None,
        }  # fmt: skip
        return freeze(state, self.fingerprint, splits, header, self.run)

    def score(self, folder: RunFolder) -> None:
        for shard in read_plan(folder)["shards"]:
            for split in read_shard(folder, shard):
                if not is_done(folder, split.id):
                    self.job.write(folder, split.id)
                    self.between()

    def publish(self, folder: RunFolder):
        return publish(folder, self.job.budget, SCHEMA, self.job.keep_replaced)


def rows(output: str, record: dict, kind: str = "predictions") -> list[dict]:
    """Return the rows of the files in a manifest; each file must exist, as it was published."""
    found = []
    for file in record["files"]:
        if file["kind"] == kind:
            content = storage.read(storage.at(output) / file["path"])
            assert content is not None, f"{file['path']} is not there"
            assert (len(content), f"{google_crc32c.value(content):08x}") == (file["bytes"], file["crc32c"])
            found += [json.loads(line) for line in content.splitlines()]
    return found


def names(output: str) -> list[str]:
    """Return the names of all files in an output folder."""
    folder = storage.at(output)
    return [str(found.path).removeprefix(f"{folder}/") for found in store_of(folder).list(folder)]


def assert_result(job: StoreJob, run: str | None = None) -> None:
    """Assert that the job is published, with every row once, and no files are left over."""
    manifest = read_manifest(job.output)
    assert manifest is not None
    assert run in (None, manifest["run"])
    assert manifest["fingerprint"] == {"job": job.name}
    assert Counter(row["id"] for row in rows(job.output, manifest)) == job.ids
    assert len(rows(job.output, manifest, "rejected")) == job.splits
    assert sorted(names(job.output)) == sorted(["manifest.json", *(file["path"] for file in manifest["files"])])
