"""The Open Inference Protocol, version 2: the methods of its gRPC service, and the routes of HTTP apart from infer."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from beam_score.pipeline.serve.answering.answer import Answer, Request
from beam_score.pipeline.serve.front.models import Models, Served, State
from beam_score.pipeline.serve.front.requests import Refusal, named, version_number
from beam_score.pipeline.serve.tensors.protos import message
from beam_score.pipeline.serve.tensors.v2.rest import cut
from beam_score.pipeline.serve.tensors.v2.rpc import messages
from beam_score.transforms.model.proto_fields import message_class

SERVICE = "inference.GRPCInferenceService"

SERVER = {
    "name": "beam-score",
    "version": importlib.metadata.version("beam-score"),
    "extensions": ["binary_tensor_data"],
}
"""The metadata of the server."""

_OF_MODEL = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[0-9]+))?"
INFER = re.compile(_OF_MODEL + "/infer")
_READY, _MODEL = (re.compile(_OF_MODEL + end) for end in ("/ready", ""))
_LENGTH = b"inference-header-content-length"


def form_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the form of an infer request; see `Request`. Raises Refusal."""
    length = headers.get(_LENGTH)
    if length is None:
        return "v2"
    if not length.isdigit() or len(length) > 9:
        raise Refusal(400, "Inference-Header-Content-Length is not a number of bytes")
    return f"v2;{int(length)}"


def infer_answer(answer: Answer, served: Served) -> tuple[Answer, list[tuple[bytes, bytes]]]:
    """Return the answer to an infer request as it is sent, with the model's name and version, and its headers."""
    if answer.status != 200:
        return answer, []
    text, data = cut(answer.body)
    model = {"model_name": served.version.name, "model_version": str(served.version.number)}
    text = orjson.dumps(model)[:-1] + b"," + text[1:]
    headers = [(_LENGTH, b"%d" % len(text)), (b"content-type", b"application/octet-stream")] if data else []
    return dataclasses.replace(answer, body=text + data), headers


def described(models: Models, path: str) -> dict[str, Any]:
    """Return the answer to a route for health or metadata. Raises Refusal, NoSuchModel."""
    if path in ("/v2", "/v2/"):
        return SERVER
    if path == "/v2/health/live":
        return {"live": True}
    if path == "/v2/health/ready":
        if not models.ready:
            raise Refusal(503, "not ready")
        return {"ready": True}
    if found := _READY.fullmatch(path):
        served = models.find(**named(found))
        if served.state != State.AVAILABLE:
            raise Refusal(503, "not ready")
        return {"name": served.version.name, "ready": True}
    if found := _MODEL.fullmatch(path):
        return models.find(**named(found)).v2_metadata
    raise Refusal(404, "there is nothing at this path: see docs/serving.md for the routes")


@functools.lru_cache(256)
def _named(name: str, number: int) -> bytes:
    """Return the fields of a ModelInferResponse with the model's name and version."""
    return message(1, name.encode()) + message(2, str(number).encode())


@functools.cache
def _head_class() -> Any:
    """Return the class of what is read of a ModelInferRequest here: its tensors are the model process's."""
    fields = [("model_name", 1, "string"), ("model_version", 2, "string")]
    return message_class("Head", {"Head": fields}, "beam_score.infer_head")


class Inference:
    """The methods of the gRPC service.

    Args:
      models: what is served.
      answer: returns the body of the answer of a version to a request, or raises Refusal.
      parsed: returns the message of a class that bytes are, or raises Refusal.
    """

    def __init__(
        self,
        models: Models,
        answer: Callable[[Served, Request, Any], Awaitable[bytes]],
        parsed: Callable[[Any, bytes], Any],
    ):
        self._models, self._answer, self._parsed = models, answer, parsed

    def methods(self) -> dict[str, Callable[[bytes, str, Any], Awaitable[bytes]]]:
        """Return the methods, by name."""
        plain: dict[str, Callable[[Any], Mapping[str, Any]]] = {
            "ServerLive": lambda _: {"live": True},
            "ServerReady": lambda _: {"ready": self._models.ready},
            "ServerMetadata": lambda _: SERVER,
            "ModelReady": lambda request: {"ready": self._find(request).state == State.AVAILABLE},
            "ModelMetadata": lambda request: self._find(request).v2_metadata,
        }
        made = {name: functools.partial(self._described, name, describe) for name, describe in plain.items()}
        return {**made, "ModelInfer": self._infer}

    async def _described(
        self, name: str, describe: Callable[[Any], Mapping[str, Any]], body: bytes, id_: str, context: Any
    ) -> bytes:
        request = self._parsed(messages()[f"{name}Request"], body)
        return bytes(messages()[f"{name}Response"](**describe(request)).SerializeToString())

    async def _infer(self, body: bytes, id_: str, context: Any) -> bytes:
        request = self._parsed(_head_class(), body)
        served = self._models.find(request.model_name, version_number(request.model_version), id_=id_)
        answer = await self._answer(served, Request(id_, body, "v2-proto"), context)
        # Two messages, one after the other, are one message with the fields of both.
        return answer + _named(served.version.name, served.version.number)

    def _find(self, request: Any) -> Served:
        return self._models.find(request.name, version_number(request.version))
