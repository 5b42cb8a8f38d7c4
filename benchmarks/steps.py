"""CPU time by step of reading and rejecting rows, in one thread, without an engine and without a model.

    python benchmarks/make_data.py --rows 600000 --shards 4 --bad 0.01 bench-data/csv-bad
    python benchmarks/steps.py csv 'bench-data/csv-bad/*'

Prints JSON: microseconds a row, the least of some rounds, of reading, validating, counting the dead letters and making
their form, and encoding them.
"""

from __future__ import annotations

import argparse
import collections
import glob
import json
import os
import time

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

from beam_score.transforms.common.splits import Split
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import ReadSettings, format_named
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.output.dead_letters import dead_letter_rows
from beam_score.transforms.rows.as_json import lines_of
from beam_score.transforms.rows.rejections import Rejections
from beam_score.transforms.scoring.validate import validate

CONTRACT = Contract(
    columns={
        "id": {"dtype": "int64"},
        "age": {"dtype": "float32", "range": [0, 150]},
        "income": {"dtype": "float32", "range": [0, None]},
        "score": {"dtype": "float32", "range": [0, 1]},
    }
)


def measure(paths: list[str], settings: ReadSettings) -> dict[str, float]:
    """Return the CPU seconds of each step, and the rows."""
    spent: dict[str, float] = collections.Counter()

    def step(name: str, began: float) -> float:
        now = time.process_time()
        spent[name] += now - began
        return now

    for number, path in enumerate(paths):
        ranges = format_named(settings.format).cut(path, os.path.getsize(path), 64 << 20, settings)
        rejections, rows = Rejections(), []
        began = time.process_time()
        for block in read_split(Split(number, tuple(ranges)), settings, "attempt"):
            began = step("read", began)
            block = validate(block, CONTRACT)
            began = step("validate", began)
            rejections.add_letters(block.rejected, block.source)
            rows.append(dead_letter_rows(block.rejected, block.source, "run"))
            spent["rows"] += block.count
            began = step("dead letters", began)
        for letters in rows:
            if letters.num_rows:
                lines_of(letters)
        step("encode", began)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("format")
    parser.add_argument("pattern")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    settings = ReadSettings(args.format, CONTRACT, max_block_bytes=1 << 20)
    rounds = [measure(sorted(glob.glob(args.pattern)), settings) for _ in range(args.rounds)]
    rows = rounds[0].pop("rows")
    print(json.dumps({name: round(min(r[name] for r in rounds) / rows * 1e6, 3) for name in rounds[0]}))


if __name__ == "__main__":
    main()
