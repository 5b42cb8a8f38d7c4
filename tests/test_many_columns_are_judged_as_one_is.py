"""Columns of numbers are tried all at once if there are many, and packed by one call: with the same results, to the
last bit and word, as each alone."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_score.transforms.arrays.matrix import matrix
from beam_score.transforms.arrays.sizes import own_bytes
from beam_score.transforms.common.splits import FileRange, Split
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.inputs import Input, Standardize
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.reading.blocks import read_split
from beam_score.transforms.model.signature import Tensor
from beam_score.transforms.rows.block import Block
from beam_score.transforms.scoring.preprocess import preprocess
from beam_score.transforms.scoring.validate import validate

RULES = [
    {},
    {"range": [0, 100]},
    {"range": [-5, None]},
    {"range": [2, 90000]},
    {"required": False},
    {"default": 7},
    {"finite": False},
    {"nan": "missing", "default": 1},
    {"allowed": [1, 2]},
]
DTYPES = ["float16", "float32", "float64", "int8", "int64", "uint8", "uint64"]


def columns_of(dtype):
    """Ten columns of every dtype have each rule that it may have."""
    rules = [r for r in RULES if not (dtype.startswith("float") and "allowed" in r)]
    rules = [r for r in rules if dtype.startswith("float") or "finite" not in r]
    return {f"{dtype}_{i}": {"dtype": dtype, **rules[i % len(rules)]} for i in range(10)}


def outcome(path, format_, columns):
    """By column: the value of each row, or its faults."""
    contract = Contract(columns=columns)
    found = {name: {} for name in columns}
    blocks = read_split(Split(0, (FileRange(str(path), path.stat().st_size),)), ReadSettings(format_, contract), "a")
    for block in blocks:
        block = validate(block, contract)
        for name in columns:
            values = block.rows[name]
            bits = [
                v.as_py() if v.as_py() is None else np.array(v.as_py(), columns[name]["dtype"]).tobytes()
                for v in values
            ]
            found[name] |= dict(zip(block.rows["#row"].to_pylist(), bits, strict=True))
        for letter in block.rejected.to_pylist():
            for error in letter["errors"]:
                found[error["column"]][letter["row"]] = (error["reason"], error["message"])
    return found


def same(path, format_, columns):
    together = outcome(path, format_, columns)
    for name, column in columns.items():
        alone = outcome(path, format_, {name: column})[name]
        for row, fate in together[name].items():  # of a row that another column spoils, no value is kept
            assert fate == alone[row], (name, row)
        assert {r for r, f in alone.items() if isinstance(f, tuple)} <= together[name].keys()


ODD = ["", "nan", "inf", "-inf", "-0", "0.5", "101", "1e400", "300", "-6", "n/a", "18446744073709551615", "65520"]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True))
def test_text(data, dtypes, tmp_path_factory):
    columns = {n: c for dtype in dtypes for n, c in columns_of(dtype).items()}
    rows = [["1"] * len(columns) for _ in range(4)]
    for _ in range(data.draw(st.integers(0, 6))):
        row, at = data.draw(st.integers(0, 3)), data.draw(st.integers(0, len(columns) - 1))
        rows[row][at] = data.draw(st.sampled_from(ODD))
    path = tmp_path_factory.mktemp("text") / "a.csv"
    path.write_text("\n".join(",".join(line) for line in [list(columns), *rows]) + "\n")
    same(path, "csv", columns)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dtypes=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3, unique=True))
def test_typed_values(data, dtypes, tmp_path_factory):
    columns = {n: c for dtype in dtypes for n, c in columns_of(dtype).items()}
    of = {n: [1, 1, 1, 1] for n in columns}
    for _ in range(data.draw(st.integers(0, 6))):
        name = data.draw(st.sampled_from(list(columns)))
        odd = [None, 0, 2, 100, 101] + ([float("nan"), float("inf")] if name.startswith("float") else [])
        of[name][data.draw(st.integers(0, 3))] = data.draw(st.sampled_from(odd))
    path = tmp_path_factory.mktemp("typed") / "a.parquet"
    pq.write_table(
        pa.table({n: pa.array(v, columns[n]["dtype"].replace("float16", "halffloat")) for n, v in of.items()}), path
    )
    same(path, "parquet", columns)


@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_by_one_call_as_by_one_for_each(dtype):
    numbers = np.random.default_rng(1).integers(0, 100, (12, 5)).astype(dtype)
    rows = pa.RecordBatch.from_pydict({f"c{i}": numbers[:, i] for i in range(12 - 7)})
    names = [f"c{i}" for i in (3, 0, 4, 0)]
    assert matrix(rows, names).tobytes() == np.stack([rows[n].to_numpy() for n in names], axis=1).tobytes()
    part = rows.slice(3, 4)
    assert matrix(part, names).tobytes() == np.stack([part[n].to_numpy() for n in names], axis=1).tobytes()


def test_what_is_no_matrix():
    rows = pa.RecordBatch.from_pydict(
        {"i": pa.array([1, 2]), "f": pa.array([0.5, 1.0]), "n": pa.array([None, 1.0]), "t": pa.array(["a", "b"])}
    )
    for names in (["i", "f"], ["f", "n"], ["t"], ["t", "f"], ["f", "absent"]):
        assert matrix(rows, names) is None
    assert matrix(rows.slice(0, 0), ["f"]) is None


@pytest.mark.parametrize(
    "how", [{}, {"standardize": Standardize(mean=2, std=3)}, {"cast": "int32"}, {"reshape": (2, 2)}]
)
def test_inputs_of_rows_of_which_some_cannot_be_packed(how):
    columns = {f"c{i}": pa.array([1.0, 2.0, 3.5 + i, 4.0], pa.float64()) for i in range(4)}
    holed = dict(columns, c2=pa.array([1.0, None, 5.5, 4.0], pa.float64()))
    input_ = Input(pack=tuple(columns), **how)
    tensor = {
        "x": Tensor("x", "int32" if "cast" in how else "float32", (None, 2, 2) if "reshape" in how else (None, 4))
    }
    contract = Contract(columns={n: {"dtype": "float64", "required": False} for n in columns})

    def scored(values, at):
        rows = pa.RecordBatch.from_pydict(
            {"#row": pa.array(at, pa.int64()), **{n: c.take(at) for n, c in values.items()}}
        )
        block = preprocess(Block(0, "a", 0, "file", rows), {"x": input_}, tensor, contract)
        good = dict(zip(block.rows["#row"].to_pylist(), block.rows["input/x"].to_pylist(), strict=True))
        return good | {r["row"]: (r["reason"], r["column"], r["message"]) for r in block.rejected.to_pylist()}

    together = scored(holed, [0, 1, 2, 3])
    assert together == {k: v for at in range(4) for k, v in scored(holed, [at]).items()}
    assert together[1][:2] == ("missing_value", "c2")
    assert {k: v for k, v in together.items() if k in (0, 3)} == {k: scored(columns, [k])[k] for k in (0, 3)}


def test_bytes_of_a_slice_are_those_of_its_rows():
    rows = pa.RecordBatch.from_pydict(
        {
            "f": pa.array(np.arange(1000.0)),
            "b": pa.array([True, None] * 500),
            "t": pa.array([str(i) for i in range(1000)]),
            "l": pa.array([[1.0, 2.0]] * 1000),
        }
    )
    for part in (rows, rows.slice(10, 100), rows.slice(5, 0)):
        assert abs(own_bytes(part) - part.nbytes) <= part.num_rows / 8 + 16
