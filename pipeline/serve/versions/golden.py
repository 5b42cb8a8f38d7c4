"""Golden rows: a new version answers them as the version before does, or it does not take over."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.answering.rows import CONTRACT
from beam_score.pipeline.serve.front.models import Served
from beam_score.pipeline.serve.models.process import LoadFailed, ProcessDied
from beam_score.pipeline.serve.versions.agree import values_agree

_log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Rows of a call, so that no client waits long for the version that answers."""


def golden_rows(path: str) -> list[bytes]:
    """Return the rows of a file, each as JSON. Raises JobError."""
    try:
        with open(path, "rb") as file:
            rows = [line for line in file.read().splitlines() if line.strip()]
    except OSError as error:
        raise JobError([f"serve.rollout.compare: {path}: {error.strerror}"]) from None
    if not rows:
        raise JobError([f"serve.rollout.compare: {path} has no rows"])
    for number, row in enumerate(rows, 1):
        try:
            orjson.loads(row)
        except orjson.JSONDecodeError as error:
            raise JobError([f"serve.rollout.compare: {path}: row {number} is not JSON: {error}"]) from None
    return rows


async def compare(job: Job | ModelFolder, new: Served, old: Served | None) -> None:
    """Let a version that is loaded answer the golden rows of its model.

    Args:
      old: the version that answers now; None before the first.

    Raises:
      LoadFailed: the new version does not answer them, or not as the old one does.
    """
    rollout, number = job.serve.rollout, new.version.number
    if rollout.compare is None:
        return
    try:
        rows = await asyncio.to_thread(golden_rows, rollout.compare)
    except JobError as error:
        raise LoadFailed(f"version {number}: {error}", passing=True) from None
    differ = list[int]()
    for at in range(0, len(rows), _AT_ONCE):
        request = Request("golden-rows", _body(job, rows[at : at + _AT_ONCE]))
        answer = await _asked(new, request)
        if old is not None:
            differ += (at + i for i in _differences(answer, await _asked(old, request), rollout.tolerance))
    if differ and old is not None:
        raise LoadFailed(
            f"version {number} differs from version {old.version.number} on {len(differ):,} of {len(rows):,} golden "
            f"rows, by more than serve.rollout.tolerance {rollout.tolerance:g}; first on row {differ[0] + 1:,}"
        )
    like = "" if old is None else f" as version {old.version.number} does"
    _log.info("%s: version %d answers all %d golden rows%s", new.version.name, number, len(rows), like)


async def _asked(served: Served, request: Request) -> Answer:
    number = served.version.number
    try:
        answer = await served.ask(request)
    except ProcessDied:
        raise LoadFailed(f"the process of version {number} ended on golden rows", passing=True) from None
    if answer.status != 200:
        raise LoadFailed(f"version {number} does not answer golden rows: {orjson.loads(answer.body)['error']}")
    return answer


def _body(job: Job | ModelFolder, rows: Sequence[bytes]) -> bytes:
    more = f'"signature_name":"{CONTRACT}","on_error":"row",' if isinstance(job, Job) else ""
    return b"{" + more.encode() + b'"instances":[' + b",".join(rows) + b"]}"


def _differences(one: Answer, other: Answer, tolerance: float) -> Iterator[int]:
    """Yield the positions of the rows on which two answers differ."""
    first, second = orjson.loads(one.body), orjson.loads(other.body)
    pairs = itertools.zip_longest(first["predictions"], second["predictions"])
    for at, (new, old) in enumerate(pairs):
        if not (values_agree(new, old, tolerance) and _errors(first, at) == _errors(second, at)):
            yield at


def _errors(answer: Any, at: int) -> list[tuple[str, str]]:
    return [(error["column"], error["reason"]) for error in answer.get("errors", ()) if error["index"] == at]
