"""Write a data set for the benchmarks, in shards: id, age, income, score, or the columns of another shape.

    python benchmarks/make_data.py --rows 20000000 --format csv bench-data/csv-20000000
    python benchmarks/make_data.py --rows 20000000 --format jsonl --bad 0.01 bench-data/jsonl-20000000-bad
    python benchmarks/make_data.py --rows 1000000 --shape strings bench-data/strings

The same rows in every format: id (int64, nine digits), age (whole years, 18 to 95), income (dollars and cents), score
(0 to 1); and the same bytes each time. Takes about half a second per million rows. `shapes.py` has the other shapes,
which are written as CSV.

`--bad SHARE` spoils that share of the rows, at random, so that every block has some: seven in ten out of range, two of
a wrong type, one malformed. Parquet cannot represent the last two kinds: it has nulls for the wrong types, and NaN for
the malformed rows.
"""

from __future__ import annotations

import argparse
import pathlib
import struct

import google_crc32c
import numpy as np
import polars as pl
import pyarrow.parquet
from shapes import SHAPES

FINE, OUT_OF_RANGE, WRONG_TYPE, MALFORMED = range(4)
KINDS = [OUT_OF_RANGE, WRONG_TYPE, MALFORMED]
KIND_SHARES = [0.7, 0.2, 0.1]


def sample_faults(rng: np.random.Generator, rows: int, share: float) -> np.ndarray:
    """Return the fault of each row, int8 [rows]: `FINE` or one of `KINDS`."""
    kinds = rng.choice(np.array(KINDS, np.int8), rows, p=KIND_SHARES)
    return np.where(rng.random(rows) < share, kinds, np.int8(FINE))


def with_age(people: pl.DataFrame, faults: np.ndarray, values: dict[int, str]) -> pl.DataFrame:
    """Convert ages to text, replaced by the text in `values` for rows with those faults."""
    age = pl.col("age").cast(pl.String)
    for kind, value in values.items():
        age = pl.when(pl.Series(faults == kind)).then(pl.lit(value)).otherwise(age)
    return people.with_columns(age.alias("age"))


def write_csv(people: pl.DataFrame, faults: np.ndarray, path: pathlib.Path) -> None:
    if faults.any():
        people = with_age(people, faults, {OUT_OF_RANGE: "212", WRONG_TYPE: "n/a", MALFORMED: "41,41"})
    # Bad rows are unquoted, so that an extra comma adds a field.
    people.write_csv(path, quote_style="never" if faults.any() else "necessary")


def write_jsonl(people: pl.DataFrame, faults: np.ndarray, path: pathlib.Path) -> None:
    if not faults.any():
        people.write_ndjson(path)
        return
    text = with_age(people, faults, {OUT_OF_RANGE: "212", WRONG_TYPE: '"n/a"', MALFORMED: ""})
    lines = text.select(pl.format('{{"id":{},"age":{},"income":{},"score":{}}}', *text.columns))
    lines.write_csv(path, include_header=False, quote_style="never")


def write_parquet(people: pl.DataFrame, faults: np.ndarray, path: pathlib.Path) -> None:
    age = pl.when(pl.Series(faults == OUT_OF_RANGE)).then(212).otherwise("age")
    score = pl.when(pl.Series(faults == MALFORMED)).then(float("nan")).otherwise("score")
    people = people.with_columns(
        pl.when(pl.Series(faults != WRONG_TYPE)).then(age).alias("age"),
        score.alias("score"),
    )
    pyarrow.parquet.write_table(people.to_arrow(), path, row_group_size=131_072)


def varints(values: np.ndarray, size: int) -> np.ndarray:
    """Return protocol buffer varints, uint8 [rows, size], of values that all take `size` bytes."""
    digits = (values[:, None] >> (7 * np.arange(size))) & 0x7F
    digits[:, :-1] |= 0x80
    return digits.astype(np.uint8)


def feature(name: bytes, kind: int, size: int) -> tuple[bytes, int]:
    """Return one entry of `tf.train.Features`, packed, with `size` zero bytes for its value, and the offset of those
    bytes.

    `kind` is the field of `tf.train.Feature`: 2 is a float_list, 3 an int64_list.
    """
    values = bytes([0x0A, size]) + bytes(size)
    value = bytes([kind << 3 | 2, len(values)]) + values
    entry = bytes([0x0A, len(name)]) + name + bytes([0x12, len(value)]) + value
    return bytes([0x0A, len(entry)]) + entry, len(entry) + 2 - size


def masked_crcs(data: bytes, size: int) -> np.ndarray:
    """Return the CRC-32C of each `size` bytes, uint32, masked as in `tensorflow/core/lib/hash/crc32c.h`."""
    crcs = np.array([google_crc32c.value(data[at : at + size]) for at in range(0, len(data), size)], np.uint32)
    return (crcs >> 15 | crcs << 17) + np.uint32(0xA282EAD8)


def write_tfrecord(people: pl.DataFrame, faults: np.ndarray, path: pathlib.Path) -> None:
    """Write TFRecord. All records have one length, so they are laid out once and the values written into columns."""
    age = np.where(faults == OUT_OF_RANGE, 212, people["age"].to_numpy())
    values = {
        b"id": (3, varints(people["id"].to_numpy(), 5)),
        b"age": (2, as_bytes(age)),
        b"income": (2, as_bytes(people["income"].to_numpy())),
        b"score": (2, as_bytes(people["score"].to_numpy())),
    }
    layout, starts = b"", {}
    for name, (kind, value) in values.items():
        entry, start = feature(name, kind, value.shape[1])
        starts[name] = len(layout) + start
        layout += entry
    payload = bytes([0x0A, len(layout)]) + layout
    records = np.tile(np.frombuffer(payload, np.uint8), (people.height, 1))
    for name, (_, value) in values.items():
        start = 2 + starts[name]
        records[:, start : start + value.shape[1]] = value
    # An int64_list instead of a float_list, with a varint of the same four bytes.
    at = 2 + starts[b"age"]
    wrong = np.flatnonzero(faults == WRONG_TYPE)
    records[wrong, at - 4] = 3 << 3 | 2
    records[wrong, at : at + 4] = [0x80, 0x80, 0x80, 0x01]
    records[faults == MALFORMED] = 0xFF

    length = struct.pack("<Q", len(payload))
    head = np.frombuffer(length + masked_crcs(length, len(length)).astype("<u4").tobytes(), np.uint8)
    crcs = masked_crcs(records.tobytes(), len(payload)).astype("<u4").view(np.uint8).reshape(-1, 4)
    framed = np.concatenate([np.tile(head, (people.height, 1)), records, crcs], axis=1)
    path.write_bytes(framed.data)


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Return little-endian float32, uint8 [rows, 4]."""
    return values.astype("<f4").view(np.uint8).reshape(-1, 4)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet, "tfrecord": write_tfrecord}


def make_data(
    folder: pathlib.Path, format_: str, rows: int, shards: int, bad: float = 0.0, shape: str = "people"
) -> None:
    """Write `folder/part-N.FORMAT`; the same arguments give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(0, rows, shards + 1).astype(int)
    for shard in range(shards):
        rng = np.random.default_rng([20, shard])
        first, count = int(edges[shard]), int(edges[shard + 1] - edges[shard])
        table = SHAPES[shape].sample_rows(rng, first, count)
        WRITERS[format_](table, sample_faults(rng, count, bad), folder / f"part-{shard:05}.{format_}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--format", choices=WRITERS, default="csv")
    parser.add_argument("--bad", type=float, default=0.0, help="share of the rows to spoil")
    parser.add_argument("--shape", choices=SHAPES, default="people")
    args = parser.parse_args()
    if args.shape != "people" and (args.format != "csv" or args.bad):
        parser.error(f"rows of the shape {args.shape} are written as CSV, none of them bad")
    make_data(args.folder, args.format, args.rows, args.shards, args.bad, args.shape)


if __name__ == "__main__":
    main()
