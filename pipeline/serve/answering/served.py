"""Everything that one version of a model answers: the contract, and the signatures of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.answering.bodies import BadBody, Body, exact, quick
from beam_score.pipeline.serve.answering.rows import Rows
from beam_score.pipeline.serve.answering.signature import Tensorial
from beam_score.pipeline.serve.tensors.read_json import Refused, document, signature_name

CONTRACT = "contract"
"""The name of the signature that is the job's contract."""


class Served:
    """Answers the batches of one version.

    Args:
      rows: answers requests for the contract; None without a job.
      signatures: answer requests for the model's own signatures, by name.
      default: the signature that is meant if a request names none.
      most_rows: of a request.
      lenient: see `Tensorial`.
    """

    def __init__(
        self,
        rows: Rows | None,
        signatures: Mapping[str, Tensorial],
        default: str,
        most_rows: int = 1024,
        lenient: bool = False,
    ):
        self._rows, self._signatures, self._default = rows, signatures, default
        self._most_rows, self._lenient = most_rows, lenient

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers, in order. Requests for the same signature share calls."""
        answers: dict[int, Answer] = {}
        bodies: dict[int, Body] = {}
        documents: dict[str, dict[int, Mapping[str, Any]]] = {}
        for number, request in enumerate(requests):
            try:
                body = self._contract_body(request.body)
                if body is not None and body.rows > self._most_rows:
                    message = f"{body.rows:,} rows, more than serve.limits.rows {self._most_rows:,}"
                    answers[number] = refusal(413, message, request.id)
                elif body is not None:
                    bodies[number] = body
                if body is not None:
                    continue
                read = document(request.body, not self._lenient)
                name = signature_name(read) or self._default
                if name not in self._signatures:
                    answers[number] = refusal(400, _unknown(name, (*self._signatures, CONTRACT)), request.id)
                else:
                    documents.setdefault(name, {})[number] = read
            except (BadBody, Refused) as error:
                answers[number] = refusal(getattr(error, "status", 400), str(error), request.id)
        if bodies and self._rows is not None:
            answers |= self._rows.answer(requests, bodies)
        for name, own in documents.items():
            answers |= self._signatures[name].answer(requests, own)
        return [answers[number] for number in range(len(requests))]

    def _contract_body(self, body: bytes) -> Body | None:
        """Return the rows of a request for the contract; None if it is for another signature. Raises BadBody."""
        if self._rows is None:
            return None
        if (found := quick(body)) is not None:
            return found if (found.signature or self._default) == CONTRACT else None
        outer = exact(body)
        return outer.rows() if (outer.signature or self._default) == CONTRACT else None


def _unknown(name: str, known: Sequence[str]) -> str:
    return f'Serving signature name: "{name[:100]}" not found in signature def: expected one of {", ".join(known)}'
