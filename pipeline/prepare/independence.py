"""Check that the outcome of a row depends on that row only: score some rows alone, twice, and in another batch."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import leaves, row_shapes
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.model import Model
from beam_score.transforms.model.signature import Tensor
from beam_score.transforms.rows.block import OUTPUT, Block
from beam_score.transforms.scoring.score import Scorer

ROWS = 16
"""Maximum number of rows that are scored again."""

_ALONE_S = 1.0
"""Time limit for scoring rows alone, in seconds; at least two rows are scored."""

_NOISE = {"float16": 3e-2, "bfloat16": 3e-2}
_USUAL_NOISE = 1e-3
"""Expected difference of floats between batch sizes, relative to the largest value of their output."""

_REMEDY = (
    "export it for inference (training=False, no state, no statistics over the batch), or set model.independent: "
    "false to publish results that depend on the batch"
)


def dependence(call: ModelCall, servable: Model, scored: Sequence[Block], batch_rows: int) -> list[str]:
    """Return the evidence that the outcome of a row depends on more than the row: one sentence per output.

    Args:
      call: how the model is called.
      scored: blocks with inputs, and the outputs of a first call.
      batch_rows: rows per batch in the first call.

    Raises:
      ModelHangs: see `transforms.model.deadline`.
    """
    rows = _spread(scored)
    if not rows:
        return []
    first = [row.rows for row in rows]
    asked = [without_outputs(row) for row in rows]
    alone_call = dataclasses.replace(call, batch_rows=1, compiled=False, proven=True)
    alone, again, began = [], [], time.perf_counter()
    for row in asked:
        alone += _score(alone_call, servable, [row])
        again += _score(alone_call, servable, [row])
        if len(alone) > 1 and time.perf_counter() - began > _ALONE_S:
            break
    known = len(alone)
    found = _differing(call, alone, again, "changes from one call to the next")
    if batch_rows > 1 and not call.fixed_rows:
        beside = dataclasses.replace(alone_call, batch_rows=min(batch_rows, known))
        turned = _score(beside, servable, asked[known - 1 :: -1])[::-1]
        for other in (first[:known], turned):
            found = _differing(call, alone, other, "depends on the rows that it is scored with") | found
    return [f"{text}: {_REMEDY}" for text in found.values()]


def _spread(scored: Sequence[Block]) -> list[Block]:
    """Return blocks of one row each, spread over all rows."""
    starts = np.cumsum([0, *(b.rows.num_rows for b in scored)])
    count = int(starts[-1])
    rows = []
    for at in np.unique(np.linspace(0, count - 1, min(count, ROWS)).astype(np.int64)) if count else ():
        block = int(np.searchsorted(starts, at, side="right")) - 1
        one = scored[block].rows.slice(int(at - starts[block]), 1)
        rows.append(dataclasses.replace(scored[block], rows=one, rejected=scored[block].rejected.slice(0, 0)))
    return rows


def without_outputs(block: Block) -> Block:
    """Return the block as it was before the model."""
    names = [n for n in block.rows.schema.names if not n.startswith(OUTPUT)]
    return dataclasses.replace(block, rows=block.rows.select(names))


def _score(call: ModelCall, servable: Model, blocks: Sequence[Block]) -> list[pa.RecordBatch]:
    return [block.rows for block in Scorer(call, servable).score(blocks)]


def _differing(
    call: ModelCall, some: Sequence[pa.RecordBatch], others: Sequence[pa.RecordBatch], how: str
) -> dict[str, str]:
    """Return a sentence for each output that differs, by name; one sentence for all outputs if a row is predicted in
    one call and rejected in the other."""
    pairs = [(a, b) for a, b in zip(some, others, strict=True) if a.num_rows and b.num_rows]
    lost = sum(a.num_rows != b.num_rows for a, b in zip(some, others, strict=True))
    if lost:
        return {"": f"whether the model takes a row {how}: {lost} of {len(some)} rows that were tried"}
    found = {}
    for name in call.outputs:
        tensor = call.signature.outputs[name]
        differ = _different_rows(tensor, [(a[OUTPUT + name], b[OUTPUT + name]) for a, b in pairs])
        if differ:
            found[name] = f"output {name!r} {how}: {differ} of {len(pairs)} rows that were tried"
    return found


def _different_rows(tensor: Tensor, pairs: Sequence[tuple[pa.Array, pa.Array]]) -> int:
    noise = _NOISE.get(tensor.dtype, _USUAL_NOISE)
    values = [(leaves(a).to_numpy(zero_copy_only=False), leaves(b).to_numpy(zero_copy_only=False)) for a, b in pairs]
    scale = max((_largest(v) for pair in values for v in pair), default=0.0)
    return sum(
        not (np.array_equal(row_shapes(a)[0], row_shapes(b)[0]) and _same(x, y, noise, scale))
        for (a, b), (x, y) in zip(pairs, values, strict=True)
    )


def _largest(values: np.ndarray) -> float:
    if values.dtype.kind != "f":
        return 0.0
    return float(np.abs(values, dtype=np.float64).max(initial=0.0, where=np.isfinite(values)))


def _same(x: np.ndarray, y: np.ndarray, noise: float, scale: float) -> bool:
    if x.shape != y.shape:
        return False
    if x.dtype.kind != "f":
        return np.array_equal(x, y)
    return np.allclose(x.astype(np.float64), y.astype(np.float64), rtol=noise, atol=noise * scale, equal_nan=True)
