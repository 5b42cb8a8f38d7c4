"""Result of reading a file of which one read fails, for each read: run with `failing_reads.c` preloaded.

python failing_reads.py FILE FORMAT ERRNO...  ->  JSON: a list of [errno, call, times, outcome]
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

import pyarrow as pa

from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.formats.reading.splitting import split_files
from beam_score.transforms.listing.files import list_files
from beam_score.transforms.rows.block import ROW
from beam_score.transforms.stores.local_file import ReadFails

FOR_EVER = 1 << 30

_library = ctypes.CDLL(None)


def outcome(path: str, settings: ReadSettings) -> dict:
    """Return the content read, or the error message."""
    (file,), problems = list_files([path])
    assert not problems
    try:
        splits = split_files([(file.path, file.size, file.version)], settings, 8 << 10)
        blocks = [block for split in splits for block in read_split(split, settings, "attempt")]
    except ReadFails as error:
        return {"error": str(error)}
    rows = pa.concat_tables([pa.Table.from_batches([b.rows.select([ROW, "x"])]) for b in blocks if b.rows.num_rows])
    rows = rows.cast(pa.schema([(ROW, pa.int64()), ("x", pa.int64())])).sort_by(ROW).to_pydict()
    whole = rows[ROW] == rows["x"] == list(range(rows["x"][-1] + 1))
    return {"rows": whole and len(rows["x"]), "rejected": sum(block.rejected.num_rows for block in blocks)}


def outcomes(path: str, number: int, for_ever: bool) -> list:
    """Return [failed call, number of failures, outcome] for a selection of calls."""
    format_ = os.path.basename(path).split(".")[1]
    contract = Contract(columns={"x": Column(dtype="int64")})
    settings = ReadSettings(format_, contract, max_block_bytes=2048, max_block_rows=500)
    _library.order(-1, 0, 0)
    outcome(path, settings)
    reads = _library.reads_seen()
    found = []
    for call in sorted({0, 1, 2, reads // 3, reads // 2, reads - 1}):
        _library.order(call, 1, number)
        found.append([call, 1, outcome(path, settings)])
    if for_ever:
        _library.order(reads // 2, FOR_EVER, number)
        found.append([reads // 2, FOR_EVER, outcome(path, settings)])
    return found


def main(number: str, *paths: str) -> None:
    told = [outcomes(path, int(number), path.endswith((".csv", ".parquet"))) for path in paths]
    print(json.dumps(dict(zip(paths, told, strict=True))))


if __name__ == "__main__":
    main(*sys.argv[1:])
