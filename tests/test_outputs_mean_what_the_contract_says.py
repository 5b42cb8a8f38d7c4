"""Raw outputs become classes, labels and scores as the contract says what they mean."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beam_score.transforms.arrays.nested import (
    leaves,
    not_finite,
    nulls,
    owners,
    padded,
    row_shapes,
    to_arrow,
    to_numpy,
    with_leaves,
)
from beam_score.transforms.contract.outputs import Output, OutputPlan
from beam_score.transforms.model.signature import Tensor, output_type
from beam_score.transforms.rows.block import OUTPUT, ROW, Block
from beam_score.transforms.scoring.postprocess import choose, postprocess, scores

NAN, INF = math.nan, math.inf


def predicted(values, how=None, dtype="float32", source="f.csv", **plan):
    """The predictions of one output `y`, as lists by column name."""
    values = np.asarray(values, dtype if dtype != "string" else object)
    tensor = Tensor("y", dtype, (None, *values.shape[1:]))
    column = to_arrow(values, output_type(tensor))
    rows = pa.RecordBatch.from_pydict({ROW: pa.array(np.arange(len(values))), OUTPUT + "y": column})
    settings_ = OutputPlan((), plan.get("position", False), {"y": Output.model_validate(how or {})}, {"y": tensor})
    block = postprocess(Block(0, "a", 0, source, rows), settings_)
    assert block.rows.schema == settings_.schema
    block.rows.validate(full=True)
    return block


def lists(block):
    return block.rows.to_pydict()


# --- meaning ---


def test_a_probability_is_two_classes():
    found = lists(predicted([0.2, 0.5, 0.7, NAN], {"meaning": "probabilities", "labels": ["no", "yes"]}))
    assert found["y_class"] == [0, 1, 1, None]
    assert found["y_label"] == ["no", "yes", "yes", None]
    np.testing.assert_allclose(found["y_score"], [0.8, 0.5, 0.7, NAN], rtol=1e-6)


def test_the_threshold_of_a_probability_is_where_class_one_begins():
    found = lists(predicted([[0.2], [0.5], [0.7]], {"meaning": "probabilities", "threshold": 0.6}))
    assert found["y_class"] == [0, 0, 1]
    found = lists(predicted([[0.0], [0.5]], {"meaning": "probabilities", "threshold": 0}))
    assert found["y_class"] == [1, 1]


def test_a_logit_goes_through_the_sigmoid():
    found = lists(predicted([-2.0, 0.0, 3.0, 1000.0, -1000.0, INF, NAN], {"meaning": "logits"}))
    assert found["y_class"] == [0, 1, 1, 1, 0, 1, None]
    expected = [1 - 1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-3)), 1, 1, 1, NAN]
    np.testing.assert_allclose(found["y_score"], expected, rtol=1e-6)
    assert found["y"][:3] == [-2, 0, 3]


def test_logits_go_through_softmax():
    found = lists(predicted([[0.0, math.log(3), 0.0], [1000.0, 0.0, -1000.0]], {"meaning": "logits"}))
    assert found["y_class"] == [1, 0]
    np.testing.assert_allclose(found["y_score"], [0.6, 1.0], rtol=1e-6)


def test_the_best_of_equal_classes_is_the_first():
    assert lists(predicted([[0.5, 0.5], [0.2, 0.8]], {"meaning": "probabilities"}))["y_class"] == [0, 1]
    assert lists(predicted([[0.4, 0.2, 0.4]], {"meaning": "probabilities", "top": 3}))["y_class"] == [[0, 2, 1]]


def test_top_k_with_labels():
    how = {"meaning": "probabilities", "labels": ["a", "b", "c"], "top": 2, "threshold": 0.3}
    found = lists(predicted([[0.1, 0.6, 0.3], [0.2, 0.1, 0.7], [0.25, 0.25, 0.5]], how))
    assert found["y_class"] == [[1, 2], [2, None], [2, None]]
    assert found["y_label"] == [["b", "c"], ["c", None], ["c", None]]
    np.testing.assert_allclose(found["y_score"], [[0.6, 0.3], [0.7, 0.2], [0.5, 0.25]], rtol=1e-6)


def test_no_class_below_the_threshold():
    found = lists(predicted([[0.4, 0.35, 0.25], [0.9, 0.1, 0.0]], {"meaning": "probabilities", "threshold": 0.5}))
    assert found["y_class"] == [None, 0]
    np.testing.assert_allclose(found["y_score"], [0.4, 0.9], rtol=1e-6)


@pytest.mark.parametrize("top", [1, 2])
def test_a_row_with_a_nan_has_no_class(top):
    found = lists(predicted([[0.2, NAN, 0.5], [0.2, 0.3, 0.5]], {"meaning": "probabilities", "top": top}))
    assert found["y_class"] == ([None, 2] if top == 1 else [[None, None], [2, 1]])
    assert np.isnan(np.array(found["y_score"][0])).all() and not np.isnan(np.array(found["y_score"][1])).any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_scores_have_the_outputs_own_dtype(dtype):
    wide = "float32" if dtype == "bfloat16" else dtype
    values = np.array([[1, 2, 3], [3, 2, 1]], wide)
    tensor = Tensor("y", dtype, (None, 3))
    rows = pa.RecordBatch.from_pydict({ROW: pa.array([0, 1]), OUTPUT + "y": to_arrow(values)})
    plan = OutputPlan((), False, {"y": Output(meaning="logits", labels=("a", "b", "c"))}, {"y": tensor})
    found = postprocess(Block(0, "a", 0, "f", rows), plan).rows
    assert found.schema == plan.schema and found["y_score"].type == pa.from_numpy_dtype(np.dtype(wide))
    assert found["y_label"].to_pylist() == ["c", "a"]
    best = math.exp(3) / (math.exp(1) + math.exp(2) + math.exp(3))
    np.testing.assert_allclose(found["y_score"].to_numpy().astype(float), [best, best], rtol=2e-3)


def test_float16_scores_of_many_classes_do_not_vanish():
    found = scores(np.zeros((1, 4096), np.float16), Output(meaning="logits"))
    np.testing.assert_allclose(found, 1 / 4096)
    assert scores(np.array([-12], np.float16), Output(meaning="logits"))[0, 1] > 6e-6


# --- raw outputs of any kind ---

RAW = {
    "float16": ([1.5, 2], "float16", pa.float16()),
    "float64": ([1.5, 2], "float64", pa.float64()),
    "uint8": ([1, 255], "uint8", pa.uint8()),
    "bool": ([True, False], "bool", pa.bool_()),
    "strings": ([b"a", b"\xff"], "string", pa.binary()),
    "vectors": ([[1, 2], [3, 4]], "float32", pa.list_(pa.float32(), 2)),
    "matrices of strings": ([[[b"a"], [b"b"]]], "string", pa.list_(pa.list_(pa.binary(), 1), 2)),
    "matrices": ([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "int64", pa.list_(pa.list_(pa.int64(), 2), 2)),
}


@pytest.mark.parametrize("case", RAW)
def test_raw_outputs_keep_dtype_and_shape(case):
    values, dtype, type_ = RAW[case]
    block = predicted(values, dtype=dtype)
    assert block.rows["y"].type == type_ and block.rows["y"].to_pylist() == values


@pytest.mark.parametrize("how", [{}, {"meaning": "logits", "top": 2}, {"meaning": "logits"}, {"finite": True}])
@pytest.mark.parametrize("shape", [(0,), (0, 1), (0, 3)])
def test_a_block_without_rows_has_the_same_columns(how, shape):
    if "top" in how and shape == (0,):
        how = {"meaning": "logits"}
    assert predicted(np.zeros(shape), how).rows.num_rows == 0


def test_position_is_the_file_and_the_row():
    found = lists(predicted([1, 2], position=True, source="a/b.csv"))
    assert found["source"] == ["a/b.csv"] * 2 and found["row"] == [0, 1]


def test_what_is_not_finite_is_counted_by_row_or_refused():
    values = [[1, 2], [NAN, INF], [3, -INF], [4, 5]]
    counted = predicted(values)
    assert counted.tally == {"not_finite_outputs.y": 2} and counted.rows.num_rows == 4
    refused = predicted(values, {"finite": True})
    assert refused.rejected["row"].to_pylist() == [1, 2] and refused.rows.num_rows == 2
    assert refused.rejected["reason"].to_pylist() == ["not_finite_output"] * 2 and not refused.tally


def test_a_row_that_is_refused_for_one_output_is_not_counted_for_another():
    tensors = {n: Tensor(n, "float32", (None,)) for n in ("a", "b")}
    columns = {OUTPUT + "a": pa.array([NAN, 1], pa.float32()), OUTPUT + "b": pa.array([NAN, NAN], pa.float32())}
    rows = pa.RecordBatch.from_pydict({ROW: pa.array([0, 1])} | columns)
    plan = OutputPlan((), False, {"a": Output(finite=True), "b": Output()}, tensors)
    block = postprocess(Block(0, "x", 0, "f", rows), plan)
    assert block.rejected["row"].to_pylist() == [0] and block.tally == {"not_finite_outputs.b": 1}


# --- properties ---

numbers = st.floats(-50, 50, width=32)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 6), st.integers(1, 5), st.data())
def test_choices_against_a_plain_loop(rows, classes, data):
    values = data.draw(arrays(np.float32, (rows, classes), elements=st.one_of(numbers, st.just(NAN))))
    meaning = data.draw(st.sampled_from(["probabilities", "logits"]))
    top = data.draw(st.integers(1, max(2, classes)))
    threshold = data.draw(st.one_of(st.none(), st.floats(0, 1))) if classes > 1 or top == 1 else None
    how = Output(meaning=meaning, top=top, threshold=threshold)
    best, score, chosen = choose(values, how)
    assert best.shape == score.shape == chosen.shape == (rows, top) and best.dtype == np.int64
    probability = scores(values, how)
    for i in range(rows):
        p = probability[i].tolist()
        if any(map(math.isnan, p)):
            assert not chosen[i].any() and np.isnan(score[i]).all()
            continue
        if classes == 1 and top == 1:
            ranked = [int(np.float32(p[1]) >= np.float32(0.5 if threshold is None else threshold))]
            least = -INF
        else:
            ranked, least = sorted(range(len(p)), key=lambda c: (-p[c], c))[:top], np.float32(threshold or 0)
        assert best[i].tolist() == ranked
        assert score[i].tolist() == [p[c] for c in ranked]
        assert chosen[i].tolist() == [np.float32(p[c]) >= least for c in ranked]


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=numbers))
def test_softmax_against_the_definition(values):
    expected = [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in values.tolist()]
    np.testing.assert_allclose(scores(values, Output(meaning="logits")), expected, rtol=1e-4, atol=1e-30)


# --- columns and tensors ---


shapes = st.lists(st.integers(1, 3), max_size=3)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 6),
    shapes,
    st.sampled_from(["float16", "float32", "int8", "uint64", "bool", "object"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.data(),
)
def test_columns_and_tensors_round_trip_sliced_or_not(rows, tail, dtype, skip, drop, data):
    elements = st.binary(max_size=4) if dtype == "object" else st.integers(0, 1)
    count = rows * math.prod(tail)
    flat = data.draw(st.lists(elements, min_size=count, max_size=count))
    tensor = np.array(flat, dtype).reshape(rows, *tail) if dtype != "object" else np.empty(count, object)
    if dtype == "object":
        tensor[:] = flat
        tensor = tensor.reshape(rows, *tail)
    for type_ in (None, open_type(tensor)):
        column = to_arrow(tensor, type_)
        column.validate(full=True)
        assert column.to_pylist() == tensor.tolist()
        part = column.slice(skip, max(0, rows - skip - drop))
        expected = tensor[skip : skip + len(part)]
        assert to_numpy(part, tail).tolist() == expected.tolist()
        again = with_leaves(part, leaves(part))
        again.validate(full=True)
        assert again.to_pylist() == expected.tolist()
        assert owners(part).tolist() == np.repeat(np.arange(len(part)), math.prod(tail)).tolist()
        assert not nulls(part).any()


def open_type(tensor):
    type_ = pa.binary() if tensor.dtype == object else pa.from_numpy_dtype(tensor.dtype)
    for size in reversed(tensor.shape[1:]):
        type_ = pa.list_(type_) if size % 2 else pa.list_(type_, size)
    return type_


def test_nulls_at_any_depth():
    type_ = pa.list_(pa.list_(pa.int8(), 2))
    column = pa.array([[[1, 2]], None, [[3, 4], None], [], [[5, None], [6, 7]], [[8, 9]]], type_)
    assert nulls(column).tolist() == [False, True, True, False, True, False]
    assert nulls(column.slice(3)).tolist() == [False, True, False]
    assert nulls(pa.array([1, None])).tolist() == [False, True]


def test_not_finite_by_row_in_lists_of_any_length():
    column = pa.array([[[1.0], []], [[2.0, NAN]], [], [[INF], [3.0]], [[4.0]]], pa.list_(pa.list_(pa.float32())))
    assert not_finite(column).tolist() == [False, True, False, True, False]
    assert not_finite(column.slice(3)).tolist() == [True, False]
    assert not_finite(column.slice(4)) is None and not_finite(column.slice(2, 1)) is None
    assert not_finite(pa.array([1, 2])) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3), min_size=1, max_size=4))
def test_shapes_and_padding_of_rows_of_any_lengths(rows):
    column = pa.array([[], *rows], pa.list_(pa.list_(pa.int64()))).slice(1)
    found, ragged = row_shapes(column)
    lengths = [[len(inner) for inner in row] for row in rows]
    assert found.tolist() == [[len(row), max(inner, default=0)] for row, inner in zip(rows, lengths, strict=True)]
    assert ragged.tolist() == [len(set(inner)) > 1 for inner in lengths]
    filled = padded(column, -1)
    high, wide = max(map(len, rows)), max((n for inner in lengths for n in inner), default=0)
    full = [row + [[]] * (high - len(row)) for row in rows]
    assert filled.tolist() == [[inner + [-1] * (wide - len(inner)) for inner in row] for row in full]
