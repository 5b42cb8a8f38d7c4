"""Ten times the columns take about ten times as long: in every format, read and validated."""

import time

import jobs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.scoring.validate import validate

ROWS = 20


def write(path, format_, columns):
    table = pa.table({f"f{k}": np.arange(ROWS, dtype=np.float32) + k / 4 for k in range(columns)})
    if format_ == "parquet":
        pq.write_table(table, path)
    elif format_ == "csv":
        pacsv.write_csv(table, path)
    elif format_ == "jsonl":
        pl.from_arrow(table).write_ndjson(path)
    else:
        import tensorflow as tf

        with tf.io.TFRecordWriter(str(path)) as writer:
            for row in table.to_pylist():
                lists = {n: tf.train.Feature(float_list=tf.train.FloatList(value=[v])) for n, v in row.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString())


def seconds(path, format_, columns):
    write(path, format_, columns)
    contract = Contract(columns={f"f{k}": Column(dtype="float32") for k in range(columns)})
    settings = ReadSettings(format_, contract)
    size = path.stat().st_size
    best = float("inf")
    for _ in range(2):
        began = time.process_time()
        blocks = read_split(Split(0, (FileRange(str(path), size, bytes=size),)), settings, "a")
        assert sum(validate(block, contract).rows.num_rows for block in blocks) == ROWS
        best = min(best, time.process_time() - began)
    return best


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet", "tfrecord"])
def test_the_time_grows_with_the_columns_and_not_with_their_square(tmp_path, format_):
    few = seconds(tmp_path / "few", format_, 500)
    assert seconds(tmp_path / "many", format_, 5000) < 30 * few


@pytest.mark.parametrize("set_", [{}, {"block_bytes": "64KiB"}], ids=["by default", "set"])
def test_a_block_has_a_thousand_wide_rows_unless_its_size_is_set(tmp_path, model, set_):
    names = [f"c{i}" for i in range(1000)]
    row = ",".join(["0.12345"] * 1000)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wide.csv").write_text("\n".join([",".join(names), *[row] * 200]) + "\n")
    columns = {name: {"dtype": "float32"} for name in names}
    job = jobs.job(
        tmp_path, model("multiply"), columns=columns, inputs={"inputs": {"pack": names[:3]}}, output={"keep": []}
    )
    job = job.model_copy(update={"engine": type(job.engine).model_validate({"workers": 1, **set_})})
    block_bytes = jobs.plan(job).steps.read.max_block_bytes
    assert block_bytes == 64 << 10 if set_ else block_bytes > 1000 * (len(row) + 1)
