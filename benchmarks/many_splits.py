"""A run with very many splits, all of them done: the cost of their descriptors, without reading or scoring rows.

    python benchmarks/many_splits.py --splits 100000

Writes a plan, launches Create, Reshuffle, Read (which finds that each split is done) and the GroupByKey of the commit
on Beam's FnApiRunner, and then reads as many receipts, as `beam-score status` does. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import shutil
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from beam_score.pipeline.run.begin import freeze
from beam_score.pipeline.run.output_state import OutputState
from beam_score.pipeline.run.status import Watcher
from beam_score.runners.local import Local
from beam_score.runners.settings.engine import EngineSettings
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.ledger.folder import RunFolder, read_plan, read_shard
from beam_score.transforms.ledger.receipt import Receipt
from beam_score.transforms.steps.plan import PlannedSplits
from beam_score.transforms.steps.read import Read


def _done(split: int) -> bool:
    return True


def _count(everything: tuple[None, Iterable[int]]) -> int:
    return len(list(everything[1]))


def measure(output: str, splits: int, workers: int) -> dict[str, Any]:
    """Return seconds by step, and bytes."""
    found: dict[str, Any] = {"splits": splits, "workers": workers}

    def timed(name: str, function, *arguments):
        began = time.perf_counter()
        result = function(*arguments)
        found[name] = round(time.perf_counter() - began, 2)
        return result

    planned = [
        Split(n, (FileRange(f"data/part-{n:06d}.csv", 4096, bytes=4096, version=f"4096:{n}:{n}"),))
        for n in range(splits)
    ]
    header = {"fingerprint": {}, "inputs": [], "job": {}}
    folder: RunFolder = timed("plan_s", freeze, OutputState.of(output), {}, planned, header, "20260101T000000-abcdef")
    shards = read_plan(folder)["shards"]
    found["plan_bytes"] = sum(folder.shard(name).stat().st_size for name in shards)
    coder = beam.coders.registry.get_coder(Split)
    found["shuffled_bytes"] = sum(len(coder.encode(split)) for name in shards for split in read_shard(folder, name))

    def graph(pipeline: beam.Pipeline):
        planned = pipeline | PlannedSplits(folder, shards)
        _ = planned | Read(ReadSettings("csv", Contract(columns={})), _done) | beam.Map(_refuse)
        return planned | beam.Map(lambda split: (None, split.id)) | beam.GroupByKey() | beam.Map(_count)

    timed("run_s", Local(EngineSettings(workers=workers)).run, graph)
    found["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    for split in range(splits):
        counts = {"read": 100, "predicted": 99, "rejected": {"wrong_type": 1}, "stretches": {}}
        receipt = Receipt(split, "aaaaaaaaaaaa", (), {f"data/part-{split:06d}.csv": counts}, {}, 1.0, 2.0)
        folder.receipt(split).write_bytes(receipt.to_json())
    watcher = Watcher(output)
    status = timed("status_s", watcher.look)
    timed("status_again_s", watcher.look)
    found["splits_done"] = status.splits_done
    return found


def _refuse(block: object) -> None:
    raise AssertionError("a split that is done was read")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--splits", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        print(json.dumps(measure(str(folder / "out"), arguments.splits, arguments.workers), indent=1))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
