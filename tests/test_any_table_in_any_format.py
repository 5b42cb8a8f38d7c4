"""Any table, written in any format, with any rows spoilt, gives back exactly the unspoilt rows'
predictions and one dead letter for each spoilt one, at the same positions: whatever the size of
blocks and splits, the compression, and the number of workers."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import struct
from collections import Counter
from pathlib import Path

import duckdb
import google_crc32c
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.run.launch import run

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)
ROW = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "x": st.lists(st.floats(-1e6, 1e6, width=32, allow_nan=False), min_size=3, max_size=3),
        "note": TEXT,
        "bad": st.sampled_from(["", "", "", "", "range", "type", "missing", "broken"]),
    }
)
COMPRESS = {"": lambda b: b, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor().compress}
REASONS = {
    "csv": {"range": "out_of_range", "type": "wrong_type", "missing": "missing_value", "broken": "ragged_row"},
    "jsonl": {"range": "out_of_range", "type": "wrong_type", "missing": "missing_value", "broken": "malformed"},
    "parquet": {"range": "out_of_range", "type": "not_finite", "missing": "missing_value", "broken": "missing_value"},
    "tfrecord": {"range": "out_of_range", "type": "wrong_type", "missing": "missing_value", "broken": "malformed"},
}


def csv_bytes(rows) -> bytes:
    out = ["id,a,b,c,note"]
    for r in rows:
        a = {"range": "1e7", "type": "ten", "missing": ""}.get(r["bad"], repr(r["x"][0]))
        note = '"' + r["note"].replace('"', '""') + '"'
        out.append(
            ",".join([str(r["id"]), a, repr(r["x"][1]), repr(r["x"][2]), note] + ["more"] * (r["bad"] == "broken"))
        )
    return ("\n".join(out) + "\n").encode()


def jsonl_bytes(rows) -> bytes:
    out = []
    for r in rows:
        x = list(r["x"])
        if r["bad"] == "range":
            x[0] = 1e7
        if r["bad"] == "type":
            x[0] = "ten"
        line = {"id": r["id"], "x": x, "note": r["note"]}
        if r["bad"] == "missing":
            del line["x"]
        out.append(json.dumps(line, ensure_ascii=False) + ("]" if r["bad"] == "broken" else ""))
    return ("\n".join(out) + "\n").encode()


def parquet_file(rows, path: Path, group: int) -> None:
    xs = []
    for r in rows:
        x = list(r["x"])
        x[0] = {"range": 1e7, "type": float("nan")}.get(r["bad"], x[0])
        xs.append(None if r["bad"] in ("missing", "broken") else x)
    columns = {
        "id": pa.array([r["id"] for r in rows], pa.int64()),
        "x": pa.array(xs, pa.list_(pa.float64())),
        "note": pa.array([r["note"] for r in rows], pa.string()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=group)


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord_bytes(rows) -> bytes:
    import tensorflow as tf

    out = b""
    for r in rows:
        x = list(r["x"])
        if r["bad"] == "range":
            x[0] = 1e7
        feature = {
            "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[r["id"]])),
            "x": tf.train.Feature(float_list=tf.train.FloatList(value=x)),
            "note": tf.train.Feature(bytes_list=tf.train.BytesList(value=[r["note"].encode()])),
        }
        if r["bad"] == "type":
            feature["x"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"1", b"2", b"3"]))
        if r["bad"] == "missing":
            del feature["x"]
        payload = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        if r["bad"] == "broken":
            payload = b"\xff\xff" + payload
        length = struct.pack("<Q", len(payload))
        out += length + struct.pack("<I", masked(length)) + payload + struct.pack("<I", masked(payload))
    return out


def write(rows, format_: str, compression: str, folder: Path, number: int, group: int) -> Path:
    path = folder / f"in-{number}.{format_}{compression}"
    if format_ == "parquet":
        parquet_file(rows, path, group)
    else:
        made = {"csv": csv_bytes, "jsonl": jsonl_bytes, "tfrecord": tfrecord_bytes}[format_](rows)
        path.write_bytes(COMPRESS[compression](made))
    return path


def job_for(format_: str, model: str, folder: Path, **engine):
    number = {"dtype": "float32", "range": [-1e6, 1e6]}
    if format_ == "csv":
        columns = {"id": {"dtype": "int64"}, **dict.fromkeys("abc", number), "note": {"dtype": "string"}}
        inputs = {"x": {"pack": ["a", "b", "c"]}}
    else:
        columns = {"id": {"dtype": "int64"}, "x": {**number, "shape": [3]}, "note": {"dtype": "string"}}
        inputs = {}
    return {
        "input": {"files": str(folder / "in-*"), "format": format_},
        "model": {"path": model, "batch_rows": engine.pop("batch_rows")},
        "columns": columns,
        "inputs": inputs,
        "output": {"path": str(folder / "out"), "keep": ["note"], "position": True, "format": engine.pop("output")},
        "rejects": {"budget": "100%"},
        "engine": {"xla": engine.pop("xla", "off"), **engine},
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tables=st.lists(st.lists(ROW, max_size=25), min_size=1, max_size=3),
    format_=st.sampled_from(list(REASONS)),
    data=st.data(),
)
def test_unspoilt_rows_come_back_and_spoilt_ones_are_told(tables, format_, data, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    compression = data.draw(st.sampled_from({"parquet": [""], "tfrecord": ["", ".gz"]}.get(format_, list(COMPRESS))))
    group = data.draw(st.integers(1, 9))
    sources = [str(write(t, format_, compression, folder, i, group)) for i, t in enumerate(tables)]
    engine = {
        "workers": data.draw(st.sampled_from([1, 2, 3])),
        "split_bytes": data.draw(st.sampled_from([1024, 4096, 64_000_000])),
        "block_bytes": data.draw(st.sampled_from([1024, 2048, 1 << 20])),
        "batch_rows": data.draw(st.sampled_from([1, 3, 16, 8192])),
        "output": data.draw(st.sampled_from(["parquet", "jsonl"])),
    }
    outcome = run(parse_job(job_for(format_, model("echo"), folder, **engine)))
    assert outcome.code == 0
    predictions = read_predictions(folder / "out", engine["output"])
    letters = read_letters(folder / "out")
    good = {(s, i): r for s, t in zip(sources, tables, strict=True) for i, r in enumerate(t) if not r["bad"]}
    bad = {(s, i): r for s, t in zip(sources, tables, strict=True) for i, r in enumerate(t) if r["bad"]}
    assert {(p["source"], p["row"]) for p in predictions} == set(good)
    assert len(predictions) == len(good)
    for p in predictions:
        row = good[p["source"], p["row"]]
        assert (p["out"], p["note"]) == (row["id"], row["note"])
        assert np.array_equal(np.float32(p["y"]), np.float32(row["x"]))
    assert {(r["source"], r["row"]): r["reason"] for r in letters} == {
        k: REASONS[format_][r["bad"]] for k, r in bad.items()
    }
    assert len(letters) == len(bad)
    assert all(r["payload"] for r in letters)
    counts = outcome.manifest["counts"]
    assert (counts["read"], counts["predicted"], counts["rejected"]) == (len(good) + len(bad), len(good), len(bad))
    assert counts["rejected_by_reason"] == dict(Counter(REASONS[format_][r["bad"]] for r in bad.values()))


def read_predictions(out: Path, format_: str) -> list[dict]:
    files = sorted((out / "predictions").iterdir())
    assert files
    if format_ == "parquet":
        return pl.concat([pl.read_parquet(f) for f in files]).to_dicts()
    return [json.loads(line) for f in files for line in f.read_bytes().splitlines()]


def read_letters(out: Path) -> list[dict]:
    files = (out / "rejected").iterdir() if (out / "rejected").exists() else ()
    return [json.loads(line) for f in files for line in f.read_bytes().splitlines()]


@pytest.mark.parametrize("format_", list(REASONS))
def test_payloads_are_the_records_as_they_were_read(format_, model, tmp_path):
    rows = [
        {"id": i, "x": [1.0, 2.0, 3.0], "note": 'a "q" \n é', "bad": bad}
        for i, bad in enumerate(["", "range", "", "type", "missing", "broken", ""])
    ]
    write(rows, format_, "", tmp_path, 0, 3)
    run(parse_job(job_for(format_, model("echo"), tmp_path, workers=1, batch_rows=16, output="parquet")))
    letters = sorted(read_letters(tmp_path / "out"), key=lambda r: r["row"])
    assert [r["row"] for r in letters] == [1, 3, 4, 5]
    if format_ == "csv":
        records = csv_bytes(rows).decode().split("\n", 1)[1].split('é"\n')
        for r in letters[:3]:
            assert r["payload"] == records[r["row"]] + 'é"'
    elif format_ == "jsonl":
        lines = jsonl_bytes(rows).decode().splitlines()
        assert [r["payload"] for r in letters] == [lines[r["row"]] for r in letters]
    elif format_ == "tfrecord":
        whole = tfrecord_bytes(rows)
        for r in letters:
            assert len(base64.b64decode(r["payload"])) > 20
            assert base64.b64decode(r["payload"]) in whole
            assert r["payload_encoding"] == "base64"
    else:
        for r in letters:
            assert json.loads(r["payload"])["note"] == rows[r["row"]]["note"]


@pytest.mark.parametrize("format_", list(REASONS))
@pytest.mark.parametrize("xla", ["off", "on"])
def test_a_model_that_computes_gives_the_same_within_rounding(format_, xla, model, tmp_path):
    """Whatever the batch: 1e-5 of what numpy computes for the row alone."""
    rng = np.random.default_rng(7)
    rows = [
        {
            "id": i,
            "x": rng.normal(size=3).astype(np.float32).tolist(),
            "note": "",
            "bad": "range" if i % 50 == 7 else "",
        }
        for i in range(1000)
    ]
    write(rows, format_, "", tmp_path, 0, 300)
    job = job_for(
        format_, model("multiply"), tmp_path, workers=2, batch_rows=64, output="parquet", xla=xla, block_bytes=8192
    )
    job["inputs"] = {"inputs": {"pack": ["a", "b", "c"] if format_ == "csv" else ["x"]}}
    assert run(parse_job(job)).code == 0
    found = duckdb.sql(
        f"select row, probabilities as p from '{tmp_path}/out/predictions/*.parquet' order by row"
    ).fetchall()
    kept = [r for r in rows if not r["bad"]]
    x = np.array([r["x"] for r in kept], np.float32)
    expected = 1 / (1 + np.exp(-(x @ np.array([0.8, -0.5, 1.2], np.float32) + 0.1)))
    assert [row for row, _ in found] == [r["id"] for r in kept]
    np.testing.assert_allclose([p for _, p in found], expected, rtol=1e-5)
