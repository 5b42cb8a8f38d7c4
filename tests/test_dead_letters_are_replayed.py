"""A replay scores what a run refused, with settings mended: together they account for every row, once."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import jobs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scoring

from beam_score.pipeline.job.job import parse_job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.replay import accounting, load_replay
from beam_score.pipeline.run.launch import run
from beam_score.transforms.framing.tfrecord import frame, read_records
from beam_score.transforms.replay.dead_letter import parse_dead_letters

STRICT = {
    "id": {"dtype": "int64", "range": [0, 500]},
    "a": {"dtype": "float32", "range": [0, 1]},
    "b": {"dtype": "float32", "range": [0, 1]},
    "c": {"dtype": "float32"},
}
LOOSE = ("columns.a.range=null", "columns.b={dtype: float32, default: 7, finite: false}", "columns.id.range=null")
FORMATS = ("csv", "jsonl", "parquet", "tfrecord")
ROWS = 120  # of a table: some 10 of each kind


# Jobs over the model that gives back what it is given, so that predictions are exact.


def settings(folder: Path, saved_model: str, **sections) -> dict:
    job = {
        "input": {"files": str(folder / "data" / "*")},
        "model": {"path": saved_model, "batch_rows": 64},
        "columns": STRICT,
        "inputs": {"x": {"pack": ["a", "b", "c"]}},
        "output": {"path": str(folder / "out"), "keep": ["name"], "position": True},
        "rejects": {"budget": "100%"},
        "engine": {"workers": 2, "split_bytes": "1KiB", "block_bytes": "1KiB", "xla": "off"},
    }
    return job | {n: {**job[n], **s} if n in job and n != "columns" else s for n, s in sections.items()}


def score(folder: Path, saved_model: str, **sections):
    return run(parse_job(settings(folder, saved_model, **sections)))


def replay(output: Path, *overrides: str, to: Path | None = None, by: str = "auto"):
    """Replays, and holds the account against the parent. Returns the outcome."""
    job, parent = load_replay(str(output), overrides, None if to is None else str(to), by)
    outcome = run(job, parent=parent)
    counts, before = outcome.manifest["counts"], parent.record["counts"]
    assert counts["read"] == counts["predicted"] + counts["rejected"] >= before["rejected"]
    assert f"{counts['predicted']:,} predicted by this replay" in accounting(parent, outcome.manifest)
    return outcome


def predicted(output: Path) -> list[dict]:
    if not (output / "manifest.json").exists():
        return []
    files = [f["path"] for f in jobs.manifest(output)["files"] if f["kind"] == "predictions"]
    return [row for f in files for row in pl.read_parquet(output / f).to_dicts()]


def key(row: dict) -> tuple[str, int]:
    return Path(row["source"]).name, row["row"]


def accounted(*outputs: Path) -> Counter:
    """How often each (file, row) is predicted by one of the runs or refused by the last of them."""
    rows = Counter(key(row) for output in outputs for row in predicted(output))
    for letter in jobs.dead_letters(outputs[-1]):
        rows.update((key(letter)[0], letter["row"] + i) for i in range(letter["rows"] or 0))
    return rows


def assert_every_row_once(counts: dict[str, int], *outputs: Path) -> None:
    assert accounted(*outputs) == Counter((name, row) for name, count in counts.items() for row in range(count))


# Tables with rows that are bad in different ways, in any format.


def table(seed: int, rows: int = ROWS) -> list[dict]:
    rng = random.Random(seed)
    odd = ["plain", 'a "quoted" name', "two\nlines", "comma, and\r\nmore", '"', "", "ünï", " spaced "]
    made = []
    for number in range(rows):
        row = {"id": number, "name": f"{rng.choice(odd)}{number}", "a": rng.random(), "b": rng.random(), "c": -0.5}
        fault = rng.randrange(12)
        if fault == 0:
            row["a"] = rng.choice([1.5, -2.25])
        elif fault == 1:
            row["b"] = 3.5
        elif fault == 2:
            row["id"] = 1000 + number
        elif fault == 3:
            row["b"] = None
        elif fault == 4:
            row["c"] = None
        made.append(row)
    return made


def write(path: Path, rows: list[dict], format: str) -> Path:
    """One file of some rows; a null is an empty field, a null or an absent feature."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "tfrecord":
        records = [scoring.example({n: v for n, v in r.items() if v is not None}).SerializeToString() for r in rows]
        path.write_bytes(b"".join(frame(r) for r in records))
        return path
    if format == "parquet":
        types = {"id": pa.int64(), "name": pa.string(), "a": pa.float64(), "b": pa.float64(), "c": pa.float32()}
        made = pa.table({n: pa.array([r[n] for r in rows], t) for n, t in types.items()})
        pq.write_table(made, path, row_group_size=40)
        return path
    return scoring.write(path.parent, rows, format).rename(path)


def same_kind(rows: list[dict]) -> list[tuple]:
    return sorted((key(r), r["name"], r["out"], tuple(r["y"])) for r in rows)


# The promise.


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("by", ["auto", "payload", "source", "source, payload none"])
def test_mended_rows_get_the_predictions_of_one_run_with_the_looser_contract(tmp_path, model, format, by):
    for file in range(2):
        write(tmp_path / f"data/{file}.{format}", table(file + len(by)), format)
    counts = {f"{file}.{format}": ROWS for file in range(2)}
    payload = "none" if "none" in by else "full"
    parent = score(tmp_path, model("echo"), rejects={"budget": "100%", "payload": payload})
    again = replay(tmp_path / "out", *LOOSE, by=by.partition(",")[0])
    whole = tmp_path / "whole"
    loose = STRICT | {"a": {"dtype": "float32"}, "b": {"dtype": "float32", "default": 7, "finite": False}}
    loose["id"] = {"dtype": "int64"}
    one = score(tmp_path, model("echo"), columns=loose, output={"path": str(whole)})
    assert parent.code == again.code == one.code == 0
    assert 0 < again.manifest["counts"]["predicted"] < parent.manifest["counts"]["rejected"]
    assert_every_row_once(counts, tmp_path / "out", tmp_path / "out-replay")
    both = predicted(tmp_path / "out") + predicted(tmp_path / "out-replay")
    assert same_kind(both) == same_kind(predicted(whole))
    for name in ("row", "rows", "stage", "reason", "column", "message", "errors"):
        left, right = (
            {key(letter): letter[name] for letter in jobs.dead_letters(o)} for o in (tmp_path / "out-replay", whole)
        )
        assert left == right, name


CSV = (
    b"""id,name,a,b,c
0,ok,0.5,0.5,1
1,bad,n/a,0.5,1
2,high,9,0.5,1
3,ragged,0.5
4,"a ""quote""
and lines",9,0.5,1
5,more,0.5,0.5,1,1
6,\xff\xfe,0.5,0.5,1

7,nan,0.5,nan,1
8,none,,0.5,1
9,"odd"text,9,0.5,1
10,"""
    + b"x" * 70_000
    + b""",9,0.5,1
11,"""
    + b"y" * 300_000
    + b""",9,0.5,1
"12",spaced ,9,0.5,1
13,"never closed,0.5,0.5,1
14,swallowed,0.5,0.5,1
"""
)
JSONL = (
    b"""{"id": 0, "name": "ok", "a": 0.5, "b": 0.5, "c": 1}
{"id": 1, "name": "high", "a": 9, "b": 0.5, "c": 1}
{"id": 2, "name": "cut off", "a": 0.5,
{"id": 3, "id": 4, "name": "twice", "a": 0.5, "b": 0.5, "c": 1}
{"id": 4, "name": "text", "a": "n/a", "b": 0.5, "c": 1}
{"id": 5, "name": "list", "a": [0.5], "b": 0.5, "c": 1}
{"id": 6, "name": "nan", "a": NaN, "b": 0.5, "c": 1}
{"id": 7, "name": "not \xff text", "a": 9, "b": 0.5, "c": 1}
{"id": 8, "name": "\\ud800", "a": 9, "b": 0.5, "c": 1}

[1, 2]
{"id": 10, "name": "line\\nend \\u0000", "a": 9, "b": 0.5, "c": 1}
{"id": 11, "name": \""""
    + b"x" * 70_000
    + b"""\", "a": 9, "b": 0.5, "c": 1}
{"id": 12, "name": \""""
    + b"y" * 300_000
    + b"""\", "a": 9, "b": 0.5, "c": 1}
"""
)


def tfrecord() -> bytes:
    good = {"id": 0, "name": "ok", "a": 0.5, "b": 0.5, "c": 1.0}
    rows = [good, good | {"a": 9.0}, good | {"a": "text"}, good | {"a": [0.5, 0.5]}, good | {"b": float("nan")}]
    rows += [good | {"name": b"\xff"}, {"id": 1}, good | {"a": 9.0, "name": "x" * 70_000}]
    rows.append(good | {"name": "y" * 300_000})
    records = [scoring.example(r).SerializeToString() for r in rows] + [b"no tf.Example", b""]
    framed = [frame(r) for r in records]
    framed[0] += framed[0][:-1] + bytes([framed[0][-1] ^ 1])  # a copy of a good record, its CRC wrong
    return b"".join(framed)


DIRTY = {"csv": (CSV, 14), "jsonl": (JSONL, 13), "tfrecord": (tfrecord, 12)}


@pytest.mark.parametrize("format", DIRTY)
@pytest.mark.parametrize("payload", ["full", "none"])
@pytest.mark.parametrize("file", ["there", "gone", "changed"])
def test_rows_refused_for_any_reason_are_accounted_for_once(tmp_path, model, format, payload, file):
    content, count = DIRTY[format]
    path = tmp_path / f"data/rows.{format}"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content())
    score(
        tmp_path,
        model("echo"),
        input={"max_row_bytes": 200_000},
        rejects={"budget": "100%", "payload": payload},
    )
    if file == "gone":
        path.unlink()
    elif file == "changed":
        path.write_bytes(path.read_bytes().replace(b"0", b"1") + b"\n")
    if payload == "none" and file != "there" and format != "tfrecord":
        with pytest.raises(JobError, match="nothing can be replayed: the dead letters have no payload"):
            load_replay(str(tmp_path / "out"), LOOSE)
        return
    if payload == "none" and file == "gone":
        return
    again = replay(tmp_path / "out", *LOOSE)
    assert_every_row_once({f"rows.{format}": count}, tmp_path / "out", tmp_path / "out-replay")
    won, left = predicted(tmp_path / "out-replay"), jobs.dead_letters(tmp_path / "out-replay")
    before = {key(letter): letter for letter in jobs.dead_letters(tmp_path / "out")}
    if payload == "full":
        assert all(row["y"] == [9.0, 0.5, 1.0] or np.isnan(row["y"][1]) for row in won) and won
        for letter in left:
            assert letter["payload"] == before[key(letter)]["payload"] and letter["payload"] is not None
            assert letter["payload_encoding"] == before[key(letter)]["payload_encoding"]
            assert letter["payload_cut"] == before[key(letter)]["payload_cut"]
    kept_out = {letter["reason"] for letter in left if letter["message"].startswith("not replayed: ")}
    if file == "there":
        assert again.manifest["counts"]["predicted"] > 2 and not kept_out
    else:
        # What is not whole in the dead letter cannot be had; nor what came with a wrong CRC.
        assert "too_large" in kept_out
        assert all(
            letter["reason"] == before[key(letter)]["reason"] for letter in left if "not replayed" in letter["message"]
        )


@pytest.mark.parametrize("state", ["there", "gone"])
def test_rows_of_parquet_are_read_from_the_file_else_from_their_payload(tmp_path, model, state):
    path = tmp_path / "data/rows.parquet"
    path.parent.mkdir()
    rows = {
        "id": [2**53 + 1, 1, 2, 3, 4],
        "name": ["big", 'a "quote"', "line\nend", None, "nan"],
        "a": [9.0, 0.5, 9.0, 0.1, 0.5],
        "b": [0.5, 0.5, None, 9.0, float("nan")],
        "c": [0.1, 0.2, 0.3, 0.4, 0.5],
        "when": pa.array([10**15, 2, 3, None, 5], pa.timestamp("us")),
    }
    pq.write_table(pa.table(rows), path)
    keep = {"keep": ["name", "when"]}
    score(tmp_path, model("echo"), output=keep)
    if state == "gone":
        types = "columns.name={dtype: string, required: false}"
        path.unlink()
        with pytest.raises(JobError, match="no input file exists any more that defines the type of column 'name'"):
            replay(tmp_path / "out", *LOOSE)
        replay(tmp_path / "out", *LOOSE, types, "output.keep=[name]")
    else:
        replay(tmp_path / "out", *LOOSE)
    won = {row["row"]: row for row in predicted(tmp_path / "out-replay")}
    assert_every_row_once({"rows.parquet": 5}, tmp_path / "out", tmp_path / "out-replay")
    assert won[0]["out"] == 2**53 + 1 and won[2]["y"] == pytest.approx([9.0, 7.0, 0.3])
    assert won[2]["name"] == "line\nend" and won[3]["name"] is None
    if state == "there":
        assert won.keys() == {0, 2, 3, 4} and won[0]["when"].year == 2001 and won[3]["when"] is None
    else:
        (letter,) = jobs.dead_letters(tmp_path / "out-replay")
        assert letter["row"] == 4 and "JSON, which has no NaN" in letter["message"]


def test_a_kept_column_has_its_type_also_from_a_payload(tmp_path, model):
    for name in ("0", "1"):
        write(tmp_path / f"data/{name}.parquet", table(3), "parquet")
        frame_ = pq.read_table(tmp_path / f"data/{name}.parquet")
        frame_ = frame_.append_column("when", pa.array(range(ROWS), pa.timestamp("us")))
        frame_ = frame_.append_column("count", pa.array([None, *range(2**40, 2**40 + ROWS - 1)], pa.int64()))
        pq.write_table(frame_, tmp_path / f"data/{name}.parquet")
    score(tmp_path, model("echo"), output={"keep": ["name", "when", "count"]})
    (tmp_path / "data/1.parquet").unlink()
    replay(tmp_path / "out", *LOOSE)
    won = predicted(tmp_path / "out-replay")
    of = {
        name: [{n: v for n, v in r.items() if n != "source"} for r in won if key(r)[0] == name]
        for name in ("0.parquet", "1.parquet")
    }
    assert of["0.parquet"] and of["0.parquet"] == of["1.parquet"]
    assert_every_row_once({"0.parquet": ROWS, "1.parquet": ROWS}, tmp_path / "out", tmp_path / "out-replay")


def test_a_column_that_the_parent_did_not_use_is_only_in_the_file(tmp_path, model):
    write(tmp_path / "data/rows.parquet", table(4), "parquet")
    score(tmp_path, model("echo"), output={"keep": []})
    new = ("columns.name={dtype: string, default: unknown}", "output.keep=[name]", *LOOSE)
    (tmp_path / "data/rows.parquet").rename(tmp_path / "elsewhere")
    replay(tmp_path / "out", *new, to=tmp_path / "without")
    assert not predicted(tmp_path / "without")
    assert {"name" in letter["message"] for letter in jobs.dead_letters(tmp_path / "without")} == {True}
    (tmp_path / "elsewhere").rename(tmp_path / "data/rows.parquet")
    replay(tmp_path / "out", *new, to=tmp_path / "with")
    assert predicted(tmp_path / "with") and all(r["name"] != "unknown" for r in predicted(tmp_path / "with"))


# Records that are not alone on their line.


def test_a_payload_is_never_read_into_its_neighbour(tmp_path, model):
    path = tmp_path / "data/rows.csv"
    path.parent.mkdir()
    names = ['"two\nlines"', '"say ""no"""', 'half"quote', '"a""b"', "plain", '"\r\n\r\n"', '","']
    lines = [f"{n},{names[n % len(names)]},9,0.5,{n}" for n in range(200)]
    path.write_bytes(("id,name,a,b,c\n" + "\n".join(lines)).encode())
    score(tmp_path, model("echo"))
    path.unlink()
    again = replay(tmp_path / "out", "columns.a.range=null", "engine.block_bytes=1MiB")  # all at once
    assert again.manifest["counts"]["predicted"] == 200
    won = sorted(predicted(tmp_path / "out-replay"), key=lambda r: r["row"])
    assert [(r["row"], r["out"], r["y"][2]) for r in won] == [(n, n, float(n)) for n in range(200)]
    assert [r["name"] for r in won[:7]] == ["two\nlines", 'say "no"', 'half"quote', 'a"b', "plain", "\r\n\r\n", ","]
    # As it is read without quotes, a record is two, or none of its fields fit.
    again = replay(tmp_path / "out", "columns.a.range=null", 'input.csv.quote=""', to=tmp_path / "bare")
    reasons = {letter["row"] % 7: letter for letter in jobs.dead_letters(tmp_path / "bare")}
    assert {n: letter["reason"] for n, letter in reasons.items()} == {0: "malformed", 5: "malformed", 6: "ragged_row"}
    assert "the payload contains 2 records" in reasons[0]["message"]
    assert_every_row_once({"rows.csv": 200}, tmp_path / "out", tmp_path / "bare")


def test_a_payload_that_another_quote_breaks_does_not_touch_others(tmp_path, model):
    path = tmp_path / "data/rows.csv"
    path.parent.mkdir()
    # Joined, and read with the other quote, the first two are one sound record, and the third is two.
    path.write_text("id,name,a,b,c\n0,\"open,9,0.5,0\n1,close\",9,0.5,1\n2,'two\n3,x',9,0.5,2\n3,plain,9,0.5,3\n")
    score(tmp_path, model("echo"), input={"csv": {"quote": "'"}})
    assert jobs.manifest(tmp_path / "out")["counts"]["rejected"] == 4
    replay(tmp_path / "out", "columns.a.range=null", "input.csv.quote='\"'", "engine.block_bytes=1MiB")
    won = {r["row"]: (r["out"], r["name"]) for r in predicted(tmp_path / "out-replay")}
    assert won == {1: (1, 'close"'), 3: (3, "plain")}
    letters = jobs.dead_letters(tmp_path / "out-replay")
    assert {x["row"]: x["reason"] for x in letters} == {0: "unterminated_quote", 2: "malformed"}


def test_with_another_delimiter_rows_are_not_looked_for_by_number(tmp_path, model):
    path = tmp_path / "data/rows.csv"
    path.parent.mkdir()
    path.write_text("id;name;a;b;c\n" + "".join(f"{n};x;0.5;0.5;{n}\n" for n in range(50)) + "50;x,y;9;0.5;1\n")
    columns = {n: c | {"required": False, "default": 0} for n, c in STRICT.items()}
    # Read with the wrong delimiter a row is one field, or two.
    score(tmp_path, model("echo"), columns=columns, output={"keep": []}, rejects={"payload": "none", "budget": "100%"})
    with pytest.raises(JobError, match="row's number is another"):
        load_replay(str(tmp_path / "out"), ["input.csv.delimiter=;"], by="source")
    replay(tmp_path / "out", "input.csv.delimiter=;")
    (letter,) = jobs.dead_letters(tmp_path / "out-replay")
    assert letter["row"] == 50 and letter["reason"] == "ragged_row"
    assert "its row number is different" in letter["message"]


def test_csv_without_a_header_is_replayed_from_payloads(tmp_path, model):
    path = tmp_path / "data/rows.csv"
    path.parent.mkdir()
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(b"%d,9,0.5,%d,n%d\n" % (n, n, n) for n in range(100)))
    score(tmp_path, model("echo"), input={"csv": {"header": False}})
    path.unlink()
    assert replay(tmp_path / "out", "columns.a.range=null").manifest["counts"]["predicted"] == 100
    assert sorted(r["out"] for r in predicted(tmp_path / "out-replay")) == list(range(100))


# Damage: a sound file in the place of a damaged one.


def test_the_rest_of_a_damaged_stream_is_read_from_the_whole_one(tmp_path, model):
    rows = "".join(f"{n},n{n},{9 if n % 10 == 3 else 0.5},0.5,{n}\n" for n in range(20_000))
    whole = gzip.compress(("id,name,a,b,c\n" + rows).encode())
    path = tmp_path / "data/rows.csv.gz"
    path.parent.mkdir()
    path.write_bytes(whole[: len(whole) // 2])
    columns = STRICT | {"id": {"dtype": "int64"}}
    score(tmp_path, model("echo"), columns=columns, rejects={"files": 1, "budget": "100%"})
    (stretch,) = [letter for letter in jobs.dead_letters(tmp_path / "out") if letter["rows"] is None]
    assert 0 < stretch["row"] < 20_000
    still = replay(tmp_path / "out", to=tmp_path / "still")
    assert still.code == 0 and still.manifest["counts"]["stretches"] == 1
    path.write_bytes(whole)
    again = replay(tmp_path / "out", "columns.a.range=[0, 100]", "rejects.files=0")
    assert again.manifest["counts"]["stretches"] == 0 and again.manifest["counts"]["rejected"] == 0
    assert_every_row_once({"rows.csv.gz": 20_000}, tmp_path / "out", tmp_path / "out-replay")
    assert all(r["out"] == r["row"] for r in predicted(tmp_path / "out-replay"))
    # The same from the replay that could not: it knows what was read before it.
    replay(tmp_path / "still", "columns.a.range=[0, 100]")
    assert_every_row_once({"rows.csv.gz": 20_000}, tmp_path / "out", tmp_path / "still", tmp_path / "still-replay")


def test_a_stretch_with_rows_read_behind_it_stays_one(tmp_path, model):
    path = write(tmp_path / "data/rows.csv", table(5), "csv")
    score(tmp_path, model("echo"), rejects={"files": 1, "budget": "100%"})
    # As a run leaves it that could not read on in one range of a file, and could in the next.
    record = jobs.manifest(tmp_path / "out")
    letters = tmp_path / "out" / next(f["path"] for f in record["files"] if f["kind"] == "rejected")
    lines = letters.read_bytes()
    example = json.loads(lines.splitlines()[0])
    extra = example | {"row": 17, "rows": None, "reason": "unreadable", "payload": None, "source": str(path)}
    letters.write_bytes(lines + json.dumps(extra).encode() + b"\n")
    next(f for f in record["files"] if f["path"] == str(letters.relative_to(tmp_path / "out")))["bytes"] = (
        letters.stat().st_size
    )
    record["inputs"][0]["stretches"] = {"unreadable": 1}
    (tmp_path / "out/manifest.json").write_text(json.dumps(record))
    again = replay(tmp_path / "out", *LOOSE)
    assert again.manifest["counts"]["stretches_by_reason"] == {"unreadable": 1}
    (left,) = [letter for letter in jobs.dead_letters(tmp_path / "out-replay") if letter["rows"] is None]
    assert left["row"] == 17 and "rows after this stretch were read" in left["message"]
    assert_every_row_once({"rows.csv": ROWS}, tmp_path / "out", tmp_path / "out-replay")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_file_that_could_not_be_used_is_read_whole(tmp_path, model, format):
    write(tmp_path / f"data/0.{format}", table(6), format)
    odd = [{n: v for n, v in r.items() if n != "c"} for r in table(7)]
    if format == "csv":
        write(tmp_path / "data/1.csv", odd, "csv")
    else:
        write(tmp_path / "data/1.parquet", table(7), "parquet")
        made = pq.read_table(tmp_path / "data/1.parquet").drop_columns(["c"])
        pq.write_table(made, tmp_path / "data/1.parquet")
    score(tmp_path, model("echo"), rejects={"files": 1, "budget": "100%"})
    again = replay(tmp_path / "out", *LOOSE, "columns.c={dtype: float32, required: false, default: 0}")
    assert again.manifest["counts"]["stretches"] == 0
    assert again.manifest["counts"]["read"] > ROWS
    assert_every_row_once({f"0.{format}": ROWS, f"1.{format}": ROWS}, tmp_path / "out", tmp_path / "out-replay")


def test_a_damaged_row_group_is_read_from_a_sound_file(tmp_path, model):
    path = tmp_path / "data/rows.parquet"
    path.parent.mkdir()
    columns = {"id": range(400), "name": [f"n{n}" for n in range(400)], "a": [0.5] * 400}
    columns |= {"b": np.linspace(0, 1, 400), "c": np.arange(400.0)}
    pq.write_table(pa.table(columns), path, row_group_size=100, compression="none", write_page_checksum=True)
    sound = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(3)
    at = chunk.data_page_offset + chunk.total_compressed_size - 20
    path.write_bytes(sound[:at] + bytes([sound[at] ^ 255]) + sound[at + 1 :])
    score(tmp_path, model("echo"))
    (letter,) = jobs.dead_letters(tmp_path / "out")
    assert (letter["row"], letter["rows"]) == (200, 100)
    replay(tmp_path / "out", to=tmp_path / "still")
    (letter,) = jobs.dead_letters(tmp_path / "still")
    assert (letter["row"], letter["rows"], letter["reason"]) == (200, 100, "unreadable")
    path.write_bytes(sound)
    replay(tmp_path / "out")
    assert [r["out"] for r in predicted(tmp_path / "out-replay")] == list(range(200, 300))
    assert_every_row_once({"rows.parquet": 400}, tmp_path / "out", tmp_path / "out-replay")
    # A file that is shorter now does not have all of them: these stay refused, and counted.
    path.unlink()
    pq.write_table(pa.table(columns).slice(0, 250), path, row_group_size=100)
    replay(tmp_path / "out", to=tmp_path / "short")
    (letter,) = jobs.dead_letters(tmp_path / "short")
    assert (letter["row"], letter["rows"]) == (250, 50) and "no longer contains this row" in letter["message"]
    assert_every_row_once({"rows.parquet": 400}, tmp_path / "out", tmp_path / "short")


def test_a_record_with_a_wrong_checksum_is_never_taken_from_its_payload(tmp_path, model):
    path = write(
        tmp_path / "data/rows.tfrecord",
        [{"id": n, "name": "x", "a": 0.5, "b": 0.5, "c": 0.25} for n in range(9)],
        "tfrecord",
    )
    sound = path.read_bytes()
    size = len(sound) // 9
    at = 4 * size + sound[4 * size :].index(b"\x00\x00\x80\x3e")  # 0.25, in the fifth record
    path.write_bytes(sound[: at + 2] + b"\x81" + sound[at + 3 :])
    score(tmp_path, model("echo"))
    path.unlink()
    for by in ("auto", "payload"):
        replay(tmp_path / "out", to=tmp_path / by, by=by)
        (letter,) = jobs.dead_letters(tmp_path / by)
        assert letter["row"] == 4 and letter["reason"] == "corrupt_record"
    path.write_bytes(sound)
    replay(tmp_path / "out")
    assert [(r["out"], r["y"]) for r in predicted(tmp_path / "out-replay")] == [(4, [0.5, 0.5, 0.25])]


# A run like any other.


def test_the_same_replay_again_is_finished_and_another_is_told_apart(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(8), "csv")
    parent = score(tmp_path, model("echo"))
    first = replay(tmp_path / "out", *LOOSE)
    again = replay(tmp_path / "out", *LOOSE)
    assert again.already and again.manifest == first.manifest
    assert first.manifest["parent"] == {"run": parent.manifest["run"], "output": str(tmp_path / "out"), "from": "auto"}
    assert parent.manifest["parent"] is None
    for other, by in ((LOOSE[:1], "auto"), (LOOSE, "payload")):
        with pytest.raises(JobError, match=r"holds a finished run of another job \((contract|parent) changed\)"):
            replay(tmp_path / "out", *other, by=by)
    run(parse_job(settings(tmp_path, model("echo"), model={"batch_rows": 32})), replace=True)
    with pytest.raises(JobError, match="parent changed"):
        replay(tmp_path / "out", *LOOSE)


def test_a_replay_that_was_stopped_goes_on(tmp_path, model):
    for file in range(6):
        write(tmp_path / f"data/{file}.jsonl", table(file), "jsonl")
    score(tmp_path, model("echo"))
    with pytest.raises(Exception, match=r"rejects\.stop_after is 3"):
        replay(tmp_path / "out", *LOOSE, "rejects.stop_after=3", "engine.workers=1")
    assert not (tmp_path / "out-replay/manifest.json").exists()
    begun = json.loads((tmp_path / "out-replay/_staging/current.json").read_bytes())["run"]
    again = replay(tmp_path / "out", *LOOSE)
    assert again.manifest["run"] == begun and not again.already
    assert_every_row_once({f"{n}.jsonl": ROWS for n in range(6)}, tmp_path / "out", tmp_path / "out-replay")


def test_a_replay_can_be_replayed(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(9), "csv")
    score(tmp_path, model("echo"))
    replay(tmp_path / "out", LOOSE[0])
    last = replay(tmp_path / "out-replay", *LOOSE)
    outputs = tmp_path / "out", tmp_path / "out-replay", tmp_path / "out-replay-replay"
    assert all(predicted(o) for o in outputs)
    assert_every_row_once({"rows.csv": ROWS}, *outputs)
    assert last.manifest["parent"]["run"] == jobs.manifest(tmp_path / "out-replay")["run"]
    assert [i["path"] for i in last.manifest["inputs"]] == [str(tmp_path / "data/rows.csv")]
    (tmp_path / "data/rows.csv").unlink()
    replay(tmp_path / "out-replay", *LOOSE, to=tmp_path / "gone", by="payload")
    assert same_kind(predicted(tmp_path / "gone")) == same_kind(predicted(outputs[-1]))


def test_a_parent_over_its_budget_is_replayed_and_published_later(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(10), "csv")
    over = score(tmp_path, model("echo"), rejects={"budget": "1%"})
    assert over.code == 3
    job, parent = load_replay(str(tmp_path / "out"), (*LOOSE, "columns.c.default=0"))
    again = run(job, parent=parent)
    assert "the parent is over its budget, so its predictions are not published" in accounting(parent, again.manifest)
    assert "this replay" not in accounting(parent, again.manifest).partition(";")[2]
    strict, _ = load_replay(str(tmp_path / "out"), ("rejects.budget=0",), str(tmp_path / "strict"))
    assert "this replay is over its budget" in accounting(parent, run(strict, parent=parent).manifest)
    assert again.code == 0 and again.manifest["counts"]["rejected"] == 0
    assert score(tmp_path, model("echo"), rejects={"budget": "100%"}).code == 0
    assert_every_row_once({"rows.csv": ROWS}, tmp_path / "out", tmp_path / "out-replay")
    assert replay(tmp_path / "out", *LOOSE, "columns.c.default=0").already  # of the same run, published meanwhile


def test_the_last_run_that_has_ended_is_replayed(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(10), "csv")
    published = score(tmp_path, model("echo")).manifest
    over = run(parse_job(settings(tmp_path, model("doubled"), rejects={"budget": "1%"})), replace=True)
    assert over.code == 3
    again = replay(tmp_path / "out", *LOOSE, "columns.c.default=0")
    assert again.manifest["parent"]["run"] == over.manifest["run"]
    assert again.manifest["counts"]["read"] == over.manifest["counts"]["rejected"]
    # Of one that was refused before anything was read there is nothing to score again.
    (tmp_path / "data/other.csv").write_text("id,name\n1,x\n")
    refused = run(parse_job(settings(tmp_path, model("doubled"), rejects={"budget": "1%"})), replace=True, restart=True)
    assert refused.manifest["engine"] is None
    assert load_replay(str(tmp_path / "out"))[1].record["run"] == published["run"]


def test_the_budget_of_a_replay_is_that_of_all_rows_of_the_parent(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(11), "csv")
    bad = score(tmp_path, model("echo"), rejects={"budget": "50%"}).manifest["counts"]["rejected"]
    assert replay(tmp_path / "out").code == 0  # nothing is mended, all is refused again
    assert jobs.manifest(tmp_path / "out-replay")["counts"]["rejected"] == bad
    assert jobs.manifest(tmp_path / "out-replay")["job"]["rejects"]["budget"] == ROWS // 2
    assert replay(tmp_path / "out", "rejects.budget=1%", to=tmp_path / "strict").code == 3


def test_the_parents_version_of_the_model_is_called_unless_another_is_named(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(12), "csv")
    for version in (1, 2):
        shutil.copytree(model("echo"), tmp_path / f"models/{version}")
        if version == 1:
            score(tmp_path, str(tmp_path / "models"))
    for overrides, version in ((), "1"), (("model.version=2",), "2"), (("model.version=latest",), "2"):
        to = tmp_path / f"to-{len(overrides)}-{version}-{'latest' in str(overrides)}"
        assert replay(tmp_path / "out", *LOOSE, *overrides, to=to).manifest["model"]["version"] == version


def test_rows_that_the_model_refuses_do_not_stand_in_the_way_of_others(tmp_path, model):
    path = tmp_path / "data/rows.csv"
    path.parent.mkdir()
    bad = "".join(f"p{n},2e6,1,1\n" for n in range(60))
    path.write_text("id,a,b,c\n" + "".join(f"r{n},1,1,1\n" for n in range(100)) + bad)
    (tmp_path / "data/z.csv").write_text("id,a,b,c\nlate,1,900,1\n")  # behind all of them
    job = settings(
        tmp_path,
        model("poison"),
        columns={"a": {"dtype": "float32"}, "b": {"dtype": "float32", "range": [0, 10]}, "c": {"dtype": "float32"}},
        output={"keep": ["id"]},
        engine={"workers": 1, "split_bytes": "1MB"},  # in one worker, which sees good rows first
    )
    assert run(parse_job(job)).code == 0
    again = replay(tmp_path / "out", "columns.b.range=null")
    assert again.manifest["counts"]["rejected_by_reason"] == {"model_error": 60}
    assert [r["id"] for r in predicted(tmp_path / "out-replay")] == ["late"]


# The record.


@pytest.mark.parametrize(
    "sections",
    [
        {"rejects": {"budget": "100%"}},
        {"rejects": {"budget": "0.5%", "files": 3, "stop_after": 9}},
        {"rejects": {"budget": 1}},
        {"columns": STRICT | {"d": {"dtype": "float32", "range": [-float("inf"), float("inf")]}}},
        {"columns": STRICT | {"d": {"dtype": "float32", "default": float("nan"), "finite": False}}},
        {"columns": STRICT | {"d": {"dtype": "string", "shape": [None, 2], "allowed": ["a", "b"], "required": False}}},
        {
            "inputs": {
                "x": {"pack": ["a", "b", "c"], "standardize": {"mean": [0, 0, 0], "std": [1, 2, 3]}, "cast": "float32"}
            }
        },
        {"outputs": {"y": {"meaning": "logits", "labels": ["p", "q", "r"], "top": 2, "as": "z"}, "out": {}}},
        {"output": {"format": "jsonl", "keep": "all", "not_finite": "string"}},
        {
            "input": {
                "csv": {"delimiter": "\t", "quote": "", "nulls": ["NA", "?"]},
                "extra": "reject",
                "max_row_bytes": "1MiB",
            }
        },
        {"model": {"version": 3, "signature": "other", "batch_rows": "auto"}},
        {"engine": {"xla": "on", "workers": "auto", "intra_op_threads": 2}},
    ],
)
def test_a_job_on_record_is_the_job_that_ran(tmp_path, sections):
    job = parse_job(settings(tmp_path, "models/x", **sections))
    again = parse_job(json.loads(json.dumps(job.as_json())))
    assert repr(again) == repr(job)


def test_payloads_are_what_dead_letters_say_they_are():
    def letter(**fields) -> bytes:
        known = dict.fromkeys(("source", "row", "rows", "stage", "reason", "column", "payload", "payload_encoding"))
        return json.dumps(known | {"rows": 1, "payload_cut": False} | fields).encode() + b"\n"

    text = 'nul \0, quote ", line\nend, ünï'
    lines = (
        letter(payload=text, payload_encoding="utf-8") + letter(payload="/w==", payload_encoding="base64") + letter()
    )
    assert [one.payload for one in parse_dead_letters(lines, "csv")] == [text.encode(), b"\xff", None]
    assert [one.kind for one in parse_dead_letters(lines, "tfrecord")] == ["binary"] * 3
    with pytest.raises(json.JSONDecodeError):
        parse_dead_letters(b"{", "csv")


@pytest.mark.parametrize("records", [[], [b""], [b"", b"a" * 100_000, b"\0\xff"]])
def test_framed_records_are_read_back(records):
    left = b"".join(map(frame, records))

    def read(size: int) -> bytes:
        nonlocal left
        piece, left = left[:size], left[size:]
        return piece

    found = [r for block in read_records(read, 1 << 10, 1 << 20) for r in block.array.to_pylist()]
    assert found == records


# Mistakes.


@pytest.fixture
def finished(tmp_path, model):
    write(tmp_path / "data/rows.csv", table(13), "csv")
    score(tmp_path, model("echo"), rejects={"payload": "none", "budget": "100%"})
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("overrides", "options", "said"),
    [
        (
            ["input.files=x.csv"],
            {},
            "--set input.files: a replay reads the dead letters of its run, and no other files",
        ),
        (["input={files: x.csv}"], {}, "--set input: a replay reads the dead letters"),
        (["output.path=x"], {}, "--set output.path: name the folder of the replay with --output"),
        (["columns.a.rang=null"], {}, "unknown key 'columns.a.rang'; did you mean 'range'?"),
        (["columns.a"], {}, "--set columns.a: expected key=value"),
        ([], {"to": "{out}/../out/"}, "is the folder of the run that is replayed: name another"),
        ([], {"to": "{out}/.."}, "holds input files"),
        ([], {"by": "sources"}, "--from sources: expected auto, payload or source; did you mean 'source'?"),
        ([], {"by": "payload"}, "kept none (rejects.payload: none): use --from source"),
        (["input.csv.delimiter=;"], {"by": "source"}, "a row's number is another: use --from payload"),
        (["model.path=nowhere"], {}, "model.path: nowhere"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_launched(finished, overrides, options, said):
    options = {n: v.format(out=finished) for n, v in options.items()}
    with pytest.raises(JobError) as told:
        replay(finished, *overrides, **options)
    assert said in str(told.value) and len(told.value.problems) == 1
    assert not (finished.parent / "out-replay").exists()


def test_an_output_with_nothing_to_replay_is_told(tmp_path, model):
    with pytest.raises(JobError, match=r"holds no manifest\.json and no failed\.json"):
        load_replay(str(tmp_path / "nowhere"))
    clean = [{"id": n, "name": "x", "a": 0.5, "b": 0.5, "c": 0.5} for n in range(5)]
    write(tmp_path / "data/rows.csv", clean, "csv")
    score(tmp_path, model("echo"))
    with pytest.raises(JobError, match="has no dead letters: there is nothing to replay"):
        load_replay(str(tmp_path / "out"))
    (tmp_path / "data/rows.csv").write_text("id,name\n1,x\n")
    assert score(tmp_path, model("echo"), output={"path": str(tmp_path / "over")}).code == 3
    with pytest.raises(JobError, match="was refused before any row was read"):
        load_replay(str(tmp_path / "over"))


def test_dead_letters_that_are_gone_or_changed_are_told(finished):
    first, *_ = sorted((finished / "rejected").iterdir())
    content = first.read_bytes()
    first.write_bytes(content[:-10])
    with pytest.raises(JobError, match=rf"found {len(content) - 10} bytes, .* wrote {len(content)}: restore"):
        load_replay(str(finished))
    first.write_bytes(b"x" * (len(content) - 1) + b"\n")
    with pytest.raises(Exception, match="a line is not a dead letter: the file was changed; restore it"):
        replay(finished, *LOOSE)
    assert not (finished.parent / "out-replay/manifest.json").exists()
    first.unlink()
    with pytest.raises(JobError, match="are missing: restore the file"):
        load_replay(str(finished))


def test_a_file_that_was_touched_is_not_read_for_single_rows(finished):
    path = finished.parent / "data/rows.csv"
    os.utime(path, ns=(1, 1))
    with pytest.raises(
        JobError, match=r"nothing can be replayed: .*rows.csv has changed since run .*: put it back as it was"
    ):
        load_replay(str(finished), LOOSE)


def test_the_command_ends_with_the_account(finished):
    done = jobs.cli("replay", str(finished), *(a for o in LOOSE for a in ("--set", o)))
    assert done.returncode == 0, done.stderr
    before = jobs.manifest(finished)["counts"]
    after = jobs.manifest(finished.parent / "out-replay")["counts"]
    said = (
        f"the parent read {before['read']} = {before['predicted']} predicted by it + {after['predicted']} predicted "
        f"by this replay + {after['rejected']} still rejected"
    )
    assert said in done.stdout and after["predicted"] > 0
    wrong = jobs.cli("replay", str(finished), "--set", "input.files=x")
    assert (
        wrong.returncode == 2
        and wrong.stderr.startswith("error: --set input.files")
        and "Traceback" not in wrong.stderr
    )
    assert jobs.cli("replay", str(finished / "nowhere")).returncode == 2
