"""The same value has the same fate wherever it comes from: NaN, 0 and 1, wide types, and blocks made by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_score.transforms.arrays.plain import filter_rows
from beam_score.transforms.common.splits import FileRange
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.formats.base import ReadSettings, UnusableFile
from beam_score.transforms.formats.csv.reader import FORMAT as CSV
from beam_score.transforms.formats.parquet.reader import FORMAT as PARQUET
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.rows.faults import FAULTS
from beam_score.transforms.scoring.validate import validate

NAN = float("nan")


def contract_of(columns):
    return Contract(columns={n: Column(**c) if isinstance(c, dict) else Column(dtype=c) for n, c in columns.items()})


def judged(rows, columns):
    """([values of the good rows], [(row, reason, column)] of the others, defaults used)."""
    block = validate(Block(0, "a", 0, "file", rows), contract_of(columns))
    refused = [(r["row"], r["reason"], r["column"]) for r in block.rejected.to_pylist()]
    good = [{n: v for n, v in row.items() if n != ROW} for row in block.rows.to_pylist()]
    return good, refused, block.tally.get("defaults_used", 0)


def numbered(**columns):
    count = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({ROW: pa.array(range(count), pa.int64()), **columns})


def from_parquet(tmp_path, columns, **arrays):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table(arrays), path)
    (chunk,) = PARQUET.read(FileRange(path, 0), ReadSettings("parquet", contract_of(columns)))
    return judged(chunk.rows, columns)


def from_csv(tmp_path, columns, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    (chunk,) = CSV.read(FileRange(str(path), 0, 0, len(text)), ReadSettings("csv", contract_of(columns)))
    return judged(chunk.rows, columns)


# NaN.


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint64"])
def test_nan_that_is_missing_is_filled(tmp_path, dtype):
    columns = {"x": {"dtype": dtype, "nan": "missing", "default": 7}, "y": "int64"}
    expected = ([{"x": 1, "y": 0}, {"x": 7, "y": 1}, {"x": 7, "y": 2}], [], 2)
    assert from_parquet(tmp_path, columns, x=[1.0, NAN, None], y=[0, 1, 2]) == expected
    assert from_csv(tmp_path, columns, "x,y\n1,0\nNaN,1\n,2\n") == expected
    assert from_csv(tmp_path, columns, "x,y\n1,0\n -nan,1\n,2\n") == expected


def test_nan_that_is_missing_without_a_default_is_missing(tmp_path):
    columns = {"x": {"dtype": "float32", "nan": "missing"}}
    assert from_parquet(tmp_path, columns, x=[1.0, NAN]) == ([{"x": 1.0}], [(1, "missing_value", "x")], 0)
    columns = {"x": {"dtype": "int32", "nan": "missing", "required": False}}
    assert from_parquet(tmp_path, columns, x=[1.0, NAN]) == ([{"x": 1}, {"x": None}], [], 0)


def test_infinities_are_never_missing(tmp_path):
    for dtype in ("float32", "int32"):
        columns = {"x": {"dtype": dtype, "nan": "missing", "default": 0}}
        assert from_parquet(tmp_path, columns, x=[np.inf])[1] == [(0, "not_finite", "x")]
        assert from_csv(tmp_path, columns, "x\n-inf\n")[1] == [(0, "not_finite", "x")]


def test_a_nan_in_a_list_is_as_a_null_in_it(tmp_path):
    for dtype in ("float64", "int64"):
        columns = {"x": {"dtype": dtype, "shape": (2,), "nan": "missing"}}
        found = from_parquet(tmp_path, columns, x=[[1.0, 2.0], [NAN, 1.0], [1.0, None], None])
        assert found == ([{"x": [1, 2]}], [(n, "missing_value", "x") for n in (1, 2, 3)], 0)
    columns = {"x": {"dtype": "float64", "shape": (2,), "nan": "missing"}}
    rows = numbered(x=pa.array([[1.0, NAN], [1.0, 2.0]], pa.list_(pa.float64(), 2)))
    assert judged(rows, columns)[1] == [(0, "missing_value", "x")]


def test_a_nan_that_is_refused_says_how_to_fill_it(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [NAN], "n": [NAN], "i": [np.inf]}), path)
    columns = {"x": "float32", "n": "int32", "i": "float32"}
    (chunk,) = PARQUET.read(FileRange(path, 0), ReadSettings("parquet", contract_of(columns)))
    (letter,) = validate(Block(0, "a", 0, "f", chunk.rows), contract_of(columns)).rejected.to_pylist()
    told = {e["column"]: "nan: missing" in e["message"] for e in letter["errors"]}
    assert told == {"x": True, "n": True, "i": False}
    assert {e["reason"] for e in letter["errors"]} == {"not_finite"}


def test_what_is_told_of_a_value_does_not_depend_on_its_neighbours(tmp_path):
    def told(values, shape=()) -> list[list[str]]:
        path = str(tmp_path / "a.parquet")
        pq.write_table(pa.table({"x": values}), path)
        contract = contract_of({"x": {"dtype": "float32", "shape": shape}})
        (chunk,) = PARQUET.read(FileRange(path, 0), ReadSettings("parquet", contract))
        letters = validate(Block(0, "a", 0, "f", chunk.rows), contract).rejected.to_pylist()
        return [[e["message"] for e in letter["errors"]] for letter in letters]

    assert told([np.inf, 1.0, NAN]) == told([np.inf, 1.0]) + told([NAN])
    assert ["nan: missing" in message for (message,) in told([np.inf, NAN])] == [False, True]
    both = told([[NAN, np.inf], [1.0, np.inf]], (2,))
    assert both == told([[NAN, np.inf]], (2,)) + told([[1.0, np.inf]], (2,))
    assert [len(messages) for messages in both] == [1, 1]


def test_the_input_says_it_for_all_columns_of_numbers():
    from beam_score.pipeline.job.job import parse_job

    job = parse_job(
        {
            "input": {"files": "a.parquet", "nan": "missing"},
            "model": {"path": "m"},
            "output": {"path": "o"},
            "columns": {"x": {"dtype": "float32"}, "y": {"dtype": "int8", "nan": "number"}, "s": {"dtype": "string"}},
        }
    )
    assert {n: c.nan for n, c in job.contract.columns.items()} == {"x": "missing", "y": "number", "s": None}
    with pytest.raises(ValueError, match="nan is for numbers"):
        Column(dtype="string", nan="missing")


# 0 and 1.


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint64(), pa.int64()])
def test_integers_0_and_1_are_booleans_in_parquet(tmp_path, type_):
    found = from_parquet(tmp_path, {"x": "bool"}, x=pa.array([0, 1, None, 2], type_))
    assert found == ([{"x": False}, {"x": True}], [(2, "missing_value", "x"), (3, "wrong_type", "x")], 0)
    columns = {"x": {"dtype": "bool", "shape": (2,)}}
    found = from_parquet(tmp_path, columns, x=pa.array([[0, 1], [1, 7]], pa.list_(type_)))
    assert found == ([{"x": [False, True]}], [(1, "wrong_type", "x")], 0)


def test_other_numbers_are_not_booleans(tmp_path):
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(UnusableFile, match="wrong_type: column 'x' is double, expected bool"):
        PARQUET.check(str(tmp_path / "a.parquet"), ReadSettings("parquet", contract_of({"x": "bool"})))


# Types of one writer and of another.


def test_kept_columns_of_two_writers_agree(tmp_path):
    plain = pa.table({"x": [1], "k": ["a"], "l": [["b"]], "s": [{"t": "c"}], "b": [b"d"]})
    wide = pa.table(
        {
            "x": [1],
            "k": pa.array(["a"], pa.large_string()),
            "l": pa.array([["b"]], pa.large_list(pa.large_string())),
            "s": pa.array([{"t": "c"}], pa.struct([("t", pa.large_string())])),
            "b": pa.array([b"d"], pa.large_binary()),
        }
    )
    keep = ("k", "l", "s", "b")
    for first, second in ((plain, wide), (wide, plain)):
        pq.write_table(first, tmp_path / "1.parquet")
        pq.write_table(second, tmp_path / "2.parquet")
        base = ReadSettings("parquet", contract_of({"x": "int64"}), keep=keep)
        types = {n: t for n, t in PARQUET.columns_of(str(tmp_path / "1.parquet"), base).items() if n in keep}
        assert types["k"] == pa.string() and types["b"] == pa.binary() and types["l"] == pa.list_(pa.string())
        settings = ReadSettings("parquet", contract_of({"x": "int64"}), keep=keep, kept_types=types)
        for name in ("1.parquet", "2.parquet"):
            (chunk,) = PARQUET.read(FileRange(str(tmp_path / name), 0), settings)
            assert [chunk.rows.schema.field(n).type for n in keep] == [types[n] for n in keep]
            assert chunk.rows.to_pylist() == [{ROW: 0, **plain.to_pylist()[0]}]


# Blocks made by hand.


def test_a_block_that_lacks_a_column_is_refused_as_a_file_is():
    columns = {"age": "float32", "score": {"dtype": "float32", "default": 0.5, "required": False}}
    rows = numbered(Age=[1.0, 2.0])
    block = validate(Block(0, "a", 0, "file", rows), contract_of(columns))
    letters = block.rejected.to_pylist()
    assert [(r["row"], r["reason"], r["column"]) for r in letters] == [(n, "missing_column", "age") for n in (0, 1)]
    assert "column 'age' is missing; did you mean 'Age'" in letters[0]["message"]
    assert judged(numbered(age=[1.0]), columns) == ([{"age": 1.0, "score": 0.5}], [], 1)


def test_values_of_another_type_are_judged_one_by_one():
    columns = {"n": "int32", "f": "float32", "t": "string", "b": "bool"}
    rows = numbered(
        n=pa.array([1.0, 1.5, NAN, 2.0**40, None]),
        f=pa.array([1, 2, 3, 4, 5]),
        t=pa.array(["a", "b", "c", "d", "e"], pa.large_string()),
        b=pa.array([0, 1, 2, 1, 0]),
    )
    good, refused, _ = judged(rows, columns)
    assert good == [{"n": 1, "f": 1.0, "t": "a", "b": False}]
    assert refused == [
        (1, "wrong_type", "n"),
        (2, "not_finite", "n"),
        (3, "out_of_range", "n"),
        (4, "missing_value", "n"),
    ]


def test_a_column_of_another_kind_is_refused_and_says_so():
    rows = numbered(x=pa.array([True, None]), y=pa.array([1, 2]))
    block = validate(Block(0, "a", 0, "file", rows), contract_of({"x": "int32", "y": "int64"}))
    first, second = block.rejected.to_pylist()
    assert (first["reason"], second["reason"]) == ("wrong_type", "missing_value")
    assert "expected int32, and the block has bool" in first["message"]


@pytest.mark.parametrize("rows", [{"x": [1]}, {ROW: ["0"], "x": [1]}])
def test_a_block_without_row_numbers_is_an_error_that_says_so(rows):
    block = Block(0, "a", 0, "file", pa.RecordBatch.from_pydict(rows))
    with pytest.raises(ValueError, match="'#row' of int64"):
        validate(block, contract_of({"x": "int64"}))


def test_faults_that_a_reader_left_are_told_once():
    rows = numbered(n=pa.array([1.5, 2.0]))
    fault = [[{"column": "n", "reason": "wrong_type", "message": "told"}], None]
    rows = rows.append_column(FAULTS, pa.array(fault, pa.list_(pa.struct([(n, pa.string()) for n in fault[0][0]]))))
    assert judged(rows, {"n": "int32"}) == ([{"n": 2}], [(0, "wrong_type", "n")], 0)


@pytest.mark.parametrize(("low", "high"), [(0, None), (None, 0), (0, 1)])
def test_an_infinity_is_not_finite_before_it_is_out_of_range(low, high):
    rows = numbered(x=pa.array([0.0, np.inf, -np.inf, NAN, 5.0, -5.0]))
    inside = [value for value in (0.0, 5.0, -5.0) if (low is None or value >= low) and (high is None or value <= high)]
    good, refused, _ = judged(rows, {"x": {"dtype": "float64", "range": [low, high]}})
    assert [row["x"] for row in good] == inside
    assert [(row, reason) for row, reason, _ in refused if row in (1, 2, 3)] == [
        (1, "not_finite"), (2, "not_finite"), (3, "not_finite"),
    ]  # fmt: skip
    assert {reason for row, reason, _ in refused if row > 3} <= {"out_of_range"}


@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("nulls", ["none", "dropped", "kept"])
def test_kept_rows_are_those_of_the_mask(nulls, start):
    keep = np.array([i % 3 != 1 for i in range(60)])
    null = {"none": np.zeros(60, bool), "dropped": ~keep, "kept": np.arange(60) % 5 == 2}[nulls]
    columns = {
        **{name: pa.array(np.arange(60).astype(name), mask=null) for name in ("int8", "int64", "float16", "float64")},
        "bool": pa.array(np.arange(60) % 2 == 0, mask=null),
        "text": pa.array([f"t{i}" for i in range(60)], mask=null),
        "list": pa.array([[i, i] for i in range(60)], pa.list_(pa.int64(), 2)),
    }
    rows, keep = pa.RecordBatch.from_pydict(columns).slice(start), keep[start:]
    kept = filter_rows(rows, keep)
    assert kept.schema == rows.schema and kept.to_pylist() == [
        r for r, k in zip(rows.to_pylist(), keep, strict=True) if k
    ]
