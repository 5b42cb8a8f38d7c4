"""The process of one version of a model: loads it, and answers one batch after the other until its socket closes."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import socket
import sys
import traceback
from typing import Any

import orjson
import polars as pl

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.model_folder import parse_served
from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.answering.rows import CONTRACT, Rows
from beam_score.pipeline.serve.answering.served import Served
from beam_score.pipeline.serve.answering.signature import Tensorial
from beam_score.pipeline.serve.answering.stages import Clock, Timed
from beam_score.pipeline.serve.answering.verdicts import Verdicts
from beam_score.pipeline.serve.binding import default_of, steps_of
from beam_score.pipeline.serve.front.metadata import metadata, of_contract, of_signature
from beam_score.pipeline.serve.models.call_rows import swept_rows
from beam_score.pipeline.serve.models.frames import receive, send
from beam_score.pipeline.serve.models.warm_up import WARM_UP, warm_up_requests
from beam_score.transforms.model.copies import hashed_model, local_model
from beam_score.transforms.model.loading import ModelChanged, load_beside, load_once
from beam_score.transforms.model.model import Model
from beam_score.transforms.model.signature import (
    DEFAULT_SIGNATURE,
    SUPPORTED,
    ModelError,
    Signature,
    read_signatures,
    unsupported,
)
from beam_score.transforms.scoring.score import Scorer
from beam_score.transforms.stores.fetch import StoreFails
from beam_score.transforms.stores.local_file import ReadFails

_BUFFER_BYTES = 256 << 10
"""Read at once: usually a whole batch."""


def main() -> int:
    """Serve on the socket whose file descriptor is the only argument. The first frame says what to load."""
    # The front decides when this process ends: by closing the socket.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    stream = io.BufferedReader(connection.makefile("rb", buffering=0), _BUFFER_BYTES)
    first = receive(stream)
    if first is None:
        return 0
    clock = Clock()
    try:
        served, loaded = _load(first[0], clock)
    except Exception as error:
        message = "its folder has changed" if isinstance(error, ModelChanged) else str(error)
        passing = isinstance(error, StoreFails | ReadFails | OSError | MemoryError)
        send(connection, {"error": message, "passing": passing, "trace": traceback.format_exc()}, [])
        return 1
    send(connection, loaded, [])
    while (batch := receive(stream)) is not None:
        header, bodies = batch
        requests = [Request(id_, body, form) for (id_, form), body in zip(header["requests"], bodies, strict=True)]
        clock.start()
        answers, trace = _answers(served, requests)
        counts = [(a.status, a.received, a.predicted, a.rejected, a.reasons, a.signature) for a in answers]
        rows = sum(a.received for a in answers)
        said = {"trace": trace, "answers": counts, "stages": clock.stages(), "rows": rows}
        try:
            send(connection, said, [a.body for a in answers])
        except OSError:  # nobody waits for them: the front has closed the socket
            return 0
    return 0


def _load(config: dict[str, Any], clock: Clock) -> tuple[Served, dict[str, Any]]:
    """Load a version and warm it up; return what answers, and its hash, its metadata, and notes for the log."""
    job = parse_served(config["job"], config["name"])
    if (sha256 := config["sha256"]) is None:
        path, sha256 = hashed_model(config["path"])
    else:
        path = local_model(config["path"], sha256)
    lenient = job.serve.compat == "tfserving"
    signatures = read_signatures(path)
    default = default_of(job, signatures)
    rows, shown = None, {name: of_signature(signature) for name, signature in signatures.items()}
    if isinstance(job, Job):
        steps = steps_of(job, path, sha256)
        model = Scorer(steps.call).load()
        batch_rows, notes = _batch_rows(config, model)
        steps = dataclasses.replace(steps, call=dataclasses.replace(steps.call, batch_rows=batch_rows))
        shown[CONTRACT] = of_contract(steps.read.columns.columns, steps.outputs)
        rows, threads = Rows(Verdicts(steps, Timed(model, clock), job.input.csv)), steps.call.intra_op_threads
    else:
        threads = 1
        model = load_once(path, default, threads, sha256)
        batch_rows, notes = _batch_rows(config, model)
    unusable = {name: problem for name, one in signatures.items() if (problem := _why_not(one))}
    others = [one for name, one in signatures.items() if name not in unusable and name != model.signature.name]
    models = {model.signature.name: model} | load_beside(model, path, others, threads, sha256)
    own = {name: Tensorial(Timed(one, clock), lenient) for name, one in models.items()}
    said = metadata(config["name"], config["number"], {default: shown[default], **shown})
    served = Served(rows, own, default, job.serve.limits.rows, lenient, unusable)
    # As in TensorFlow Serving: a request that names no signature means `serving_default`, and no limit applies.
    if warm := _warm_up(Served(rows, own, DEFAULT_SIGNATURE, sys.maxsize, lenient=True, unusable=unusable), path):
        notes.append(f"{warm:,} warm-up requests answered")
    return served, {"sha256": sha256, "metadata": said, "batch_rows": batch_rows, "notes": notes}


def _batch_rows(config: dict[str, Any], model: Model) -> tuple[int, list[str]]:
    """Return the maximum rows of a call, and phrases on how they were found out."""
    if (rows := config["batch_rows"]) is not None:
        return rows, []
    rows, why = swept_rows(model)
    return rows, [why]


def _warm_up(served: Served, path: str) -> int:
    """Answer the requests of the warm-up file; return their number. Raises ModelError: one of them is not answered."""
    number = 0
    for number, request in enumerate(warm_up_requests(path), 1):
        (answer,), _ = _answers(served, [request])
        if answer.status != 200:
            raise ModelError(f"{WARM_UP}: record {number}: {orjson.loads(answer.body)['error']}")
    return number


def _why_not(signature: Signature) -> str | None:
    """Return why a signature cannot be served."""
    if problems := unsupported(signature):
        return problems[0]
    if not any(tensor.kind == "dense" and tensor.dtype in SUPPORTED for tensor in signature.outputs.values()):
        return f"signature {signature.name!r} has no output that is a dense tensor of numbers, bool or string"
    return None


def _answers(served: Served, requests: list[Request]) -> tuple[list[Answer], str | None]:
    """Return the answers; if anything goes wrong, that of each request alone, so that one costs no other."""
    try:
        return served.answer(requests), None
    except (Exception, pl.exceptions.PanicException):  # a panic is a BaseException
        if len(requests) == 1:
            trace = f"request {requests[0].id}\n{traceback.format_exc()}"
            return [refusal(500, "prediction failed", requests[0].id)], trace
    alone = [_answers(served, [request]) for request in requests]
    return [answer for (answer,), _ in alone], "\n".join(trace for _, trace in alone if trace) or None


if __name__ == "__main__":
    # Ending the interpreter with the threads of Arrow and TensorFlow takes a while, and can abort.
    os._exit(main())
