"""Answers to requests for the contract: predictions of rows, or what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.pipeline.serve.answering.answer import PARTIAL, Answer, Request, refusal
from beam_score.pipeline.serve.answering.bodies import BadBody, Body, exact
from beam_score.pipeline.serve.answering.certain import OTHER, row_texts
from beam_score.pipeline.serve.answering.direct import lines
from beam_score.pipeline.serve.answering.lines import Lines, as_columns
from beam_score.pipeline.serve.answering.verdicts import Verdicts, in_order
from beam_score.pipeline.serve.tensors.columns import check_known, prediction_tensors
from beam_score.pipeline.serve.tensors.predict import check_wanted
from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors
from beam_score.pipeline.serve.tensors.response import written
from beam_score.transforms.rows.block import Block

CONTRACT = "contract"
"""The name of the signature that is the job's contract."""

MOST_DETAILS = 100
"""Rejected rows that an answer describes."""

_MOST_KNOWN = 1000
"""Verdicts that are remembered."""


@dataclasses.dataclass(frozen=True)
class _Suspects:
    """The rows of a request that may be at fault.

    Attributes:
      rows: their numbers, ascending.
      faults: of each; see `CertainRows.columns_of`.
      of: the number of all rows of the request.
    """

    rows: list[int]
    faults: list[int]
    of: int


class Rows:
    """Answers batches of requests to one version of a model.

    Args:
      verdicts: of the job and the loaded model.
    """

    def __init__(self, verdicts: Verdicts):
        self._verdicts = verdicts
        self._names = names = verdicts.schema.names
        self._bare = names[0] if len(names) == 1 else None
        self._known: dict[int, list[dict[str, Any]]] = {}  # all faults of a row; see `CertainRows.columns_of`

    def answer_certain(self, requests: Sequence[Request], default: str, most_rows: int) -> dict[int, Answer]:
        """Return the answers to those requests in JSON whose rows are certainly good, or certainly refused, by their
        positions: most of them, in a fraction of the time that `answer` takes.

        Args:
          default: the signature that is meant if a request names none.
          most_rows: of a request.
        """
        certain = self._verdicts.certain
        read: dict[int, list[dict[str, Any]]] = {}
        for number, request in enumerate(requests):
            if certain is not None and request.form == "json":
                rows = certain.rows_of(request.body, CONTRACT, default)
                if rows is not None and len(rows) <= most_rows:
                    read[number] = rows
        if certain is None or not read:
            return {}
        columns, faults = certain.columns_of([row for rows in read.values() for row in rows])
        answers: dict[int, Answer] = {}
        if faults.any():
            suspects, good, end = {}, np.ones(len(faults), bool), 0
            for number, rows in list(read.items()):
                start, end = end, end + len(rows)
                own = faults[start:end]
                if own.any():
                    good[start:end] = False
                    at = np.flatnonzero(own)
                    suspects[number] = _Suspects(at.tolist(), own[at].tolist(), len(read.pop(number)))
            columns = {name: column[good] for name, column in columns.items()}
            answers = self._refused(requests, suspects)
        count = sum(len(rows) for rows in read.values())
        if not count or (fields := self._verdicts.predict(columns, count)) is None:
            return answers
        made, end = lines(fields), 0
        for number, rows in read.items():
            start, end = end, end + len(rows)
            body = b'{"predictions":[' + b",".join(made[start:end]) + b"]}"
            answers[number] = Answer(200, body, len(rows), len(rows))
        return answers

    def _refused(self, requests: Sequence[Request], suspects: Mapping[int, _Suspects]) -> dict[int, Answer]:
        """Return the answers to requests of which all suspects are refused, by their positions."""
        bodies, found = dict[int, Body](), dict[int, list[list[dict[str, Any]]]]()
        for number, own in suspects.items():
            if self._known.keys() >= set(own.faults):
                found[number] = [self._known[fault] for fault in own.faults]
            elif (texts := row_texts(requests[number].body, own.of)) is not None:
                bodies[number] = Body(b"\n".join([texts[row] for row in own.rows]), len(own.rows))
        if bodies:
            found |= self._errors(bodies)
        answers = {}
        for number, errors in found.items():
            own = suspects[number]
            if len(errors) == len(own.rows):
                answers[number] = _rejected(Letters(own.rows, errors), own.of, requests[number].id)
                if number in bodies:
                    new = {f: e for f, e in zip(own.faults, errors, strict=True) if not f & OTHER}
                    if len(self._known) + len(new) <= _MOST_KNOWN:
                        self._known |= new
        return answers

    def _errors(self, bodies: Mapping[int, Body]) -> dict[int, list[list[dict[str, Any]]]]:
        """Return all faults of the refused rows of each request, by its position."""
        judged, first = self._verdicts.judge(list(bodies.values()))
        rejected = in_order(judged.rejected)
        ends = np.searchsorted(rejected["row"].to_numpy(), first).tolist()
        errors = rejected["errors"].to_pylist()
        return {number: errors[start:stop] for number, start, stop in zip(bodies, ends, ends[1:], strict=False)}

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
        answers = self._certain_columns(requests, read, most_rows)
        alike: dict[pa.Schema, dict[int, pa.RecordBatch]] = {}
        for number, tensors in read.items():
            if number in answers:
                continue
            try:
                check_wanted(tensors, self._names)
                batch = self._verdicts.columns_of(tensors.feeds, most_rows)
                alike.setdefault(batch.schema, {})[number] = batch
            except Refused as error:
                more = {"details": error.faults, "more": 0} if error.faults else None
                answers[number] = refusal(error.status, str(error), requests[number].id, more)
        for batches in alike.values():
            judged, first = self._verdicts.judge_columns(list(batches.values()))
            self._finish(requests, {number: read[number] for number in batches}, judged, first, answers)
        return answers

    def _certain_columns(
        self, requests: Sequence[Request], read: Mapping[int, Tensors], most_rows: int
    ) -> dict[int, Answer]:
        """Return the answers to those requests whose columns are certainly good; see `answer_columns`."""
        certain, names = self._verdicts.certain, set(self._names)
        good = {}
        for number, tensors in read.items():
            known = len(names.intersection(tensors.wanted)) == len(tensors.wanted)  # and none of them twice
            if known and certain is not None and certain.are_good(tensors.feeds, most_rows):
                good[number] = tensors
        if not good:
            return {}
        feeds = [tensors.feeds for tensors in good.values()]
        columns = feeds[0] if len(feeds) == 1 else {n: np.concatenate([own[n] for own in feeds]) for n in feeds[0]}
        sizes = [len(next(iter(own.values()))) for own in feeds]
        if (fields := self._verdicts.predict(columns, sum(sizes))) is None:
            return {}
        made, end, answers = {field.name: field.tensor() for field in fields}, 0, {}
        for (number, tensors), rows in zip(good.items(), sizes, strict=True):
            own = {name: made[name][end : end + rows] for name in tensors.wanted or made}
            end += rows
            answers[number] = _tensorial(requests[number], tensors, own, rows)
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
        made = Lines(scored.predictions if by_row else scored.predictions.slice(0, 0), self._bare)
        at = np.searchsorted(scored.rows, first)
        bad = np.searchsorted(scored.rejected["row"].to_numpy(), first)
        for k, (number, body) in enumerate(read.items()):
            rows = int(first[k + 1] - first[k])
            own = scored.rejected.slice(bad[k], bad[k + 1] - bad[k])
            if not own.num_rows:
                done = scored.predictions.slice(at[k], at[k + 1] - at[k])
                answers[number] = self._good(requests[number], body, done, made.between(at[k], at[k + 1]))
                continue
            numbers = (own["row"].to_numpy() - first[k]).tolist()
            letters = Letters(numbers, own["errors"].to_pylist())
            if not partial[k]:
                answers[number] = _rejected(letters, rows, requests[number].id)
            elif isinstance(body, Tensors):
                done = scored.predictions.slice(at[k], at[k + 1] - at[k])
                answers[number] = _partial_tensors(requests[number], body, done, letters, rows)
            else:
                each = [made.between(i, i + 1) for i in range(at[k], at[k + 1])]
                answers[number] = _partial(each, scored.rows[at[k] : at[k + 1]] - first[k], letters, rows)

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


def _tensorial(request: Request, asked: Tensors, made: Mapping[str, np.ndarray], rows: int) -> Answer:
    try:
        return Answer(200, written(request.kind, made, CONTRACT, asked), rows, rows)
    except Refused as error:
        return refusal(error.status, str(error), request.id)


@dataclasses.dataclass(frozen=True)
class Letters:
    """The dead letters of a request.

    Attributes:
      rows: their rows in the request, ascending.
      errors: all faults of each.
    """

    rows: list[int]
    errors: list[list[dict[str, Any]]]

    @property
    def counts(self) -> list[tuple[str, str, int]]:
        """Their reason codes and columns, with the number of each."""
        found = Counter((first["reason"], first["column"] or "") for first, *_ in self.errors)
        return [(reason, column, count) for (reason, column), count in found.items()]

    def details(self) -> list[dict[str, Any]]:
        """Return all faults with their rows."""
        return [{"index": row, **fault} for row, faults in zip(self.rows, self.errors, strict=True) for fault in faults]


def _rejected(letters: Letters, rows: int, id_: str) -> Answer:
    """Return the answer to a request of some rows that is refused."""
    found, count = letters.details(), len(letters.rows)
    shown = "; ".join(f"[{d['index']}] {d['message']}" for d in found[:3])
    more = {"rejected": count, "details": found[:MOST_DETAILS], "more": max(0, len(found) - MOST_DETAILS)}
    answer = refusal(400, f"{count} of {rows} instances refused: {shown}", id_, more)
    return dataclasses.replace(answer, received=rows, rejected=rows, reasons=letters.counts)


def _partial(done: list[bytes], at: np.ndarray, letters: Letters, rows: int) -> Answer:
    values = [b"null"] * rows
    for line, row in zip(done, at.tolist(), strict=True):
        values[row] = line
    found, count = letters.details(), len(letters.rows)
    counts = {"received": rows, "predicted": len(done), "rejected": count}
    rest = orjson.dumps({"errors": found[:MOST_DETAILS], "more": max(0, len(found) - MOST_DETAILS), "counts": counts})
    body = b'{"predictions":[' + b",".join(values) + b"]," + rest[1:]
    return Answer(200, body, rows, len(done), count, reasons=letters.counts)


def _partial_tensors(request: Request, asked: Tensors, done: pa.RecordBatch, letters: Letters, rows: int) -> Answer:
    """Return the predictions of the good rows as tensors, and what is wrong with the others as parameters."""
    wanted = done.select(list(asked.wanted)) if asked.wanted else done
    found, count = letters.details(), len(letters.rows)
    parameters = {
        "rejected": count,
        "rejected_rows": orjson.dumps(letters.rows).decode(),
        "errors": orjson.dumps(found[:MOST_DETAILS]).decode(),
    }
    try:
        body = written(request.kind, prediction_tensors(wanted), CONTRACT, asked, parameters)
    except Refused as error:
        return refusal(error.status, str(error), request.id)
    return Answer(200, body, rows, done.num_rows, count, reasons=letters.counts)


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
