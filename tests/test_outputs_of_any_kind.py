"""Whatever dtype and shape an output has, it is written as it is, or refused at launch in a sentence; one that nobody
asks for does not matter."""

from __future__ import annotations

import json
import math

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from models import OUTPUT_DTYPES, OUTPUT_SHAPES
from scoring import score

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.trial import Trial
from beam_score.transforms.contract.outputs import Output, OutputPlan, bind_outputs
from beam_score.transforms.model.signature import SUPPORTED, Tensor, read_signatures
from beam_score.transforms.rows.block import OUTPUT, ROW, Block
from beam_score.transforms.scoring.postprocess import postprocess
from beam_score.transforms.scoring.score import WrongRows, _checked

FLOAT = {"x": {"dtype": "float32"}}
X = [0, 1, 3, 200]
WRITTEN = {"_1": [], "_3x1": [3]} | {s: shape for s, shape in OUTPUT_SHAPES.items() if s not in ("_1", "_3x1")}


def expected(dtype, shape):
    """What rows of X become."""
    if dtype == "string":
        values = [bytes([x]) for x in X]
    else:
        values = np.array(X).astype("float32" if dtype == "bfloat16" else dtype).tolist()
    for size in reversed(shape):
        values = [[value] * size for value in values]
    return values


@pytest.fixture(scope="module")
def kinds(model):
    return read_signatures(model("outputs_of_any_kind"))["serving_default"]


def test_each_is_bound_or_refused_in_a_sentence(kinds):
    for dtype in OUTPUT_DTYPES:
        for suffix in OUTPUT_SHAPES:
            name = dtype + suffix
            problems = bind_outputs({name: Output()}, kinds, {})
            reason = None
            if dtype not in SUPPORTED:
                reason = f"output {name!r} is {dtype}: only numbers, bool and string can be written"
            elif suffix == "_0":
                reason = f"output {name!r} never has a value ({dtype}[?, 0])"
            elif suffix == "_any":
                reason = f"output {name!r} is of unknown rank: set the shape of one row"
            assert [p[: len(reason or "")] for p in problems] == ([] if reason is None else [reason]), problems


def test_each_is_written_as_it_is(kinds, tmp_path, model):
    outputs = {
        dtype + suffix: {"shape": [2]} if suffix == "_any" else {}
        for dtype in OUTPUT_DTYPES
        for suffix in OUTPUT_SHAPES
        if dtype in SUPPORTED and suffix != "_0"
    }
    for format_ in ("parquet", "jsonl"):
        folder = tmp_path / format_
        scored = score(
            folder,
            model("outputs_of_any_kind"),
            [{"x": x} for x in X],
            columns=FLOAT,
            outputs=outputs,
            output={"format": format_},
        )
        assert scored.code == 0 and not scored.rejected
        (path,) = (folder / "out" / "predictions").iterdir()
        rows = [json.loads(line) for line in path.read_text().splitlines()] if format_ == "jsonl" else None
        for dtype in SUPPORTED & set(OUTPUT_DTYPES):
            for suffix, shape in WRITTEN.items():
                if suffix == "_0":
                    continue
                name, values = dtype + suffix, expected(dtype, shape)
                if rows is None:
                    assert scored.column(name) == values, name
                elif dtype == "string":
                    assert [row[name] for row in rows[:3]] == json.loads(json.dumps(values[:3], default=bytes.decode))
                    assert (rows[3][name] if not shape else np.array(rows[3][name]).flat[0]) == {"b64": "yA=="}, name
                else:
                    assert [row[name] for row in rows] == values, name
        if format_ == "parquet":
            assert pl.read_parquet(path).height == len(X)
            assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(len(X),)]
            schema = pq.read_schema(path)
            assert schema.field("float32_1").type == pa.float32() and schema.field("string").type == pa.binary()
            assert schema.field("bfloat16_any").type == pa.list_(pa.float32(), 2)


@pytest.mark.parametrize("name", ["complex_output", "composite_outputs", "no_row_dimension"])
def test_an_output_that_nobody_asks_for_does_not_matter(tmp_path, model, name):
    rows = [{"x": [1.0, 2.0, 3.0]}, {"x": [4.0, 5.0, 6.0]}]
    columns = {"x": {"dtype": "float32", "shape": [3]}}
    if name == "no_row_dimension":
        rows, columns = [{"x": 1.0}, {"x": 4.0}], FLOAT
    with pytest.raises(JobError, match="list the outputs you want under outputs, without it") as refused:
        score(tmp_path / "all", model(name), rows, columns=columns)
    assert not any("unexpected error" in problem for problem in refused.value.problems)
    scored = score(tmp_path / "one", model(name), rows, columns=columns, outputs=["y"])
    assert np.array(scored.column("y")).reshape(2, -1)[:, 0].tolist() == (
        [2, 5] if name == "no_row_dimension" else [1, 4]
    )


# --- shape ---


def test_a_shape_that_the_signature_does_not_tell_is_checked_at_every_call():
    tensor = Tensor("y", "float32", (None,))
    assert _checked(tensor, np.float32([[1], [2]]), 2).tolist() == [1, 2]
    assert _checked(tensor, np.float32([1, 2]), 2).tolist() == [1, 2]
    assert _checked(Tensor("y", "float32", (None, 1)), np.float32([[1], [2]]), 2).tolist() == [[1], [2]]
    for wrong in (np.float32([[1, 2], [3, 4]]), np.float32(1), np.float64([1, 2]), np.float32([[], []])):
        with pytest.raises(WrongRows):
            _checked(tensor, wrong, 2)
    with pytest.raises(WrongRows, match=r"has shape \[2\], declared float32\[\?, 2\]"):
        _checked(Tensor("y", "float32", (None, 2)), np.float32([1, 2]), 2)


def test_a_rank_that_turns_out_otherwise_fails_the_launch(tmp_path, model):
    with pytest.raises(JobError, match=r"output 'float32_any' has shape \[\d+, 2\], declared float32\[\?, 3\]"):
        score(
            tmp_path,
            model("outputs_of_any_kind"),
            [{"x": x} for x in X],
            columns=FLOAT,
            outputs={"float32_any": {"shape": [3]}},
        )


def test_a_list_of_one_where_the_job_says_so(tmp_path, model):
    rows = [{"x": x} for x in X]
    outputs = {
        "float32_1": {"shape": [1]},
        "int8_3x1": {"shape": [3, 1]},
        "bool_1": {},
        "int8_open": {"shape": [2, 3]},
        "float64": {"meaning": "probability"},
    }
    scored = score(tmp_path, model("outputs_of_any_kind"), rows, columns=FLOAT, outputs=outputs)
    assert scored.column("float32_1") == [[0], [1], [3], [200]]
    assert scored.column("bool_1") == [False, True, True, True]
    assert scored.manifest["not_probabilities"] == {"float64": 2}
    assert scored.predictions["int8_3x1"].type == pa.list_(pa.list_(pa.int8(), 1), 3)
    assert scored.predictions["int8_open"].type == pa.list_(pa.list_(pa.int8(), 3), 2)


# --- probabilities ---


def made(values, how, dtype="float32"):
    column = pa.array(values, pa.binary() if dtype == "string" else getattr(pa, dtype)())
    rows = pa.RecordBatch.from_pydict({ROW: pa.array(np.arange(len(values))), OUTPUT + "y": column})
    plan = OutputPlan((), False, {"y": Output.model_validate(how)}, {"y": Tensor("y", dtype, (None,))})
    block = postprocess(Block(0, "a", 0, "f.csv", rows), plan)
    assert block.rows.schema == plan.schema
    return block


def test_a_probability_is_that_of_the_positive_class():
    how = {"meaning": "probability", "labels": ["negative", "positive"]}
    found = made([0.2, 0.5, 0.7, math.nan], how).rows.to_pydict()
    assert list(found) == ["y", "y_class", "y_label"]
    np.testing.assert_allclose(found["y"], [0.2, 0.5, 0.7, math.nan], rtol=1e-6)
    assert found["y_class"] == [0, 1, 1, None]
    assert found["y_label"] == ["negative", "positive", "positive", None]
    found = made([0.2, 0.5, 0.7], {"meaning": "probability", "threshold": 0.6}).rows.to_pydict()
    assert found["y_class"] == [0, 0, 1] and "y_label" not in found


@pytest.mark.parametrize("meaning", ["probability", "probabilities"])
def test_values_that_are_no_probabilities_are_counted(meaning):
    values = [0.2, -3.5, 1.0, 7.0, math.nan, 1.0000001, -1e-7]
    block = made(values, {"meaning": meaning})
    assert block.tally == {"not_probabilities.y": 2, "not_finite_outputs.y": 1}
    assert block.rows.num_rows == len(values)
    assert not made([0.0, 1.0], {"meaning": meaning}).tally
    assert not made([-3.5, 7.0], {"meaning": "logits"}).tally


def test_the_trial_tells_of_values_that_are_no_probabilities():
    predictions = made([0.2, -3.5], {"meaning": "probability"}).rows
    trial = Trial(predictions, predictions, 2, None, {}, tally={"not_probabilities.y": 1, "defaults_used.x": 2})
    (remark,) = trial.remarks
    assert remark.startswith("outputs.y: 1 of 2 predictions have values outside of 0 to 1") and "logits" in remark


# --- text ---


def test_text_that_is_not_utf_8_costs_its_row_where_text_is_declared():
    values = [b"a", b"\xff", "é".encode(), b"\xc3"]
    block = made(values, {"dtype": "string"}, "string")
    assert block.rows["y"].type == pa.string() and block.rows["y"].to_pylist() == ["a", "é"]
    assert block.rejected["row"].to_pylist() == [1, 3]
    assert block.rejected["reason"].to_pylist() == ["model_error"] * 2
    assert "is not valid UTF-8" in block.rejected["message"][0].as_py()
    for how in ({}, {"dtype": "bytes"}):
        assert made(values, how, "string").rows["y"].to_pylist() == values


# --- kept columns ---


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_a_kept_column_without_any_value_is_kept(tmp_path, model, format_):
    table = pa.table({"x": pa.array([1.0, 2.0], pa.float32()), "note": pa.nulls(2), "flags": pa.array([[None], []])})
    output = {"keep": ["note", "flags"], "format": format_}
    scored = score(tmp_path, model("nan_out"), table, "parquet", columns=FLOAT, output=output)
    (path,) = (tmp_path / "out" / "predictions").iterdir()
    frame = pl.read_parquet(path) if format_ == "parquet" else pl.read_ndjson(path)
    assert scored.code == 0 and frame["note"].to_list() == [None, None] and frame["flags"].to_list() == [[None], []]
    if format_ == "parquet":
        assert pq.read_schema(path).field("note").type == pa.string()
        assert duckdb.sql(f"SELECT note FROM '{path}'").fetchall() == [(None,), (None,)]


def test_the_first_file_with_a_value_gives_a_kept_column_its_type(tmp_path, model):
    for name, values in {"a": pa.nulls(2), "b": pa.array([7, 8])}.items():
        pq.write_table(pa.table({"x": pa.array([1.0, 2.0], pa.float32()), "n": values}), tmp_path / f"{name}.parquet")
    scored = score(
        tmp_path / "job",
        model("nan_out"),
        pa.table({"x": pa.array([1.0], pa.float32())}),
        "parquet",
        input={"files": str(tmp_path / "*.parquet")},
        columns=FLOAT,
        output={"keep": ["n"]},
    )
    assert scored.predictions["n"].type == pa.int64()
    assert sorted(scored.column("n"), key=str) == [7, 8, None, None]
