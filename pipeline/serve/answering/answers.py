"""Answers to the requests of a batch: predictions, or what is wrong with the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.serve.answering.bodies import BadBody, Body, exact, quick
from beam_score.pipeline.serve.answering.verdicts import Verdicts
from beam_score.transforms.output.json_lines import to_json_lines

MOST_DETAILS = 100
"""Rejected rows that an answer describes."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A request as the front passes it on.

    Attributes:
      id: of the request, to be found in the log.
      body: JSON in row form.
    """

    id: str
    body: bytes


@dataclasses.dataclass(frozen=True)
class Answer:
    """What is sent for one request.

    Attributes:
      status: of HTTP.
      body: JSON.
      received, predicted, rejected, failed: rows.
      reasons: rejected rows by reason code.
    """

    status: int
    body: bytes
    received: int = 0
    predicted: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = dataclasses.field(default_factory=dict)


class Answerer:
    """Answers batches of requests to one version of a model.

    Args:
      verdicts: of the job and the loaded model.
    """

    def __init__(self, verdicts: Verdicts):
        self._verdicts = verdicts
        names = verdicts.schema.names
        self._bare = names[0] if len(names) == 1 else None

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers, in order."""
        answers: dict[int, Answer] = {}
        read: dict[int, Body] = {}
        for number, request in enumerate(requests):
            try:
                read[number] = quick(request.body) or exact(request.body)
            except BadBody as error:
                answers[number] = refusal(400, str(error), request.id)
        if read:
            self._answer(requests, read, answers)
        return [answers[number] for number in range(len(requests))]

    def _answer(self, requests: Sequence[Request], read: dict[int, Body], answers: dict[int, Answer]) -> None:
        judged, first = self._verdicts.judge(list(read.values()))
        if again := _malformed(judged.rejected, first):
            numbers = list(read)
            for number in (numbers[k] for k in again):
                try:
                    read[number] = exact(requests[number].body)
                except BadBody as error:
                    del read[number]
                    answers[number] = refusal(400, str(error), requests[number].id)
            if not read:
                return
            judged, first = self._verdicts.judge(list(read.values()))
        partial = np.array([body.partial for body in read.values()])
        refused = np.unique(_requests_of(judged.rejected["row"].to_numpy(), first))
        scored = self._verdicts.score(judged, _rows_of(refused[~partial[refused]], first))
        lines = _Lines(scored.predictions, self._bare)
        at = np.searchsorted(scored.rows, first)
        bad = np.searchsorted(scored.rejected["row"].to_numpy(), first)
        for k, number in enumerate(read):
            rows = int(first[k + 1] - first[k])
            own = scored.rejected.slice(bad[k], bad[k + 1] - bad[k])
            if not own.num_rows:
                body = b'{"predictions":[' + lines.between(at[k], at[k + 1]) + b"]}"
                answers[number] = Answer(200, body, rows, rows)
            elif not partial[k]:
                answers[number] = _rejected(own, int(first[k]), rows, requests[number].id)
            else:
                done = [lines.between(i, i + 1) for i in range(at[k], at[k + 1])]
                answers[number] = _partial(done, scored.rows[at[k] : at[k + 1]] - first[k], own, int(first[k]), rows)


class _Lines:
    """Predictions as JSON, of which any range can be taken.

    Args:
      predictions: one row each.
      bare: the name of the only column, whose values are written without it; None for objects.
    """

    def __init__(self, predictions: pa.RecordBatch, bare: str | None):
        # JSON has no NaN: the text says which value it was.
        self._text = to_json_lines(pa.Table.from_batches([predictions]), "string") if predictions.num_rows else b""
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == 10)
        if len(ends) < predictions.num_rows:
            ends = np.append(ends, len(self._text))
        self._starts, self._ends = np.append(0, ends[:-1] + 1), ends
        self._key = None if bare is None else b"{" + orjson.dumps(bare) + b":"

    def between(self, start: int, stop: int) -> bytes:
        """Return some rows, separated by commas."""
        if start == stop:
            return b""
        text = self._text[self._starts[start] : self._ends[stop - 1]]
        if self._key is None:
            return text.replace(b"\n", b",")
        return text[len(self._key) : -1].replace(b"}\n" + self._key, b",")


def refusal(status: int, message: str, id_: str, **more: Any) -> Answer:
    """Return the answer to a request that is refused as a whole, or that failed."""
    return Answer(status, orjson.dumps({"error": message, "code": _CODES[status], "request_id": id_, **more}))


_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}


def _rejected(rejected: pa.RecordBatch, first: int, rows: int, id_: str) -> Answer:
    found = _details(rejected, first)
    shown = "; ".join(f"[{d['index']}] {d['message']}" for d in found[:3])
    more = {"rejected": rejected.num_rows, "details": found[:MOST_DETAILS], "more": max(0, len(found) - MOST_DETAILS)}
    answer = refusal(400, f"{rejected.num_rows} of {rows} instances refused: {shown}", id_, **more)
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
