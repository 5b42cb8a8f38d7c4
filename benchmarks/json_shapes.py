"""JSON Lines of many shapes: how fast the reader parses each, and with which of its ways.

    python benchmarks/json_shapes.py --rows 100000

Prints a line of JSON per shape: rows and megabytes per second of CPU time, the best of three readings, and the time
with both fast ways as a ratio to that with pyarrow alone. A shape is as fast as the better of its two ratios to the
first shape, because long lines have fewer rows and more bytes. The last line has the slowest.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator

from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.jsonl.rows import FAST_WAYS, LineParser
from beam_score.transforms.framing.lines import line_spans

NAMES = [f"f{i}" for i in range(8)]
COLUMNS = Contract(columns={"id": Column(dtype="int64"), **{n: Column(dtype="float32") for n in NAMES}})
BLOCK_BYTES = 8 << 20


def _row(i: int, chance: random.Random) -> dict:
    return {"id": i, **{name: round(chance.gauss(0, 10), 4) for name in NAMES}}


def _shuffled(row: dict, chance: random.Random) -> dict:
    items = list(row.items())
    chance.shuffle(items)
    return dict(items)


def _without(row: dict, chance: random.Random) -> dict:
    return {k: v for k, v in row.items() if k != "note" or chance.random() < 0.5}


SHAPES: dict[str, Callable[[dict, random.Random], dict]] = {
    "one order of keys": lambda row, chance: row,
    "keys in any order": _shuffled,
    "a key is missing in half of the lines": lambda row, chance: _without({**row, "note": "n"}, chance),
    "extra keys": lambda row, chance: {**row, "a": 1, "b": "text", "c": None},
    "extra keys that differ": lambda row, chance: {**row, f"extra{chance.randrange(50)}": chance.random()},
    "nested extras": lambda row, chance: {**row, "tags": [{"k": [1, 2], "v": {"w": None}}] * 2},
    "nested extras in any order": lambda row, chance: _shuffled({**row, "tags": [{"k": [1, 2]}]}, chance),
    "text that is not ASCII": lambda row, chance: {**row, "note": "Größe \u4e2d\u6587 \U0001f600" * 3},
    "escapes": lambda row, chance: {**row, "note": 'a "b" \\ \n \t c' * 3},
    "long lines": lambda row, chance: {**row, "text": "x" * chance.randrange(1000, 3000)},
    "integers among floats": lambda row, chance: {k: int(v) if chance.random() < 0.3 else v for k, v in row.items()},
    "exponents": lambda row, chance: {k: f"@{v:.3e}@" if isinstance(v, float) else v for k, v in row.items()},
    "null in an unused key": lambda row, chance: {**row, "note": None if chance.random() < 0.5 else "n"},
    "types of an unused key differ": lambda row, chance: {**row, "note": chance.choice([1, "n", [1], {"a": 1}, True])},
}
"""What is made of a row."""


def lines(shape: str, count: int) -> bytes:
    chance = random.Random(shape)
    made = (json.dumps(SHAPES[shape](_row(i, chance), chance), ensure_ascii=False) + "\n" for i in range(count))
    return "".join(made).encode().replace(b'"@', b"").replace(b'@"', b"")


def blocks(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = data.rfind(b"\n", at, at + BLOCK_BYTES) + 1 or len(data)
        yield data[at:end]
        at = end


def cpu_s(data: bytes, ways: tuple[str, ...], keep: tuple[str, ...]) -> float:
    parser = LineParser(ReadSettings("jsonl", COLUMNS, keep=keep), ways)
    began = time.process_time()
    rows = 0
    for block in blocks(data):
        starts, ends = line_spans(block)
        chunk = parser.parse(block, starts, ends, rows, None)
        assert chunk.rejected.num_rows == 0, chunk.rejected.to_pylist()[0]
        rows += chunk.rows.num_rows
    return time.process_time() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=100_000)
    asked = arguments.parse_args()
    first: dict[str, float] = {}
    slowest = (float("inf"), "")
    for shape in SHAPES:
        for keep in ((), ("note",)):
            name = shape + (", an undeclared column kept" if keep else "")
            data = lines(shape, asked.rows)
            taken = min(cpu_s(data, FAST_WAYS, keep) for _ in range(3))
            arrow = min(cpu_s(data, ("arrow",), keep) for _ in range(3))
            found = {"rows_per_s": asked.rows / taken, "mb_per_s": len(data) / 1e6 / taken}
            first = first or found
            share = max(found[key] / first[key] for key in found)
            slowest = min(slowest, (share, name))
            figures = found | {"share_of_first": share, "time_to_arrow_alone": taken / arrow}
            print(json.dumps({"shape": name} | {k: float(f"{v:.3g}") for k, v in figures.items()}), flush=True)
    print(json.dumps({"slowest": slowest[1], "share_of_first": round(slowest[0], 2)}))


if __name__ == "__main__":
    main()
