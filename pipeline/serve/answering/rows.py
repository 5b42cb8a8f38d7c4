"""Answers to requests for the contract: predictions of rows, or what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.serve.answering.answer import PARTIAL, Answer, Request, refusal
from beam_score.pipeline.serve.answering.bodies import BadBody, Body, exact
from beam_score.pipeline.serve.answering.lines import Lines, as_columns
from beam_score.pipeline.serve.answering.verdicts import Verdicts
from beam_score.pipeline.serve.tensors.columns import check_known, prediction_tensors
from beam_score.pipeline.serve.tensors.predict import check_wanted
from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors
from beam_score.pipeline.serve.tensors.response import written
from beam_score.transforms.rows.block import Block

CONTRACT = "contract"
"""The name of the signature that is the job's contract."""

MOST_DETAILS = 100
"""Rejected rows that an answer describes."""


class Rows:
    """Answers batches of requests to one version of a model.

    Args:
      verdicts: of the job and the loaded model.
    """

    def __init__(self, verdicts: Verdicts):
        self._verdicts = verdicts
        names = verdicts.schema.names
        self._bare = names[0] if len(names) == 1 else None

    def check_columns(self, body: Body) -> None:
        """Raise Refused if a request in column form has a column that the contract does not."""
        check_known(body.columns or (), self._verdicts.columns)

    def answer(self, requests: Sequence[Request], bodies: Mapping[int, Body]) -> dict[int, Answer]:
        """Return the answers to some requests, by their positions.

        Args:
          bodies: of these requests, by position.
        """
        answers: dict[int, Answer] = {}
        self._answer(requests, dict(bodies), answers)
        return answers

    def _answer(self, requests: Sequence[Request], read: dict[int, Body], answers: dict[int, Answer]) -> None:
        judged, first = self._verdicts.judge(list(read.values()))
        if again := _malformed(judged.rejected, first):
            numbers = list(read)
            for number in (numbers[k] for k in again):
                try:
                    body = exact(requests[number].body).rows()
                    read[number] = dataclasses.replace(body, partial=body.partial or read[number].partial)
                except BadBody as error:
                    del read[number]
                    answers[number] = refusal(400, str(error), requests[number].id)
            if not read:
                return
            judged, first = self._verdicts.judge(list(read.values()))
        self._finish(requests, read, judged, first, answers)

    def answer_columns(
        self, requests: Sequence[Request], read: Mapping[int, Tensors], most_rows: int
    ) -> dict[int, Answer]:
        """Return the answers to requests whose columns are tensors, by their positions.

        Args:
          read: of these requests, by position.
          most_rows: of a request.
        """
        answers: dict[int, Answer] = {}
        alike: dict[pa.Schema, dict[int, pa.RecordBatch]] = {}
        for number, tensors in read.items():
            try:
                check_wanted(tensors, self._verdicts.schema.names)
                batch = self._verdicts.columns_of(tensors.feeds, most_rows)
                alike.setdefault(batch.schema, {})[number] = batch
            except Refused as error:
                more = {"details": error.faults, "more": 0} if error.faults else None
                answers[number] = refusal(error.status, str(error), requests[number].id, more)
        for batches in alike.values():
            judged, first = self._verdicts.judge_columns(list(batches.values()))
            self._finish(requests, {number: read[number] for number in batches}, judged, first, answers)
        return answers

    def answer_table(self, request: Request, most_rows: int) -> Answer:
        """Return the answer to a request in CSV. Raises Refused.

        Args:
          most_rows: of a request.
        """
        judged, rows = self._verdicts.judge_table(request.body, request.options, most_rows)
        body = Body(b"", rows, partial=PARTIAL in request.options)
        answers: dict[int, Answer] = {}
        self._finish([request], {0: body}, judged, np.array([0, rows]), answers)
        return answers[0]

    def _finish(
        self,
        requests: Sequence[Request],
        read: Mapping[int, Body | Tensors],
        judged: Block,
        first: np.ndarray,
        answers: dict[int, Answer],
    ) -> None:
        """Score judged rows, and write the answers."""
        partial = np.array([body.partial for body in read.values()])
        refused = np.unique(_requests_of(judged.rejected["row"].to_numpy(), first))
        scored = self._verdicts.score(judged, _rows_of(refused[~partial[refused]], first))
        by_row = any(isinstance(body, Body) and body.by_row for body in read.values())
        lines = Lines(scored.predictions if by_row else scored.predictions.slice(0, 0), self._bare)
        at = np.searchsorted(scored.rows, first)
        bad = np.searchsorted(scored.rejected["row"].to_numpy(), first)
        for k, (number, body) in enumerate(read.items()):
            rows = int(first[k + 1] - first[k])
            own = scored.rejected.slice(bad[k], bad[k + 1] - bad[k])
            if not own.num_rows:
                done = scored.predictions.slice(at[k], at[k + 1] - at[k])
                answers[number] = self._good(requests[number], body, done, lines.between(at[k], at[k + 1]))
            elif not partial[k]:
                answers[number] = _rejected(own, int(first[k]), rows, requests[number].id)
            elif isinstance(body, Tensors):
                done = scored.predictions.slice(at[k], at[k + 1] - at[k])
                answers[number] = _partial_tensors(requests[number], body, done, own, int(first[k]), rows)
            else:
                each = [lines.between(i, i + 1) for i in range(at[k], at[k + 1])]
                answers[number] = _partial(each, scored.rows[at[k] : at[k + 1]] - first[k], own, int(first[k]), rows)

    @staticmethod
    def _good(request: Request, body: Body | Tensors, predictions: pa.RecordBatch, lines: bytes) -> Answer:
        """Return the answer to a request all of whose rows are predicted."""
        rows = predictions.num_rows
        if isinstance(body, Tensors):
            wanted = predictions.select(list(body.wanted)) if body.wanted else predictions
            try:
                return Answer(200, written(request.kind, prediction_tensors(wanted), CONTRACT, body), rows, rows)
            except Refused as error:
                return refusal(error.status, str(error), request.id)
        if not body.by_row:
            columns = dict(zip(predictions.schema.names, predictions.columns, strict=True))
            return Answer(200, b'{"outputs":' + as_columns(columns) + b"}", rows, rows)
        return Answer(200, b'{"predictions":[' + lines + b"]}", rows, rows)


def _rejected(rejected: pa.RecordBatch, first: int, rows: int, id_: str) -> Answer:
    found = _details(rejected, first)
    shown = "; ".join(f"[{d['index']}] {d['message']}" for d in found[:3])
    more = {"rejected": rejected.num_rows, "details": found[:MOST_DETAILS], "more": max(0, len(found) - MOST_DETAILS)}
    answer = refusal(400, f"{rejected.num_rows} of {rows} instances refused: {shown}", id_, more)
    return dataclasses.replace(answer, received=rows, rejected=rows, reasons=_reasons(rejected))


def _partial(done: list[bytes], at: np.ndarray, rejected: pa.RecordBatch, first: int, rows: int) -> Answer:
    values = [b"null"] * rows
    for line, row in zip(done, at.tolist(), strict=True):
        values[row] = line
    found = _details(rejected, first)
    counts = {"received": rows, "predicted": len(done), "rejected": rejected.num_rows}
    rest = orjson.dumps({"errors": found[:MOST_DETAILS], "more": max(0, len(found) - MOST_DETAILS), "counts": counts})
    body = b'{"predictions":[' + b",".join(values) + b"]," + rest[1:]
    return Answer(200, body, rows, len(done), rejected.num_rows, reasons=_reasons(rejected))


def _partial_tensors(
    request: Request, asked: Tensors, done: pa.RecordBatch, rejected: pa.RecordBatch, first: int, rows: int
) -> Answer:
    """Return the predictions of the good rows as tensors, and what is wrong with the others as parameters."""
    wanted = done.select(list(asked.wanted)) if asked.wanted else done
    found = _details(rejected, first)
    parameters = {
        "rejected": rejected.num_rows,
        "rejected_rows": orjson.dumps((rejected["row"].to_numpy() - first).tolist()).decode(),
        "errors": orjson.dumps(found[:MOST_DETAILS]).decode(),
    }
    try:
        body = written(request.kind, prediction_tensors(wanted), CONTRACT, asked, parameters)
    except Refused as error:
        return refusal(error.status, str(error), request.id)
    return Answer(200, body, rows, done.num_rows, rejected.num_rows, reasons=_reasons(rejected))


def _details(rejected: pa.RecordBatch, first: int) -> list[dict[str, Any]]:
    """Return all faults of some dead letters, by index in their request."""
    return [
        {"index": row - first, **fault}
        for row, faults in zip(rejected["row"].to_pylist(), rejected["errors"].to_pylist(), strict=True)
        for fault in faults
    ]


def _reasons(rejected: pa.RecordBatch) -> dict[str, int]:
    return {str(found["values"]): found["counts"] for found in pc.value_counts(rejected["reason"]).to_pylist()}


def _malformed(rejected: pa.RecordBatch, first: np.ndarray) -> list[int]:
    """Return the positions of the requests with a row that is not JSON: they may have been cut at the wrong places."""
    if not rejected.num_rows:
        return []
    rows = rejected["row"].to_numpy()[pc.equal(rejected["reason"], "malformed").to_numpy(zero_copy_only=False)]
    return np.unique(_requests_of(rows, first)).tolist()


def _requests_of(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    return np.searchsorted(first, rows, side="right") - 1


def _rows_of(requests: np.ndarray, first: np.ndarray) -> np.ndarray:
    spans = [np.arange(first[k], first[k + 1]) for k in requests]
    return np.concatenate(spans) if spans else np.array([], np.int64)
