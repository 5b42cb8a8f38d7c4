"""Rows of different lengths: a batch is padded to its own longest row, and outputs are cut to each row's own length."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from beam_score.transforms.common.bounds import Bounds
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.signature import Signature, Tensor, output_type
from beam_score.transforms.rows.block import ROW, Block
from beam_score.transforms.scoring.own_lengths import cut_back, followed
from beam_score.transforms.steps.infer import BeamScorer

X = Tensor("x", "float32", (None, None))


class Tokens:
    """Y: each value doubled; one: as many ones as every row has, whatever the length; s: the sum of a row."""

    outputs: ClassVar = {
        "y": Tensor("y", "float32", (None, None)),
        "vectors": Tensor("vectors", "float32", (None, None, 2)),
        "five": Tensor("five", "float32", (None, None)),
        "s": Tensor("s", "float32", (None,)),
    }

    def __init__(self):
        self.shapes = []

    def call(self, feeds, deadline_s=None):
        x = feeds["x"]
        self.shapes.append(x.shape)
        return {
            "y": 2 * x,
            "vectors": np.stack([x, -x], axis=2),
            "five": np.ones((len(x), 5), np.float32),
            "s": x.sum(axis=1),
        }


def call_of(model, inputs=None, **options) -> ModelCall:
    inputs = {"x": X} if inputs is None else inputs
    signature = Signature("serving_default", inputs, model.outputs)
    options = {"pads": dict.fromkeys(inputs, 0), "batch_rows": 100} | options
    return ModelCall("fake", signature, tuple(model.outputs), **options)


def blocks_of(lists, size=70) -> list[Block]:
    blocks = []
    for at in range(0, len(lists), size):
        part = lists[at : at + size]
        rows = {ROW: np.arange(at, at + len(part)), "input/x": pa.array(part, pa.list_(pa.float32()))}
        blocks.append(Block(0, "a", at // size, "f", pa.RecordBatch.from_pydict(rows)))
    return blocks


def some_lists(rows=1000, longest=40, seed=1):
    random = np.random.default_rng(seed)
    return [random.integers(1, 9, n).tolist() for n in random.integers(1, longest + 1, rows)]


def test_each_batch_is_padded_to_its_own_longest_row():
    lists, model = some_lists(), Tokens()
    scored = BeamScorer(call_of(model)).run_inference(blocks_of(lists), model)
    fed = sum(rows * length for rows, length in model.shapes)
    assert sum(map(len, lists)) <= fed < 1.2 * sum(map(len, lists))
    y = [v for b in scored for v in b.rows["output/y"].to_pylist()]
    assert y == [[2 * v for v in values] for values in lists]
    assert [v for b in scored for v in b.rows["output/s"].to_pylist()] == [sum(values) for values in lists]
    vectors = [v for b in scored for v in b.rows["output/vectors"].to_pylist()]
    assert vectors == [[[v, -v] for v in values] for values in lists]
    assert [b.rows[ROW].to_pylist() for b in scored] == [b.rows[ROW].to_pylist() for b in blocks_of(lists)]


def test_an_output_that_happens_to_be_as_long_is_left_alone():
    model = Tokens()
    lists = [[1.0] * n for n in (2, 5, 3, 5, 1)]  # the batch is padded to 5, and `five` is always 5
    (scored,) = BeamScorer(call_of(model)).run_inference(blocks_of(lists), model)
    assert [len(v) for v in scored.rows["output/five"].to_pylist()] == [5] * 5
    assert [len(v) for v in scored.rows["output/y"].to_pylist()] == [2, 5, 3, 5, 1]


def test_one_long_row_does_not_pad_the_others():
    model = Tokens()
    lists = [[1.0]] * 500 + [[1.0] * 50_000] + [[1.0]] * 499
    bounds = dataclasses.replace(Bounds(), call_bytes=1 << 20)
    scored = BeamScorer(call_of(model, bounds=bounds)).run_inference(blocks_of(lists), model)
    assert max(rows * length * 4 for rows, length in model.shapes) <= 1 << 20
    assert sum(rows * length for rows, length in model.shapes) <= 2 * sum(map(len, lists))
    assert [v for b in scored for v in b.rows["output/s"].to_pylist()] == [sum(v) for v in lists]


def test_a_row_that_fails_among_padded_ones_is_named_by_its_own_number():
    class Picky(Tokens):
        def call(self, feeds, deadline_s=None):
            if (feeds["x"] == 7).any():
                raise ValueError("seven")
            return super().call(feeds)

    lists = [[1.0] * (n % 30 + 1) for n in range(300)]
    lists[33] = [1.0, 7.0, 1.0]
    lists[250] = [7.0] * 29
    model = Picky()
    pytest.importorskip("tensorflow")  # its errors tell one that is out of memory
    scored = BeamScorer(call_of(model, proven=True)).run_inference(blocks_of(lists), model)
    assert [n for b in scored for n in b.rejected["row"].to_pylist()] == [33, 250]
    good = [
        (n, v) for b in scored for n, v in zip(b.rows[ROW].to_pylist(), b.rows["output/y"].to_pylist(), strict=True)
    ]
    assert good == [(n, [2 * v for v in values]) for n, values in enumerate(lists) if n not in (33, 250)]


def test_two_inputs_that_must_be_as_long_as_each_other():
    def model(feeds):
        if feeds["ids"].shape != feeds["mask"].shape:
            raise ValueError("not of one length")
        return {"y": feeds["ids"] * feeds["mask"], "n": np.zeros((len(feeds["ids"]), 4))}

    feeds = {"ids": np.zeros((1, 4)), "mask": np.zeros((1, 4))}
    axes, outputs = [("ids", 1), ("mask", 1)], [("y", 1), ("n", 1)]
    assert followed(model, feeds, axes, outputs, {"ids": 0, "mask": 0}) == {("y", 1): ("ids", 1)}


def test_a_row_that_the_model_refuses_tells_nothing():
    def model(feeds):
        raise ValueError

    assert followed(model, {"x": np.zeros((1, 4))}, [("x", 1)], [("y", 1)], {"x": 0}) is None


def test_a_model_that_takes_no_longer_row_is_gone_by_the_size():
    def model(feeds):
        if feeds["x"].shape[1] % 4:
            raise ValueError("not a multiple of 4")
        return {"y": feeds["x"]}

    assert followed(model, {"x": np.zeros((1, 4))}, [("x", 1)], [("y", 1)], {"x": 0}) == {("y", 1): ("x", 1)}


@pytest.mark.parametrize(
    ("shape", "cut"),
    [((None, None), [1]), ((None, None, 3), [1]), ((None, 2, None), [2]), ((None, None, None), [1, 2])],
)
def test_cut_outputs_are_what_slices_of_each_row_are(shape, cut):
    random = np.random.default_rng(3)
    array = random.integers(0, 100, [5 if d is None else d for d in (6, *shape[1:])]).astype(np.int64)
    own = {k: random.integers(0, array.shape[k] + 1, len(array)) for k in cut}
    column = cut_back(array, own, output_type(Tensor("y", "int64", shape)))
    expected = [
        row[tuple(slice(own[k][i] if k in own else None) for k in range(1, array.ndim))].tolist()
        for i, row in enumerate(array)
    ]
    assert column.to_pylist() == expected
    column.validate(full=True)
