"""The process of one version of a model: loads it, and answers one batch after the other until its socket closes."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import traceback
from typing import Any

from beam_score.pipeline.job.job import Job, parse_job
from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.answering.rows import CONTRACT, Rows
from beam_score.pipeline.serve.answering.served import Served
from beam_score.pipeline.serve.answering.signature import Tensorial
from beam_score.pipeline.serve.answering.verdicts import Verdicts
from beam_score.pipeline.serve.binding import steps_of
from beam_score.pipeline.serve.models.frames import receive, send
from beam_score.transforms.scoring.score import Scorer

_BUFFER_BYTES = 256 << 10
"""Read at once: usually a whole batch."""


def main() -> int:
    """Serve on the socket whose file descriptor is the only argument. The first frame says what to load."""
    # The front decides when this process ends: by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    stream = io.BufferedReader(connection.makefile("rb", buffering=0), _BUFFER_BYTES)
    first = receive(stream)
    if first is None:
        return 0
    try:
        served = _load(first[0])
    except Exception as error:
        send(connection, {"error": str(error), "trace": traceback.format_exc()}, [])
        return 1
    send(connection, {}, [])
    while (batch := receive(stream)) is not None:
        header, bodies = batch
        requests = [Request(id_, body, form) for (id_, form), body in zip(header["requests"], bodies, strict=True)]
        answers, trace = _answers(served, requests)
        counts = [(a.status, a.received, a.predicted, a.rejected, a.reasons) for a in answers]
        send(connection, {"trace": trace, "answers": counts}, [a.body for a in answers])
    return 0


def _load(config: dict[str, Any]) -> Served:
    job: Job = parse_job(config["job"], config["name"])
    steps = steps_of(job, config["path"], config["sha256"])
    model, lenient = Scorer(steps.call).load(), job.serve.compat == "tfserving"
    own = {model.signature.name: Tensorial(model, lenient)}
    return Served(Rows(Verdicts(steps, model)), own, CONTRACT, job.serve.limits.rows, lenient)


def _answers(served: Served, requests: list[Request]) -> tuple[list[Answer], str | None]:
    """Return the answers; if anything goes wrong, that of each request alone, so that one costs no other."""
    try:
        return served.answer(requests), None
    except Exception:
        if len(requests) == 1:
            trace = f"request {requests[0].id}\n{traceback.format_exc()}"
            return [refusal(500, "prediction failed", requests[0].id)], trace
    alone = [_answers(served, [request]) for request in requests]
    return [answer for (answer,), _ in alone], "\n".join(trace for _, trace in alone if trace) or None


if __name__ == "__main__":
    # Ending the interpreter with the threads of Arrow and TensorFlow takes a while, and can abort.
    os._exit(main())
