"""`init`, `check` and `run` on the models and files that people have: what `init` drafts, `run` keeps."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs import dead_letters, predictions
from rich.console import Console
from test_init_drafts_a_job import settings_of, write_tfrecord

from beam_score.pipeline.draft.draft import draft_job
from beam_score.pipeline.draft.yaml_text import scalar
from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.run.launch import run
from beam_score.pipeline.show.check import check_job
from beam_score.transforms.formats.first_rows import Hints
from beam_score.transforms.model.servable import import_tensorflow

KINDS = ("Private", "State-gov", "Self-emp")
ADULTS = [{"id": 1000 + 7 * i, "workclass": KINDS[i % 3], "age": 20.5 + i % 50, "visits": i % 9} for i in range(60)]
PEOPLE = [{"id": f"p{i}", "age": 18 + i % 70, "income": 250.5 * (i % 90), "score": (i % 11) / 10} for i in range(60)]


def text(path, rows, delimiter=",", header=True, show=str, quoting=csv.QUOTE_MINIMAL, **how):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, **how)
        if header:
            writer.writerow(rows[0])
        writer.writerows([["" if v is None else show(v) for v in row.values()] for row in rows])


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def headerless(path, rows):
    text(path, rows, header=False)


def uci(path, rows):
    path.write_text("".join(", ".join(str(v) for v in row.values()) + "\n" for row in rows))


def european(path, rows):
    text(path, rows, ";", show=lambda v: str(v).replace(".", ",") if isinstance(v, float) else str(v))


def spark(path, rows):
    """Spark's default: a backslash before a quote, quotes where they are needed, nulls as nothing."""
    text(path, rows, doublequote=False, escapechar="\\")


def bigquery(path, rows):
    """BigQuery's export: integers of 64 bits are strings."""
    lines(path, [{k: str(v) if isinstance(v, int) else v for k, v in row.items()} for row in rows])


def pandas_csv(path, rows):
    pd.DataFrame(rows).to_csv(path)  # with its index, without a name


def pandas_gaps(path, rows):
    frame = pd.DataFrame(rows)
    frame.loc[0, "id"] = None  # integers with a gap: 1007.0
    frame.to_csv(path, index=False)


def pandas_lines(path, rows):
    pd.DataFrame(rows).to_json(path, orient="records", lines=True)


def pandas_parquet(path, rows):
    pd.DataFrame(rows).set_index("id").to_parquet(path)


def polars_parquet(path, rows):
    pl.DataFrame(rows).write_parquet(path)


def arrow_parquet(path, rows):
    table = pa.Table.from_pylist(rows)
    pq.write_table(table.set_column(1, table.schema.names[1], table.column(1).dictionary_encode()), path)


def quoted_names(rows):
    """Texts that have quotes in them."""
    return [{"name": f'monitor {i}"', **row} for i, row in enumerate(rows)]


def adults(table):
    assert table["known"].to_list() == [1] * len(table)
    assert table["sigmoid"].dtype == pl.Float32


CASES = {
    # name: model, file, writer, rows, answers to what is asked, what the predictions must be
    "csv": ("keras_named", "a.csv", text, ADULTS, {}, adults),
    "csv with gaps by pandas": ("keras_named", "a.csv", pandas_gaps, ADULTS, {}, adults),
    "csv with an index by pandas": ("keras_named", "a.csv", pandas_csv, ADULTS, {}, adults),
    "uci": (
        "keras_named",
        "adult.csv",
        uci,
        ADULTS,
        {
            "workclass: {column: null, reshape: [1]}": "workclass: {column: column_2, reshape: [1]}",
            "age: {column: null, reshape: [1]}": "age: {column: column_3, reshape: [1]}",
            "visits: {column: null, reshape: [1]}": "visits: {column: column_4, reshape: [1]}",
        },
        adults,
    ),
    "european": ("keras_named", "a.csv", european, ADULTS, {}, adults),
    "json lines": ("keras_named", "a.jsonl", lines, ADULTS, {}, adults),
    "json lines by pandas": ("keras_named", "a.json", pandas_lines, ADULTS, {}, adults),
    "json lines by bigquery": ("keras_named", "a.json", bigquery, ADULTS, {}, adults),
    "parquet by pandas": ("keras_named", "a.parquet", pandas_parquet, ADULTS, {}, adults),
    "parquet by polars": ("keras_named", "a.parquet", polars_parquet, ADULTS, {}, adults),
    "parquet by arrow": ("keras_named", "a.parquet", arrow_parquet, ADULTS, {}, adults),
    "tfrecord": ("keras_named", "a.tfrecord", write_tfrecord, ADULTS, {}, adults),
    "spark": ("several_inputs", "a.csv", lambda p, rows: spark(p, quoted_names(rows)), PEOPLE, {}, None),
    "headerless": ("multiply", "a.csv", headerless, PEOPLE, {}, None),
    "parquet for a sequential model": ("multiply", "a.parquet", polars_parquet, PEOPLE, {}, None),
    "integers in tf.Examples for floats": ("multiply", "a.tfrecord", write_tfrecord, PEOPLE, {}, None),
    "bigquery for a sequential model": ("multiply", "a.jsonl", bigquery, PEOPLE, {}, None),
    "tokens": (
        "tokens",
        "a.jsonl",
        lines,
        [{"id": i, "tokens": ["w"] * (i % 4)} for i in range(60)],
        {},
        lambda table: table["count"].to_list() == [i % 4 for i in range(60)],
    ),
    "features for a model of examples": (
        "examples",
        "a.jsonl",
        lines,
        [{"id": i, "x": [1.0, 2.0, i / 2], "tag": "a"} for i in range(60)],
        {"serialize: []": "serialize: [x, tag]"},
        lambda table: table["total"].to_list() == [3 + i / 2 for i in range(60)],
    ),
    "several outputs": (
        "several_outputs",
        "a.csv",
        text,
        [{"id": i, "a": 0.5, "b": i / 3, "c": 2.5} for i in range(60)],
        {},
        lambda table: table["label"].dtype == pl.String,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_init_drafts_check_and_run_keep(model, tmp_path, case):
    name, file, write, rows, answers, right = CASES[case]
    data = tmp_path / "data"
    data.mkdir()
    write(data / file, rows)
    drafted = draft_job(model(name), str(data / "*"))
    for open_, answer in answers.items():
        assert open_ in drafted, drafted
        drafted = drafted.replace(open_, answer)
    out = tmp_path / "out"
    job = parse_job(settings_of(drafted.replace("path: out", f"path: {scalar(str(out))}")))
    said = io.StringIO()
    assert check_job(job, Console(file=said, width=200)).code == 0, said.getvalue() + drafted
    assert f"{len(rows)} rows: {len(rows)} predicted" in said.getvalue(), said.getvalue() + drafted
    assert run(job).code == 0
    assert dead_letters(out) == []
    table = predictions(out)
    assert len(table) == len(rows)
    if kept := job.output.keep:
        table = table.sort(kept[0], nulls_last=False)
        ids = [row["id"] for row in rows if "id" in row]
        if ids and kept[0] == "id" and case != "csv with gaps by pandas":
            assert sorted(map(str, table["id"])) == sorted(map(str, ids))
            assert table["id"].dtype in (pl.Int64, pl.String)
    if right is not None:
        assert right(table) is not False


def test_pictures_are_scored_from_every_format_that_has_bytes(model, tmp_path):
    tf = import_tensorflow()
    pictures = [tf.io.encode_png(np.full((1, 1, 3), i, np.uint8)).numpy() for i in range(40)]
    pq.write_table(pa.table({"id": range(40), "image_bytes": pictures}), tmp_path / "a.parquet")
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for picture in pictures:
            feature = {"image_bytes": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture]))}
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    for file in ("a.parquet", "a.tfrecord"):
        drafted = draft_job(model("image_bytes"), str(tmp_path / file), known=Hints())
        job = parse_job(settings_of(drafted.replace("path: out", f"path: {scalar(str(tmp_path / 'out' / file))}")))
        assert check_job(job, Console(file=io.StringIO(), width=200)).code == 0
        assert run(job).code == 0
        assert sorted(predictions(tmp_path / "out" / file)["mean"]) == list(range(40))


@pytest.mark.parametrize(
    ("file", "write", "setting", "hint"),
    [
        ("a.jsonl", bigquery, "from: string", "columns.age.from: string  # numbers written as strings"),
        ("a.csv", european, 'decimal: ","', 'columns.score.decimal: ","  # numbers with a decimal comma'),
    ],
)
def test_check_is_not_ready_without_a_setting_and_names_it(model, tmp_path, file, write, setting, hint):
    write(tmp_path / file, PEOPLE)
    drafted = draft_job(model("several_inputs"), str(tmp_path / file))
    assert f", {setting}}}" in drafted
    job = parse_job(settings_of(drafted.replace(f", {setting}", "").replace("path: out", f"path: {tmp_path}/out")))
    said = io.StringIO()
    assert check_job(job, Console(file=said, width=200)).code == 3
    assert "60 rows: 0 predicted, 60 rejected" in said.getvalue()
    assert hint in said.getvalue() and "ready in" not in said.getvalue()
