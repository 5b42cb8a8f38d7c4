"""Validate on columns of any shape, and what the contract refuses to be told."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.rows.faults import FAULTS, FAULTS_TYPE
from beam_score.transforms.scoring.validate import validate


def judged(column: Column, values: pa.Array, cut: slice = slice(None), faults: list | None = None) -> list:
    """What becomes of each value: itself, or the reasons why not."""
    rows = {ROW: pa.array(np.arange(len(values))), "x": values}
    if faults is not None:
        rows[FAULTS] = pa.array(faults, FAULTS_TYPE)
    batch = pa.RecordBatch.from_pydict(rows)[cut]
    block = Block(0, "a", 0, "f", batch)
    done = validate(block, Contract(columns={"x": column}))
    done.rows.validate(full=True)
    assert done.count == block.count
    assert done.rows.schema.names == [ROW, "x"]
    assert done.rows["x"].type == column.arrow_type
    told = {row[ROW]: row["x"] for row in done.rows.to_pylist()}
    for letter in done.rejected.to_pylist():
        told[letter["row"]] = [e["reason"] for e in letter["errors"]]
        told[letter["row"]] = tuple(told[letter["row"]])
    return [told[n] for n in sorted(told)]


OUT, MISSING, NOT_ALLOWED, NOT_FINITE = (("out_of_range",), ("missing_value",), ("not_allowed",), ("not_finite",))

SHAPED = [
    (
        {"dtype": "float32", "shape": [2], "range": [0, 1]},
        [[0, 1], [0, 2], None, [-1, 0], [0.5, 0.5]],
        [[0, 1], OUT, MISSING, OUT, [0.5, 0.5]],
    ),
    (
        {"dtype": "float32", "shape": [None], "range": [0, 1]},
        [[], [0], None, [0, 0, 7], [1]],
        [[], [0], MISSING, OUT, [1]],
    ),
    (
        {"dtype": "int8", "shape": [2, 2], "range": [0, 9]},
        [[[1, 2], [3, 4]], None, [[1, 2], [3, 40]], [[-1, 2], [3, 4]]],
        [[[1, 2], [3, 4]], MISSING, OUT, OUT],
    ),
    (
        {"dtype": "int64", "shape": [None, 2], "range": [0, 9]},
        [None, [], [[1, 2]], [[1, 2], [3, 10]], [[1, 2], [3, 4]]],
        [MISSING, [], [[1, 2]], OUT, [[1, 2], [3, 4]]],
    ),
    (
        {"dtype": "uint8", "shape": [2, None], "range": [1, 9]},
        [[[], []], [[1], [0]], [[], [9]]],
        [[[], []], OUT, [[], [9]]],
    ),
    (
        {"dtype": "float16", "shape": [1], "range": [0, 0.1]},
        [[0.1], [0.2], None],
        [[float(np.float16(0.1))], OUT, MISSING],
    ),
    ({"dtype": "float64", "shape": [2]}, [[1, math.nan], [math.inf, 1], [1, 2]], [NOT_FINITE, NOT_FINITE, [1, 2]]),
    ({"dtype": "float64", "shape": [2], "finite": False}, [[1, math.inf], None], [[1, math.inf], MISSING]),
    (
        {"dtype": "string", "shape": [2], "allowed": ["a", "b"]},
        [["a", "b"], ["a", "c"], None],
        [["a", "b"], NOT_ALLOWED, MISSING],
    ),
    (
        {"dtype": "string", "shape": [2], "min_length": 1, "max_length": 2},
        [["é", "éé"], ["", "a"], ["a", "ééé"]],
        [["é", "éé"], OUT, OUT],
    ),
    (
        {"dtype": "bytes", "shape": [1], "max_length": 2, "allowed": ["é", "abc"]},
        [["é".encode()], [b"abc"], [b"x"]],
        [["é".encode()], OUT, NOT_ALLOWED],
    ),
    ({"dtype": "bool", "shape": [2], "allowed": [True]}, [[True, True], [True, False]], [[True, True], NOT_ALLOWED]),
    (
        {"dtype": "int32", "shape": [2], "default": [7, 8], "range": [0, 9]},
        [None, [1, 2], [10, 0]],
        [[7, 8], [1, 2], OUT],
    ),
    ({"dtype": "float16", "shape": [1, 2], "default": [[0.5, 1]]}, [None, [[1, 2]]], [[[0.5, 1]], [[1, 2]]]),
    (
        {"dtype": "bytes", "shape": [2], "default": ["é", "b"]},
        [None, [b"1", b"2"]],
        [["é".encode(), b"b"], [b"1", b"2"]],
    ),
    ({"dtype": "string", "shape": [None], "default": []}, [None, ["a"]], [[], ["a"]]),
    ({"dtype": "float32", "shape": [2], "required": False}, [None, [1, 2]], [None, [1, 2]]),
    ({"dtype": "float32", "range": [0.1, 0.1]}, [0.1, 0.2, None], [float(np.float32(0.1)), OUT, MISSING]),
    ({"dtype": "float16", "range": [None, 100000]}, [65504, -65504], [65504, -65504]),
    (
        {"dtype": "float32", "range": [0, None], "finite": False},
        [math.inf, -math.inf, math.nan],
        [math.inf, OUT, math.nan],
    ),
    ({"dtype": "int32", "range": [0.5, 2.5]}, [0, 1, 2, 3], [OUT, 1, 2, OUT]),
    (
        {"dtype": "int64", "range": [2**53 + 1, 2**62]},
        [2**53, 2**53 + 1, 2**62, 2**62 + 1],
        [OUT, 2**53 + 1, 2**62, OUT],
    ),
    ({"dtype": "uint64", "range": [-1, 2**64 - 2]}, [0, 2**64 - 2, 2**64 - 1], [0, 2**64 - 2, OUT]),
    ({"dtype": "uint8", "range": [None, math.inf]}, [0, 255], [0, 255]),
    ({"dtype": "int8", "allowed": [7.0, 1]}, [7, 1, 2, None], [7, 1, NOT_ALLOWED, MISSING]),
    ({"dtype": "bool", "allowed": [True], "required": False}, [True, False, None], [True, NOT_ALLOWED, None]),
    ({"dtype": "string", "max_length": 0, "required": False}, ["", "a", None], ["", OUT, None]),
    ({"dtype": "int8", "default": 7.0}, [None, 1], [7, 1]),
]


def same(value):
    return repr(value) if isinstance(value, float) and math.isnan(value) else value


@pytest.mark.parametrize(("column", "values", "fates"), SHAPED)
def test_rules_hold_for_every_value_of_a_row(column, values, fates):
    column = Column(**column)
    array = pa.array(values, column.arrow_type)
    assert [same(f) for f in judged(column, array)] == [same(f) for f in fates]
    for start, stop in itertools.combinations(range(len(values) + 1), 2):
        assert [same(f) for f in judged(column, array, slice(start, stop))] == [same(f) for f in fates[start:stop]]
    assert judged(column, array, slice(0, 0)) == []
    # A parent whose own slice begins inside.
    both = pa.concat_arrays([array, array]).slice(1)
    assert [same(f) for f in judged(column, both)] == [same(f) for f in [*fates[1:], *fates]]


def nested(draw, shape, values):
    if not shape:
        return draw(values)
    size = draw(st.integers(0, 3)) if shape[0] is None else shape[0]
    return [nested(draw, shape[1:], values) for _ in range(size)]


def flat(value):
    return [v for item in value for v in flat(item)] if isinstance(value, list) else [value]


@st.composite
def columns_of_lists(draw):
    shape = tuple(draw(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=3)))
    dtype = draw(st.sampled_from(["float16", "float32", "int8", "uint64"]))
    size = draw(st.integers(0, 8))
    values = [None if draw(st.integers(0, 3)) == 0 else nested(draw, shape, st.integers(0, 12)) for _ in range(size)]
    start = draw(st.integers(0, size))
    return dtype, shape, values, start, draw(st.integers(start, size)), draw(st.booleans())


@given(columns_of_lists())
@example(("int8", (2, 1), [[[0], [0]], [[1], [2]], [[0], [0]]], 1, 3, False))  # pyarrow 25 picks wrong values here
@hypothesis_settings(deadline=None, max_examples=300)
def test_any_shape_nulls_and_slices_agree_with_a_plain_loop(case):
    dtype, shape, values, start, stop, fill = case
    default = None
    if fill:
        default = 5
        for size in reversed(shape):
            default = [default] * (2 if size is None else size)
    column = Column(dtype=dtype, shape=shape, range=(1, 9), default=default)
    want = []
    for value in values[start:stop]:
        if value is None:
            want.append(default if fill else MISSING)
        else:
            want.append(OUT if any(not 1 <= v <= 9 for v in flat(value)) else value)
    assert judged(column, pa.array(values, column.arrow_type), slice(start, stop)) == want


def test_what_stands_under_a_null_is_not_judged():
    column = Column(dtype="float32", range=(0, 1), required=False)
    values = pa.array(np.array([5, 0.5, np.nan, 7], np.float32), mask=np.array([True, False, True, False]))
    assert judged(column, values) == [None, 0.5, None, OUT]
    column = Column(dtype="int8", shape=(2,), range=(0, 1), required=False)
    children = pa.array([9, 9, 0, 1, 5, 5], pa.int8())
    values = pa.FixedSizeListArray.from_arrays(children, 2, mask=pa.array([True, False, False]))
    assert judged(column, values) == [None, [0, 1], OUT]
    assert judged(column, values, slice(1, None)) == [[0, 1], OUT]


def test_a_fault_that_the_reader_told_is_the_only_one_of_its_column():
    faults = [
        [("x", "wrong_type", "m")],
        None,
        [("x", "out_of_range", "m")],
        [],
        [("y", "bad_encoding", "m")],
        [(None, "malformed", "m")],
    ]
    faults = [f and [{"column": c, "reason": r, "message": m} for c, r, m in f] for f in faults]
    found = judged(Column(dtype="int8"), pa.array([None, None, None, 1, 2, 3], pa.int8()), faults=faults)
    assert found == [("wrong_type",), MISSING, ("out_of_range",), 1, ("bad_encoding",), ("malformed",)]
    found = judged(Column(dtype="int8"), pa.array([None, None, None, 1, 2, 3], pa.int8()), slice(2, 5), faults=faults)
    assert found == [("out_of_range",), 1, ("bad_encoding",)]


REFUSED = [
    ({"range": [5, 1]}, "range [5, 1] is empty: the low end comes first"),
    ({"range": [math.nan, 1]}, "range: an end must not be NaN"),
    ({"range": [10**400, None]}, "range: an end is outside the range of float32"),
    ({"range": [1e39, None]}, "contains no value of float32"),
    ({"range": [True, 1]}, "range"),
    ({"range": ["0", 1]}, "range"),
    ({"range": [0]}, "range"),
    ({"dtype": "int8", "range": [0.1, 0.9]}, "range [0.1, 0.9] contains no value of int8"),
    ({"dtype": "uint8", "range": [300, None]}, "contains no value of uint8"),
    ({"dtype": "int8", "range": [math.inf, None]}, "contains no value of int8"),
    ({"dtype": "string", "range": [0, 1]}, "range is for numbers, but this column is string"),
    ({"dtype": "float"}, "dtype"),
    ({"shape": [0]}, "shape [0]: dimensions are positive numbers"),
    ({"min_length": 1}, "min_length and max_length are for string and bytes"),
    ({"dtype": "string", "min_length": 3, "max_length": 2}, "min_length 3 is more than max_length 2"),
    ({"dtype": "string", "max_length": -1}, "max_length"),
    ({"allowed": [1.5]}, "allowed is for integers, bool and text: use range for floats"),
    ({"dtype": "int8", "allowed": []}, "allowed is empty"),
    ({"dtype": "int8", "allowed": [1, 300]}, "allowed value 300: expected an integer from -128 to 127"),
    ({"dtype": "int8", "allowed": ["1"]}, "allowed value '1': expected a number of dtype int8"),
    ({"dtype": "string", "allowed": [1]}, "allowed value 1: expected text: write it in quotes, '1'"),
    ({"dtype": "bool", "allowed": [1]}, "expected true or false"),
    ({"default": "0.5"}, "default '0.5': expected a number of dtype float32"),
    ({"default": True}, "expected a number"),
    ({"default": 10**400}, "does not fit float32"),
    ({"default": 1e39}, "does not fit float32"),
    ({"default": math.nan}, "violates the column's rules"),
    ({"default": 2, "range": [0, 1]}, "default 2 violates the column's rules: float32 (contract: range 0..1)"),
    ({"dtype": "int8", "default": 1.5}, "expected an integer from -128 to 127"),
    ({"dtype": "int8", "default": math.inf}, "expected an integer from -128 to 127"),
    ({"dtype": "int8", "default": math.nan}, "expected an integer from -128 to 127"),
    ({"dtype": "string", "default": "abc", "max_length": 2}, "violates the column's rules"),
    ({"dtype": "bytes", "default": "éé", "max_length": 3}, "violates the column's rules"),
    ({"dtype": "string", "default": "c", "allowed": ["a"]}, "violates the column's rules"),
    ({"shape": [2], "default": 1}, "default 1: expected a list of shape [2]"),
    ({"shape": [2], "default": [1]}, "expected a list of shape [2]"),
    ({"shape": [2], "default": [1, "x"]}, "default 'x': expected a number"),
    ({"defualt": 1}, "defualt"),
]


@pytest.mark.parametrize(("rules", "text"), REFUSED)
def test_a_column_that_contradicts_itself_is_refused(rules, text):
    with pytest.raises(pydantic.ValidationError) as error:
        Column(**{"dtype": "float32"} | rules)
    assert text in str(error.value)


def test_a_default_is_compared_in_the_dtype_of_its_column():
    assert Column(dtype="float32", default=0.1, range=(0.10000000001, 1)).default == 0.1


@pytest.mark.parametrize("name", ["", "#row", "input/x", "output/x"])
def test_names_that_blocks_use_themselves_are_refused(name):
    with pytest.raises(pydantic.ValidationError, match="column names"):
        Contract(columns={name: Column(dtype="int8")})
