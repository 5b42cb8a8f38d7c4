"""Everything that one version of a model answers: the contract, and the signatures of the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from beam_score.pipeline.serve.answering import tabular
from beam_score.pipeline.serve.answering.answer import PARTIAL, Answer, Request, refusal
from beam_score.pipeline.serve.answering.bodies import BadBody, Body, exact, quick
from beam_score.pipeline.serve.answering.rows import CONTRACT, Rows
from beam_score.pipeline.serve.answering.signature import Tensorial
from beam_score.pipeline.serve.tensors import examples
from beam_score.pipeline.serve.tensors.examples import METHODS, check_signature
from beam_score.pipeline.serve.tensors.predict import check_inputs, check_shapes, predict_request
from beam_score.pipeline.serve.tensors.read_json import (
    Refused,
    Tensors,
    check_rows,
    document,
    signature_name,
    tensors,
)
from beam_score.pipeline.serve.tensors.results import as_inference_result
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.pipeline.serve.tensors.v2 import rest, rpc
from beam_score.transforms.model.signature import DEFAULT_SIGNATURE, Signature


@dataclasses.dataclass(frozen=True)
class _Asked:
    """Rows and tensors of requests, by their positions.

    Attributes:
      bodies, columns: rows for the contract, as text and as tensors.
      own: tensors for the model's own signatures, by name.
    """

    bodies: dict[int, Body] = dataclasses.field(default_factory=dict)
    columns: dict[int, Tensors] = dataclasses.field(default_factory=dict)
    own: dict[str, dict[int, Tensors]] = dataclasses.field(default_factory=dict)


class Served:
    """Answers the batches of one version.

    Args:
      rows: answers requests for the contract; None without a job.
      signatures: answer requests for the model's own signatures, by name.
      default: the signature that is meant if a request names none.
      most_rows: of a request.
      lenient: see `Tensorial`.
      unusable: why further signatures of the model are not served, by name.
    """

    def __init__(
        self,
        rows: Rows | None,
        signatures: Mapping[str, Tensorial],
        default: str,
        most_rows: int = 1024,
        lenient: bool = False,
        unusable: Mapping[str, str] | None = None,
    ):
        self._unusable = unusable or {}
        self._rows, self._signatures, self._default = rows, signatures, default
        self._most_rows, self._lenient = most_rows, lenient

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers, in order. Requests for the same signature share calls."""
        answers: dict[int, Answer] = {}
        if self._rows is not None:
            answers = self._rows.answer_certain(requests, self._default, self._most_rows)
        certain = list(answers)
        asked = _Asked()
        requests = list(requests)
        for number, request in enumerate(requests):
            if number in answers:
                continue
            kind = request.kind
            try:
                if kind == "lines":
                    request = requests[number] = tabular.from_lines(request)
                if kind == "proto-multi":
                    answers[number] = self._multi(request)
                elif kind == "csv":
                    answers[number] = self._table(request)
                else:
                    self._read(number, request, asked)
            except (BadBody, Refused) as error:
                answers[number] = refusal(getattr(error, "status", 400), str(error), request.id)
        if asked.bodies and self._rows is not None:
            answers |= self._rows.answer(requests, asked.bodies)
        if asked.columns and self._rows is not None:
            answers |= self._rows.answer_columns(requests, asked.columns, self._most_rows)
        for name, some in asked.own.items():
            answers |= self._signatures[name].answer(requests, some)
        named = {number: name for name, some in asked.own.items() for number in some}
        for number, name in {**named, **dict.fromkeys((*certain, *asked.bodies, *asked.columns), CONTRACT)}.items():
            answers[number].signature = name
        return [
            tabular.rendered(answers[number], request) if request.options else answers[number]
            for number, request in enumerate(requests)
        ]

    def _table(self, request: Request) -> Answer:
        """Answer a request in CSV. Raises Refused."""
        if self._rows is None or self._default != CONTRACT:
            raise Refused("CSV is for rows of a contract, and the default signature is another: send JSON", 415)
        return self._rows.answer_table(request, self._most_rows)

    def _read(self, number: int, request: Request, asked: _Asked) -> None:
        """Read a request, and put it with those that it can share calls with. Raises BadBody, Refused."""
        if request.kind == "json" and (body := self._contract_body(request.body)) is not None:
            if PARTIAL in request.options:
                body = dataclasses.replace(body, partial=True)
            check_rows(body.rows, self._most_rows)
            asked.bodies[number] = body
            return
        name, found = self._tensors(request)
        if name == CONTRACT and self._rows is not None:
            asked.columns[number] = found
        else:
            check_rows(self._own(name).rows_of(found), self._most_rows)
            asked.own.setdefault(name, {})[number] = found

    def _tensors(self, request: Request) -> tuple[str, Tensors]:
        """Return the signature of a request and its tensors, which are checked, unless they are columns of the
        contract. Raises Refused."""
        kind, _, option = request.form.partition(";")
        protocol, _, method = kind.partition("-")
        if protocol == "json":
            asked = document(request.body, not self._lenient)
            name = signature_name(asked)
            if method:
                name = name or DEFAULT_SIGNATURE
                check_signature(self._own(name).signature, METHODS[method])
                return name, Tensors(examples.json_request(asked, not self._lenient), method=METHODS[method])
            name = name or self._default
            signature = self._own(name).signature
            found = tensors(asked, signature.inputs, not self._lenient)
            if not self._lenient:
                _check_own(found, signature, asked.get("on_error") == "row")
            return name, found
        if protocol == "proto" and method:
            task, feeds = examples.proto_request(request.body, METHODS[method])
            check_signature(self._own(task.signature).signature, task.method)
            return task.signature, Tensors(feeds, method=task.method)
        if kind == "proto":
            name, found = predict_request(request.body)
        elif kind == "v2-proto":
            name, found = rpc.infer_request(request.body)
        else:
            name, found = rest.infer_request(request.body, int(option or len(request.body)))
        name = name or self._default
        if name != CONTRACT or self._rows is None:
            signature = self._own(name).signature
            check_inputs(found, signature)
            if not self._lenient:
                _check_own(found, signature, found.partial)
        return name, found

    def _multi(self, request: Request) -> Answer:
        """Answer a request that calls several signatures with the same examples. Raises Refused."""
        tasks, feeds = examples.multi_request(request.body)
        for task in tasks:
            check_signature(self._own(task.signature).signature, task.method)
            check_rows(self._own(task.signature).rows_of(Tensors(feeds)), self._most_rows)
        response = messages("inference_pb2").MultiInferenceResponse()
        answer = refusal(400, "expected at least one task", request.id)
        for task in tasks:
            own = self._own(task.signature).answer([request], {0: Tensors(feeds, method=task.method)})
            answer = own[0]
            if answer.status != 200:
                return answer
            response.results.add().MergeFromString(as_inference_result(task.method, answer.body))
        return dataclasses.replace(answer, body=response.SerializeToString()) if tasks else answer

    def _own(self, name: str) -> Tensorial:
        if name in self._unusable:
            raise Refused(self._unusable[name])
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
        if (outer.signature or self._default) != CONTRACT:
            return None
        rows = outer.rows()
        if not self._lenient:
            self._rows.check_columns(rows)
        return rows


def _check_own(found: Tensors, signature: Signature, partial: bool) -> None:
    """Raise Refused if tensors are not of the shapes of a signature, or if its good rows are asked for."""
    if partial:
        raise Refused('"on_error": "row" is for the signature contract: the rows of others are not judged')
    check_shapes(found.feeds, signature)
