"""Cost of the protocol: receipts of many splits, and their commit, without reading or scoring rows.

    python benchmarks/commit_cost.py --splits 10000
    python benchmarks/commit_cost.py --splits 100000 --folder /tmp/many
    python benchmarks/commit_cost.py --splits 5000 --store --delay-ms 40

For each split, two threads write two small parts, make them durable and write a receipt, with the same code as a run;
then the verdict is decided and carried out, the manifest written and the staging folder removed. Prints JSON; with
--store for an output on fake-gcs-server, where each request is delayed and counted.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from far_store import BUCKET, emulator, requests_so_far

from beam_score.pipeline.run.begin import freeze, is_read
from beam_score.pipeline.run.output_state import OutputState
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.durable.sealed import checksum
from beam_score.transforms.durable.storage import sync_folder, write_new
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.publication import roll_forward
from beam_score.transforms.ledger.receipt import Receipt
from beam_score.transforms.ledger.receipts import put
from beam_score.transforms.ledger.verdict import decide
from beam_score.transforms.output.part import Part

_CONTENT = {"predictions": b"x" * 2048, "rejected": b'{"row": 0}\n'}
_STORE_THREADS = 32
_ROWS = {"predictions": 99, "rejected": 1}


def _finish(folder: RunFolder, split: int) -> None:
    """Do the work of `WriteParts` at the end of a split."""
    parts = []
    for kind, content in _CONTENT.items():
        name = f"{kind}-{split:06d}-aaaaaaaaaaaa-0.{'parquet' if kind == 'predictions' else 'jsonl'}"
        write_new(folder.parts / name, content)
        parts.append(Part(name, kind, _ROWS[kind], len(content), checksum(content)))
    sync_folder(folder.parts)
    counts = {"read": 100, "predicted": 99, "rejected": {"wrong_type": 1}, "stretches": {}}
    put(folder, Receipt(split, "aaaaaaaaaaaa", tuple(parts), {f"data/{split:06d}.csv": counts}, {}, 1.0, 2.0))


def measure(output: str, splits: int, threads: int = 2, asked: Callable[[], int] | None = None) -> dict[str, Any]:
    """Return seconds, and seconds of processor time, by step.

    Args:
      output: an empty folder.
      splits: number of splits, of one file each.
      threads: number of threads that write parts and receipts concurrently.
      asked: returns the number of requests so far.
    """
    seconds: dict[str, Any] = {"splits": splits}

    def timed(name: str, function: Callable, *arguments):
        began, busy, before = time.perf_counter(), time.process_time(), asked() if asked else 0
        result = function(*arguments)
        seconds[name] = round(time.perf_counter() - began, 3)
        seconds[name.removesuffix("_s") + "_cpu_s"] = round(time.process_time() - busy, 3)
        if asked:
            seconds[name.removesuffix("_s") + "_requests"] = asked() - before
        return result

    planned = [Split(n, (FileRange(f"data/{n:06d}.csv", 4096, bytes=4096),)) for n in range(splits)]
    header = {
        "fingerprint": {}, "start_up_s": {}, "engine": None, "versions": {}, "model": {},
        "headers": [], "parent": None,
        "inputs": [{"path": f"data/{n:06d}.csv", "size": 4096} for n in range(splits)],
        "job": {"output": {"format": "parquet", "not_finite": "null"}},
    }  # fmt: skip
    folder = timed("plan_s", freeze, OutputState.of(output), {}, planned, header, "20260101T000000-abcdef")
    with ThreadPoolExecutor(threads) as pool:
        timed("parts_and_receipts_s", lambda: list(pool.map(lambda n: _finish(folder, n), range(splits))))
    timed("resume_finds_all_done_s", is_read, folder)
    verdict = timed("verdict_s", decide, folder, Budget(), pa.schema([("x", pa.int64())]))
    timed("publish_and_clean_s", roll_forward, folder, verdict)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--splits", type=int, default=10_000)
    parser.add_argument("--folder", type=pathlib.Path, help="where to write; else a temporary folder")
    parser.add_argument("--store", action="store_true", help="whether to write to gs://, of an emulator")
    parser.add_argument("--delay-ms", type=float, default=0, help="for which each request to it is held up")
    arguments = parser.parse_args()
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp())
    try:
        if arguments.store:
            # On disk: in memory, the time per object grows with the number of objects.
            with emulator(folder, arguments.delay_ms / 1000) as (url, _):
                found = measure(f"gs://{BUCKET}/out", arguments.splits, _STORE_THREADS, lambda: requests_so_far(url))
        else:
            found = measure(str(folder / "out"), arguments.splits)
        print(json.dumps(found, indent=1))
    finally:
        shutil.rmtree(folder / (BUCKET if arguments.store else "out"), ignore_errors=True)


if __name__ == "__main__":
    main()
