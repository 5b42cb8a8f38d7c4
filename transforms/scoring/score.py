"""The scoring of groups of blocks with one model, without Beam: no row is lost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.nested import fixed
from beam_score.transforms.arrays.texts import Texts
from beam_score.transforms.common.arguments import check_type
from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.model import in_flight
from beam_score.transforms.model.call import ModelCall
from beam_score.transforms.model.deadline import ModelHangs
from beam_score.transforms.model.in_flight import Rows
from beam_score.transforms.model.loading import load_for
from beam_score.transforms.model.model import Feeds, Model, is_exhausted
from beam_score.transforms.model.signature import Tensor, numpy_dtype, output_type
from beam_score.transforms.rows.block import OUTPUT, Block, reject_rows
from beam_score.transforms.rows.faults import Fault
from beam_score.transforms.rows.redact import model_error
from beam_score.transforms.scoring.batch_log import log_batch
from beam_score.transforms.scoring.feeds import Group, groups
from beam_score.transforms.scoring.grouping import FIRST_ROWS
from beam_score.transforms.scoring.halving import Attempts, halve
from beam_score.transforms.scoring.output_sizes import OutputSizes, input_bytes
from beam_score.transforms.scoring.own_lengths import Axis, cut_back, followed, open_axes
from beam_score.transforms.scoring.places import Places

MOST_PADDING = 2
"""The rows of a padded batch may take this many times their own bytes; otherwise the batch is cut before the longer
rows."""

_TEXTS_MEASURED = 100
_TEXT_BYTES = 40
"""Overhead of a text as a Python object, in addition to its characters."""

TRACED_ROWS = 4
"""Rows of zeros, at the warm-up of a model that is not compiled."""

SMALL_PART = 8
"""A compiled model runs on two shapes only: whole batches, and this fraction of a batch for the remainder."""


class WrongRows(Exception):
    """The model's output does not match its rows: another number, shape or dtype."""


class Call(NamedTuple):
    """A call of the model, successful or not."""

    rows: int
    seconds: float


class Scorer:
    """Scores blocks with one model: `load`, `warm_up`, `score`, `close`. Not thread-safe.

    Args:
      call: how the model is called.
      model: to be called; None until `load`.
      stopping: checked between two calls: whether the work is to end.

    Attributes:
      model: see above.
      calls: the calls that the last `score` made.
    """

    def __init__(self, call: ModelCall, model: Model | None = None, stopping: Stopping | None = None):
        check_type("Scorer: call", call, ModelCall, "pass ModelCall(path, signature, outputs)")
        self.call, self.model, self.calls = call, model, list[Call]()
        self._stopping = stopping or Stopping()
        self._attempts = Attempts(succeeded=call.proven)
        self._limit = call.most_rows
        self._call_sizes = OutputSizes(call, tuple(call.signature.outputs))
        self._follows: dict[Axis, Axis] | None = None

    def load(self) -> Model:
        """Load the model, one copy a process, and warm it up.

        Raises: see `load_for` and `warm_up`.
        """
        self.model = load_for(self.call)
        self.warm_up()
        return self.model

    @property
    def limit(self) -> int:
        """The maximum rows of a call: as configured, or the size that has been found to succeed."""
        return self._limit

    def warm_up(self) -> None:
        """Trace and compile on zeros, before the first row has to wait for it; a refusal of zeros says nothing about
        the model. A few rows are enough to trace; XLA compiles a program for each shape.

        Raises:
          ModelHangs: it takes `WARM_UP_S` longer than a call may.
        """
        tensors = self.call.signature.inputs.values()
        if any(t.shape is None or None in t.shape[1:] for t in tensors):
            return
        todo = self._warm_up_rows()
        while todo:
            feeds = {t.name: zeros(t, todo[0]) for t in tensors}
            try:
                self._answer(feeds, "a batch of zeros", self.call.compiled)
                todo.pop(0)
            except ModelHangs:
                raise
            except Exception as error:  # rows that it refuses are passed again later, and halved
                if not is_exhausted(error) or self.call.fixed_rows or self._limit == 1:
                    return
                self._limit //= 2
                todo = self._warm_up_rows()

    def _warm_up_rows(self) -> list[int]:
        if self.call.fixed_rows:
            return [self._limit]
        return [self._limit, _small(self._limit)] if self.call.compiled else [min(self._limit, TRACED_ROWS)]

    def score(self, blocks: Sequence[Block]) -> list[Block]:
        """Score a group of blocks, which may be empty, in slices of `batch_rows`.

        Returns:
          the blocks with a column `output/NAME` for each output; rows that the model refuses are rejected.

        Raises:
          EveryRowFails: the model refuses every row.
          ModelHangs: a call took longer than its deadline.
          Stopped: the run is stopping.
        """
        check_type("Scorer.score: blocks", blocks, Sequence, "pass a list of blocks")
        self.calls = []
        if not blocks:
            return []
        if self.model is None:
            raise RuntimeError("Scorer: the model is not loaded: call load() before score()")
        scored = self._score(blocks)
        seconds = sum(call.seconds for call in self.calls)
        scored[0] = scored[0].with_tally(model_calls=len(self.calls), model_s=seconds)
        return scored

    def call_arrays(self, feeds: Feeds, rows: int) -> Feeds | None:
        """Make one call on some rows, without Arrow: for few rows, where Arrow takes longer than the model.

        Returns:
          the requested outputs; None if `score` would make several calls or another one, or the model refuses the
            rows, so that `score` has to find those at fault.

        Raises:
          ModelHangs: the call took longer than its deadline.
        """
        call = self.call
        size = sum(_nbytes({name: feed}) for name, feed in feeds.items() if feed.dtype == object)
        if rows > self._limit or call.compiled or call.fixed_rows or size > call.bounds.call_bytes:
            return None
        log_batch(feeds)
        try:
            outputs = self._answer(feeds, f"{rows} rows", False)
            tensors = call.signature.outputs
            return {name: _checked(tensors[name], outputs[name], rows) for name in call.outputs}
        except ModelHangs:
            raise
        except Exception:
            return None

    def close(self) -> None:
        """Release the model."""
        self.model = None

    def _score(self, batch: Sequence[Block]) -> list[Block]:
        places, sizes = Places(batch), OutputSizes(self.call)
        filled = [b for b in batch if b.rows.num_rows]
        outputs: dict[str, list[pa.Array]] = {name: [] for name in self.call.outputs}
        done, bad = [], []
        for group in groups(filled, self.call.signature.inputs, self.call.pads) if filled else ():
            for begin, end in self._slices(group):
                self._stopping.check()
                good, failed = self._score_slice(group, begin, end, places)
                bad += [(group.index[begin + row], text) for row, text in failed]
                for start, stop, columns in good:
                    done.append(group.index[begin + start : begin + stop])
                    for name, column in columns.items():
                        outputs[name].append(column)
        columns = {
            name: pa.concat_arrays(parts) if parts else pa.nulls(0, output_type(self.call.signature.outputs[name]))
            for name, parts in outputs.items()
        }
        order = np.concatenate(done) if done else np.array([], np.int64)
        taken = sum(input_bytes(b, self.call.signature.inputs) for b in filled)
        sizes.learn(len(order), taken, sum(column.nbytes for column in columns.values()))
        if (np.diff(order) < 0).any():  # rows were grouped by shape: restore their order
            back = np.argsort(order)
            order, columns = order[back], {name: column.take(pa.array(back)) for name, column in columns.items()}
        at = np.searchsorted(order, places.borders)
        blocks, bad = [], sorted(bad)
        at_fault = np.array([row for row, _ in bad], np.int64)
        messages = pa.array([text for _, text in bad], pa.string())
        of_block = np.searchsorted(at_fault, places.borders)
        for number, (block, low, first, last) in enumerate(zip(batch, places.borders, at, at[1:], strict=False)):
            own = slice(of_block[number], of_block[number + 1])
            block = reject_rows(block, [Fault(at_fault[own] - low, None, "model_error", messages[own])], "infer")
            rows = block.rows
            for name, column in columns.items():
                rows = rows.append_column(OUTPUT + name, column.slice(first, last - first))
            blocks.append(dataclasses.replace(block, rows=rows))
        return blocks

    def _slices(self, group: Group) -> Iterator[tuple[int, int]]:
        """Yield exact batches; the remainder in small batches if the model is compiled by shape. The limit may fall
        meanwhile."""
        at, size = 0, len(group)
        while at < size:
            rows = self._limit
            if size - at < rows and self.call.compiled and not self.call.fixed_rows:
                rows = _small(rows)
            stop = min(at + rows, size)
            if not (self.call.compiled or self.call.fixed_rows):
                stop = at + self._rows_within_bounds(group, at, stop)
            yield at, stop
            at = stop

    def _rows_within_bounds(self, group: Group, start: int, stop: int) -> int:
        """Return how many rows a call may have for its inputs and outputs to stay within `call_bytes`."""
        most = self.call.bounds.call_bytes
        outputs = self._call_sizes.of(stop - start, size := group.bytes(start, stop))
        if outputs is None:
            stop, outputs = min(stop, start + FIRST_ROWS), 0.0
        own = group.own_bytes(start, stop) if group.shapes else None
        if size + outputs <= most and (own is None or size <= MOST_PADDING * own.sum()):
            return stop - start
        growing = group.growing_bytes(start, stop)
        with_outputs = self._call_sizes.of(np.arange(1, len(growing) + 1), growing)
        rows = int(np.searchsorted(growing if with_outputs is None else growing + with_outputs, most, "right"))
        if own is not None:
            little = np.flatnonzero(growing[:rows] <= MOST_PADDING * np.cumsum(own[:rows]))
            rows = int(little[-1]) + 1 if len(little) else 1
        return max(1, rows)

    def _score_slice(
        self, group: Group, begin: int, end: int, places: Places
    ) -> tuple[list[tuple[int, int, dict[str, pa.Array]]], list[tuple[int, str]]]:
        """See `halve`. A batch that is too large, for memory or for the model, is halved like one with a bad row;
        the size that succeeded becomes the limit of later calls."""
        size, rows, feeds = end - begin, group.index[begin:end], group.feeds(begin, end)
        shapes = {name: of[begin:end] for name, of in group.shapes.items()}
        exhausted = False

        def call(start: int, stop: int) -> dict[str, pa.Array]:
            nonlocal exhausted
            part = {name: feed[start:stop] for name, feed in feeds.items()}
            own = {name: of[start:stop] for name, of in shapes.items()}
            given = places.between(rows[start:stop])
            try:
                if self.call.compiled and stop - start == size:
                    try:
                        return self._call(part, self._compiled_rows(size), given, own, compiled=True)
                    except ModelHangs:
                        raise
                    except Exception:  # TensorFlow's own execution decides whether a row is at fault
                        pass
                return self._call(part, self.call.fixed_rows or stop - start, given, own)
            except Exception as error:
                exhausted = exhausted or is_exhausted(error)
                raise

        def describe(index: int, error: Exception) -> str:
            nodes = self.model.nodes() if self.model is not None and hasattr(error, "error_code") else {}
            return f"the model failed on this row: {model_error(error, nodes, self.call.full_messages)}"

        good, bad = halve(size, call, self._attempts, describe, fatal=(ModelHangs,))
        too_large = exhausted or (len(good) > 1 and not bad)  # the whole was refused, but no row is at fault
        if too_large and good and not self.call.fixed_rows:
            self._limit = min(self._limit, max(stop - start for start, stop, _ in good))
        return good, bad

    def _compiled_rows(self, rows: int) -> int:
        if self.call.fixed_rows:
            return self.call.fixed_rows
        return self._limit if rows > _small(self._limit) else _small(self._limit)

    def _call(
        self,
        feeds: Feeds,
        rows: int,
        given: Rows,
        shapes: Mapping[str, np.ndarray],
        compiled: bool = False,
    ) -> dict[str, pa.Array]:
        """Make one call, padded to `rows` rows with copies of the last; the surplus rows and the padding are removed
        from the outputs.

        Args:
          shapes: for each padded input, the shapes of the rows.
        """
        if given.count < rows:
            feeds = {n: np.concatenate([f, np.repeat(f[-1:], rows - given.count, axis=0)]) for n, f in feeds.items()}
        log_batch(feeds)
        began = time.perf_counter()
        noted = in_flight.note(given)
        try:
            outputs = self._answer(feeds, given, compiled)
        finally:
            in_flight.clear(noted)
            self.calls.append(Call(given.count, time.perf_counter() - began))
        if not self._call_sizes.are_fixed:
            self._call_sizes.learn(rows, _nbytes(feeds), _nbytes(outputs))
        tensors = self.call.signature.outputs
        found = {n: _checked(tensors[n], outputs[n], rows)[: given.count] for n in self.call.outputs}
        own = self._own_lengths(feeds, shapes, compiled)
        return {name: cut_back(o, own.get(name, {}), output_type(tensors[name])) for name, o in found.items()}

    def _answer(self, feeds: Feeds, given: object, compiled: bool) -> Feeds:
        """Return the model's answer. Raises ModelHangs with the rows it was given."""
        assert self.model is not None, "call load first"
        call = self.model.call_compiled if compiled else self.model.call
        if not getattr(self.model, "takes_texts", False):
            feeds = {name: np.asarray(feed) for name, feed in feeds.items()}
        try:
            return call(feeds, self.call.deadline_s)
        except ModelHangs as error:
            raise ModelHangs(error.deadline_s, given) from None

    def _own_lengths(
        self, feeds: Feeds, shapes: Mapping[str, np.ndarray], compiled: bool
    ) -> dict[str, dict[int, np.ndarray]]:
        """Return, for each output, the dimensions that follow a padded input's dimension, with the lengths of the
        rows."""
        filled = any((of < feeds[name].shape[1:]).any() for name, of in shapes.items())
        outputs = open_axes(self.call.signature.outputs, self.call.outputs) if filled else []
        if not outputs:
            return {}
        if self._follows is None:
            padded = open_axes(self.call.signature.inputs, tuple(shapes))
            row = {name: feed[: self.call.fixed_rows or 1] for name, feed in feeds.items()}

            def answer(longer: Feeds) -> Feeds:
                return self._answer(longer, "a row, padded by one", compiled)

            self._follows = followed(answer, row, padded, outputs, self.call.pads)
        own: dict[str, dict[int, np.ndarray]] = {}
        for (output, k), (name, at) in (self._follows or {}).items():
            own.setdefault(output, {})[k] = shapes[name][:, at - 1]
        return own


def _checked(tensor: Tensor, output: np.ndarray, rows: int) -> np.ndarray:
    """Return an output that is checked to be as declared. Raises WrongRows."""
    assert tensor.shape is not None, f"{tensor.name} has an unknown rank"
    rank = len(tensor.shape)
    if output.ndim > rank and all(size == 1 for size in output.shape[rank:]):
        output = output.reshape(output.shape[:rank])  # see `transforms.contract.outputs.as_written`
    if not output.ndim or len(output) != rows:
        raise WrongRows(
            f"output {tensor.name!r} has {len(output) if output.ndim else 'no'} rows, but the batch has {rows}"
        )
    if output.ndim != rank or any(d not in (None, f) for d, f in zip(tensor.row_shape, output.shape[1:], strict=True)):
        raise WrongRows(f"output {tensor.name!r} has shape {list(output.shape)}, declared {tensor.describe()}")
    if output.dtype != numpy_dtype(tensor):
        raise WrongRows(f"output {tensor.name!r} is {output.dtype}, declared {tensor.describe()}")
    return output


def _nbytes(arrays: Feeds) -> float:
    return sum(_text_bytes(array) if array.dtype == object else array.nbytes for array in arrays.values())


def _text_bytes(array: np.ndarray | Texts) -> float:
    """Return the approximate bytes of an array of texts, from a sample."""
    if isinstance(array, Texts):
        return array.values.nbytes + len(array.values) * _TEXT_BYTES
    some = array.reshape(-1)[:: max(1, array.size // _TEXTS_MEASURED)]
    return array.size * (sum(map(len, some)) / max(1, len(some)) + _TEXT_BYTES)


def _small(batch_rows: int) -> int:
    return max(1, batch_rows // SMALL_PART)


def zeros(tensor: Tensor, rows: int) -> np.ndarray:
    """Return rows of zeros, or of empty texts, for an input whose rows have a known shape or open dimensions of 1."""
    shape = (rows, *fixed(tensor.row_shape))
    return np.full(shape, b"", object) if tensor.dtype == "string" else np.zeros(shape, numpy_dtype(tensor))
