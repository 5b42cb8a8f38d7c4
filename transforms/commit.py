"""The verdict of a run, and its publication: the only step that makes anything visible."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.manifest import DONE, FAILED, MANIFEST, OVER_BUDGET, clean_up, read_manifest, record, timings
from transforms.plan import RunFolder, read_plan
from transforms.read import DRAIN
from transforms.receipt import Counts, Receipt, checksum

PUBLISH = "publish"

_AT_ONCE = 16


class CommitError(RuntimeError):
    """The receipts do not prove that all rows of the plan are accounted for: nothing is published."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much may be refused. Not part of the job's identity: it can be raised later.

    Attributes:
      rows: rejected rows allowed, or None where `share` says it.
      share: rejected rows allowed as a share of those read.
      files: unusable files and unreadable stretches allowed.
    """

    rows: int | None = None
    share: float | None = 0.01
    files: int = 0

    def broken(self, counts: Counts) -> list[str]:
        """What is over budget: a sentence each."""
        problems = []
        if self.rows is not None and counts.rejected > self.rows:
            problems.append(f"{counts.rejected:,} rows are rejected, and rejects.budget allows {self.rows:,}")
        if self.rows is None and counts.read and counts.rejected > self.share * counts.read:
            share = counts.rejected / counts.read
            problems.append(
                f"{counts.rejected:,} of {counts.read:,} rows are rejected ({share:.2%}), "
                f"and rejects.budget allows {self.share:g} of them ({self.share:.2%})"
            )
        if counts.stretches > self.files:
            problems.append(
                f"{counts.stretches} files or stretches cannot be read, and rejects.files allows {self.files}"
            )
        return problems


def collect(folder: RunFolder, splits: int) -> list[Receipt]:
    """The receipts of all splits of the plan, in order.

    Raises CommitError where one is missing: whatever arrived, the plan says what must be there."""

    def read(split: int) -> Receipt | None:
        try:
            return Receipt.from_json(folder.receipt(split).read_bytes())
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(read, range(splits)))
    if missing := [number for number, receipt in enumerate(found) if receipt is None]:
        raise CommitError(
            f"{len(missing)} of {splits} splits have no receipt (first: {missing[:5]}): their rows are not "
            "accounted for, so nothing is published; the same command again reads just these"
        )
    return found


def decide(folder: RunFolder, budget: Budget) -> dict[str, Any]:
    """The verdict on the run: made from the receipts, or found, if it was made before.

    A verdict to publish is final. One that was over budget is followed by another, with the next
    number, once the budget is raised.
    """
    number = 1
    while (path := folder.verdict(number)).exists():
        found = json.loads(path.read_bytes())
        if found["decision"] == PUBLISH or budget.broken(_counts(found)):
            return found
        number += 1
    receipts = collect(folder, read_plan(folder)["splits"])
    counts = Counts.of(receipts)
    if counts.read != counts.predicted + counts.rejected:
        raise CommitError(
            f"{counts.read} rows read, {counts.predicted} predicted, {counts.rejected} rejected: nothing is published"
        )
    for receipt in receipts:
        _check_rows(receipt)
    broken = budget.broken(counts)
    verdict = {
        "number": number,
        "decision": OVER_BUDGET if broken else PUBLISH,
        "over_budget": broken,
        "counts": counts.summary(),
        "parts": _final_names(folder, receipts),
        "decided": time.time(),
    }
    storage.create_if_absent(path, json.dumps(verdict, indent=1).encode())
    return json.loads(path.read_bytes())  # another may have been first; theirs counts


def _counts(verdict: Mapping[str, Any]) -> Counts:
    known = verdict["counts"]
    return Counts(known["read"], known["predicted"], known["rejected"], known["stretches"])


def _check_rows(receipt: Receipt) -> None:
    predicted = sum(f["predicted"] for f in receipt.files.values())
    written = sum(p.rows for p in receipt.parts if p.kind == "predictions")
    if predicted != written:
        raise CommitError(
            f"split {receipt.split}: {predicted} rows were predicted and {written} written: nothing is published"
        )


def _final_names(folder: RunFolder, receipts: Sequence[Receipt]) -> list[dict[str, Any]]:
    """Each part with the name it gets, numbered by kind in the order of the splits."""
    named, numbers = [], {"predictions": 0, "rejected": 0}
    for receipt in receipts:
        for part in receipt.parts:
            suffix = Path(part.name).suffix
            final = f"{part.kind}/{folder.run}-{numbers[part.kind]:05d}{suffix}"
            numbers[part.kind] += 1
            named.append(dataclasses.asdict(part) | {"path": final, "split": receipt.split})
    return named


def roll_forward(folder: RunFolder, verdict: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """Carries out a verdict. Whoever finds it may do so, at any time, again: each step is idempotent.

    Returns:
      the manifest, or what stands in its place where the run is over budget.
    """
    try:
        return _carry_out(folder, verdict, schema)
    except FileNotFoundError:
        # Another has carried it out meanwhile, and cleaned up; or else something is really missing.
        standing = read_manifest(folder.output)
        if standing is None or standing["run"] != folder.run:
            raise
        return standing


def _carry_out(folder: RunFolder, verdict: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    output = Path(folder.output)
    publish = verdict["decision"] == PUBLISH
    plan = read_plan(folder)
    standing = read_manifest(folder.output)
    if publish and standing is not None and standing["run"] not in (folder.run, *plan["replaces"]):
        raise CommitError(f"run {standing['run']} was published in {folder.output} meanwhile: this one is not")
    parts = [p for p in verdict["parts"] if publish or p["kind"] == "rejected"]
    for kind in {p["kind"] for p in parts} | ({"predictions"} if publish else set()):
        storage.make_folder(output / kind)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(lambda p: storage.move(folder.parts / p["name"], output / p["path"]), parts))
    if publish and not any(p["kind"] == "predictions" for p in parts):
        parts = [_empty_part(folder, plan, schema), *parts]
    for kind in {p["kind"] for p in parts}:
        storage.sync_folder(output / kind)
    receipts = collect(folder, plan["splits"])
    verdict_name = DONE if publish else OVER_BUDGET
    manifest = record(
        plan,
        verdict_name,
        verdict["over_budget"],
        Counts.of(receipts),
        parts,
        timings(receipts) | {"start_up_s": plan["start_up_s"]},
    )
    content = json.dumps(manifest, indent=1).encode()
    if publish:
        storage.replace(output / MANIFEST, content)
        clean_up(folder.output, manifest)
    else:
        # Staging stays: with a higher budget the same job publishes without scoring again.
        storage.replace(output / FAILED, content)
    return manifest


def _empty_part(folder: RunFolder, plan: Mapping[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """A run without predictions still publishes a file, with the right schema."""
    jsonl = plan["job"]["output"]["format"] == "jsonl"
    name = f"predictions/{folder.run}-00000.{'jsonl' if jsonl else 'parquet'}"
    sink = pa.BufferOutputStream()
    if not jsonl:
        pq.write_table(schema.empty_table(), sink)
    content = sink.getvalue().to_pybytes()
    storage.replace(Path(folder.output, name), content)
    return {"path": name, "kind": "predictions", "rows": 0, "bytes": len(content), "crc32c": checksum(content)}


class Commit(beam.PTransform):
    """PCollection[int], the splits done -> PCollection[str], the verdict: publishes, inside the graph,
    so that it does not depend on a launcher that waits.

    Args:
      folder: of the run.
      budget: see `Budget`.
      schema: of the predictions.
    """

    def __init__(self, folder: RunFolder, budget: Budget, schema: pa.Schema):
        super().__init__()
        self._commit = _CommitFn(folder, budget, schema)

    def expand(self, done):
        # One element that is always there: a plan without splits is committed too.
        begin = done.pipeline | "Always" >> beam.Create([-1])
        return (
            (done, begin)
            | beam.Flatten()
            | beam.Map(lambda split: (None, split))
            | "WaitForAll" >> beam.GroupByKey()
            | beam.ParDo(self._commit)
        )


class _CommitFn(beam.DoFn):
    def __init__(self, folder: RunFolder, budget: Budget, schema: pa.Schema):
        self.folder, self.budget, self.schema = folder, budget, schema

    def process(self, everything):
        if not self.folder.path.exists():
            return  # another launch of the same job has published and cleaned up
        if DRAIN.is_set() and not all(map(self.folder.has_receipt, range(read_plan(self.folder)["splits"]))):
            return  # the launcher tells how far it came
        verdict = decide(self.folder, self.budget)
        roll_forward(self.folder, verdict, self.schema)
        yield verdict["decision"]
