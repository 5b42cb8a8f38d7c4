"""Answers to requests for a signature of the model itself: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.answering.lines import Lines, as_columns
from beam_score.pipeline.serve.tensors import results, write_json
from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors
from beam_score.pipeline.serve.tensors.response import written
from beam_score.transforms.arrays.nested import to_arrow
from beam_score.transforms.model.model import Feeds, Model
from beam_score.transforms.model.signature import Signature


class Tensorial:
    """Answers requests for one signature.

    Args:
      model: the signature, loaded.
      lenient: whether requests and answers are exactly those of TensorFlow Serving.
    """

    def __init__(self, model: Model, lenient: bool = False):
        self._model, self._lenient = model, lenient
        self._joins = _takes_any_rows(model.signature)

    @property
    def signature(self) -> Signature:
        """The signature of the model."""
        return self._model.signature

    def rows_of(self, found: Tensors) -> int:
        """Return the rows of a request: the largest first dimension of the inputs where that is open."""
        shapes = {name: tensor.shape for name, tensor in self.signature.inputs.items()}
        open_ = [feed for name, feed in found.feeds.items() if (shapes[name] or (None,))[0] is None]
        return max((len(feed) for feed in open_ if feed.ndim), default=1)

    def answer(self, requests: Sequence[Request], read: Mapping[int, Tensors]) -> dict[int, Answer]:
        """Return the answers to some requests, by their positions.

        Args:
          read: the tensors of these requests, by position.
        """
        answers: dict[int, Answer] = {}
        for group in self._groups(read):
            answers |= self._call(requests, {number: read[number] for number in group})
        return answers

    def _groups(self, read: Mapping[int, Tensors]) -> list[list[int]]:
        """Return the positions of the requests that can share a call: those whose rows have one shape."""
        groups: dict[object, list[int]] = {}
        for number, one in read.items():
            sizes = {len(feed) if feed.ndim else None for feed in one.feeds.values()}
            joins = self._joins and len(sizes) == 1 and None not in sizes
            key = tuple(feed.shape[1:] for feed in one.feeds.values()) if joins else number
            groups.setdefault(key, []).append(number)
        return list(groups.values())

    def _call(self, requests: Sequence[Request], read: Mapping[int, Tensors]) -> dict[int, Answer]:
        one = next(iter(read.values()))
        if len(read) == 1:
            feeds = one.feeds
        else:
            feeds = {name: np.concatenate([r.feeds[name] for r in read.values()]) for name in one.feeds}
        try:
            outputs = self._model.call(feeds)
        except Exception as error:
            if len(read) > 1:  # one of them is at fault
                answers: dict[int, Answer] = {}
                for number, own in read.items():
                    answers |= self._call(requests, {number: own})
                return answers
            (number,) = read
            # The message of the model may quote values.
            message = f"the model refuses these tensors: {type(error).__name__}"
            return {number: refusal(400, message, requests[number].id)}
        if len(read) == 1:
            (number,) = read
            return {number: self._written(requests[number], outputs, one, _rows(one.feeds))}
        ends = np.cumsum([_rows(r.feeds) for r in read.values()])
        answers = {}
        for number, start, stop in zip(read, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            part = {name: array[start:stop] for name, array in outputs.items()}
            answers[number] = self._written(requests[number], part, read[number], stop - start)
        return answers

    def _written(self, request: Request, outputs: Feeds, asked: Tensors, rows: int) -> Answer:
        by_row = asked.rows
        if asked.method is not None:
            try:
                if request.form.startswith("json"):
                    return Answer(200, results.as_json(asked.method, outputs, rows, self._lenient), rows, rows)
                return Answer(200, results.as_proto(asked.method, outputs, rows, self.signature.name), rows, rows)
            except Refused as error:
                return refusal(error.status, str(error), request.id)
        if request.kind != "json":
            wanted = {name: outputs[name] for name in asked.wanted or outputs}
            try:
                return Answer(200, written(request.kind, wanted, self._model.signature.name, asked), rows, rows)
            except Refused as error:
                return refusal(error.status, str(error), request.id)
        if self._lenient or any(not array.ndim for array in outputs.values()):
            try:
                text = write_json.predictions(outputs) if by_row else write_json.outputs(outputs)
            except Refused as error:
                return refusal(error.status, str(error), request.id)
            return Answer(200, write_json.as_bytes(text), rows, rows)
        sizes = {name: len(array) for name, array in outputs.items()}
        if by_row and len(set(sizes.values())) > 1:
            return refusal(400, "the outputs differ in their first dimension: ask in column form", request.id)
        columns = {name: to_arrow(array) for name, array in outputs.items()}
        if by_row:
            batch = pa.RecordBatch.from_pydict(columns)
            lines = Lines(batch, next(iter(columns)) if len(columns) == 1 else None)
            return Answer(200, b'{"predictions":[' + lines.between(0, batch.num_rows) + b"]}", rows, rows)
        return Answer(200, b'{"outputs":' + as_columns(columns) + b"}", rows, rows)


def _rows(feeds: Feeds) -> int:
    return max((len(feed) if feed.ndim else 1 for feed in feeds.values()), default=1)


def _takes_any_rows(signature: Signature) -> bool:
    """Return whether all tensors have an open first dimension, so that requests can share a call."""
    sides = (*signature.inputs.values(), *signature.outputs.values())
    return all(tensor.shape is not None and tensor.shape[:1] == (None,) for tensor in sides)
