"""What the protocol costs: receipts of many splits, and their commit, without reading or scoring anything.

    python benchmarks/commit_cost.py --splits 10000
    python benchmarks/commit_cost.py --splits 100000 --folder /tmp/many

Each split gets two small parts, written, made durable and accounted for by the very code that a run uses, by two
threads; then the verdict is made and carried out, the manifest written and staging removed. Prints JSON.
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

from pipeline.begin import freeze, is_read
from pipeline.standing import Standing
from transforms.receipt import Part, Receipt
from transforms.receipts import put
from transforms.run_folder import RunFolder
from transforms.sealed import checksum
from transforms.splits import FileRange, Split
from transforms.storage import sync_folder, write_new
from transforms.verdict import Budget, decide, roll_forward

_CONTENT = {"predictions": b"x" * 2048, "rejected": b'{"row": 0}\n'}
_ROWS = {"predictions": 99, "rejected": 1}


def _finish(folder: RunFolder, split: int) -> None:
    """What `WriteParts` does at the end of a split."""
    parts = []
    for kind, content in _CONTENT.items():
        name = f"{kind}-{split:06d}-aaaaaaaaaaaa-0.{'parquet' if kind == 'predictions' else 'jsonl'}"
        write_new(folder.parts / name, content)
        parts.append(Part(name, kind, _ROWS[kind], len(content), checksum(content)))
    sync_folder(folder.parts)
    counts = {"read": 100, "predicted": 99, "rejected": {"wrong_type": 1}, "stretches": {}}
    put(folder, Receipt(split, "aaaaaaaaaaaa", tuple(parts), {f"data/{split:06d}.csv": counts}, {}, 1.0, 2.0))


def measure(output: str, splits: int, threads: int = 2) -> dict[str, Any]:
    """Seconds by step.

    Args:
      output: a fresh folder.
      splits: how many; each of one file.
      threads: that write parts and receipts at once.
    """
    seconds: dict[str, Any] = {"splits": splits}

    def timed(name: str, function: Callable, *arguments):
        began = time.perf_counter()
        result = function(*arguments)
        seconds[name] = round(time.perf_counter() - began, 3)
        return result

    planned = [Split(n, (FileRange(f"data/{n:06d}.csv", 4096, bytes=4096),)) for n in range(splits)]
    header = {
        "fingerprint": {}, "start_up_s": {}, "engine": None, "versions": {}, "model": {},
        "headers": [], "parent": None,
        "inputs": [{"path": f"data/{n:06d}.csv", "size": 4096} for n in range(splits)],
        "job": {"output": {"format": "parquet", "not_finite": "null"}},
    }  # fmt: skip
    folder = timed("plan_s", freeze, Standing.of(output), {}, planned, header, "20260101T000000-abcdef")
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
    arguments = parser.parse_args()
    folder = arguments.folder or pathlib.Path(tempfile.mkdtemp())
    try:
        print(json.dumps(measure(str(folder / "out"), arguments.splits), indent=1))
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)


if __name__ == "__main__":
    main()
