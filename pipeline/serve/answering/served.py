"""Everything that one version of a model answers: the contract, and the signatures of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from beam_score.pipeline.serve.answering.answer import Answer, Request, refusal
from beam_score.pipeline.serve.answering.bodies import BadBody, Body, exact, quick
from beam_score.pipeline.serve.answering.rows import CONTRACT, Rows
from beam_score.pipeline.serve.answering.signature import Tensorial
from beam_score.pipeline.serve.tensors.predict import check_inputs, predict_request
from beam_score.pipeline.serve.tensors.read_json import Refused, Tensors, document, signature_name, tensors
from beam_score.pipeline.serve.tensors.v2 import infer_request


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
        if self._rows is not None:
            answers = self._rows.answer_certain(requests, self._default, self._most_rows)
        bodies: dict[int, Body] = {}
        columns: dict[int, Tensors] = {}
        read: dict[str, dict[int, Tensors]] = {}
        for number, request in enumerate(requests):
            if number in answers:
                continue
            try:
                if request.form != "json":
                    if request.form == "proto":
                        name, found = predict_request(request.body)
                    else:
                        name, found = infer_request(document(request.body, strict=True))
                    name = name or self._default
                    if name == CONTRACT and self._rows is not None:
                        columns[number] = found
                    else:
                        own = self._own(name)
                        check_inputs(found, own.signature)
                        read.setdefault(name, {})[number] = found
                    continue
                body = self._contract_body(request.body)
                if body is not None and body.rows > self._most_rows:
                    message = f"{body.rows:,} rows, more than serve.limits.rows {self._most_rows:,}"
                    answers[number] = refusal(413, message, request.id)
                elif body is not None:
                    bodies[number] = body
                if body is not None:
                    continue
                asked = document(request.body, not self._lenient)
                name = signature_name(asked) or self._default
                own = self._own(name)
                read.setdefault(name, {})[number] = tensors(asked, own.signature.inputs, not self._lenient)
            except (BadBody, Refused) as error:
                answers[number] = refusal(getattr(error, "status", 400), str(error), request.id)
        if bodies and self._rows is not None:
            answers |= self._rows.answer(requests, bodies)
        if columns and self._rows is not None:
            answers |= self._rows.answer_columns(requests, columns, self._most_rows)
        for name, some in read.items():
            answers |= self._signatures[name].answer(requests, some)
        return [answers[number] for number in range(len(requests))]

    def _own(self, name: str) -> Tensorial:
        if name not in self._signatures:
            known = ", ".join((*self._signatures, *([CONTRACT] if self._rows else [])))
            raise Refused(f'Serving signature name: "{name[:100]}" not found in signature def: expected one of {known}')
        return self._signatures[name]

    def _contract_body(self, body: bytes) -> Body | None:
        """Return the rows of a request for the contract; None if it is for another signature. Raises BadBody."""
        if self._rows is None:
            return None
        if (found := quick(body)) is not None:
            return found if (found.signature or self._default) == CONTRACT else None
        outer = exact(body)
        return outer.rows() if (outer.signature or self._default) == CONTRACT else None
