"""gRPC: the services of TensorFlow Serving, of the Open Inference Protocol, and grpc.health.v1.

Messages are passed on as bytes: only the model_spec of a request is read here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.serve import Limits, ServeSettings
from beam_score.pipeline.serve.answering.answer import CODES, Request
from beam_score.pipeline.serve.front import faults, inference, reflection
from beam_score.pipeline.serve.front.guard import Guard, grpc_credentials
from beam_score.pipeline.serve.front.models import Models, NoSuchModel, Served
from beam_score.pipeline.serve.front.requests import Refusal, request_id
from beam_score.pipeline.serve.reports.request_log import RequestLog
from beam_score.pipeline.serve.tensors.protos import message, varint
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.transforms.model.proto_fields import message_class

SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService", inference.SERVICE)
"""Names under which the health of the server is asked."""

_SHORT_NAMES = ("PredictionService", "ModelService")
"""Names under which TensorFlow Serving gives its health."""

Method = Callable[[bytes, str, Any], Awaitable[bytes]]
"""Answers a message; takes its bytes, the id of the request and the context of the call."""

_MOST_MESSAGE = 1024

_HEALTH_S = 0.1
"""Seconds between two looks whether every model answers."""

_FIELDS = {
    "Head": [("model_spec", 1, "ModelSpec")],
    "MultiHead": [("tasks", 1, "*Head")],
    "ModelSpec": [
        ("name", 1, "string"),
        ("version", 2, "Int64Value"),
        ("signature_name", 3, "string"),
        ("version_label", 4, "string"),
    ],
    "Int64Value": [("value", 1, "int64")],
}


class Handlers:
    """The methods of the services.

    Args:
      models: what is served.
      limits: of a request.
      guard: admits requests; None for all.
      log: of the requests that reach no version.
    """

    def __init__(self, models: Models, limits: Limits, guard: Guard | None = None, log: RequestLog | None = None):
        self._models, self._limits, self._guard, self._log = models, limits, guard, log
        self._open = 0

    def methods(self) -> dict[str, dict[str, Method]]:
        """Return the methods of each service, by their names."""
        _, prediction, model, v2 = SERVICES
        return {
            prediction: {
                "Predict": functools.partial(self._predict, "proto"),
                "Classify": functools.partial(self._predict, "proto-classify"),
                "Regress": functools.partial(self._predict, "proto-regress"),
                "MultiInference": self._multi,
                "GetModelMetadata": self._metadata,
            },
            model: {"GetModelStatus": self._model_status, "HandleReloadConfigRequest": self._reload},
            v2: inference.Inference(self._models, self._answer, _parsed).methods(),
        }

    def services(self) -> list[Any]:
        """Return the services as gRPC takes them."""
        return [
            grpc.method_handlers_generic_handler(
                service,
                {
                    name: grpc.unary_unary_rpc_method_handler(functools.partial(self._call, method))
                    for name, method in own.items()
                },
            )
            for service, own in self.methods().items()
        ]

    async def _call(self, method: Method, body: bytes, context: Any) -> bytes:
        given = dict(context.invocation_metadata() or ())
        id_ = request_id(given.get("x-request-id", ""))
        context.set_trailing_metadata((("x-request-id", id_),))
        found: Sequence[Mapping[str, Any]] = ()
        counted = False
        try:
            if self._guard is not None:
                self._guard.check(given.get("authorization", "").encode())
            return await method(body, id_, context)
        except NoSuchModel as error:
            status, message = 404, str(error)
        except Refusal as error:
            status, message, found, counted = error.status, str(error), error.faults, error.counted
        if self._log is not None and not counted:
            self._log.refused(id_, "grpc", status)
        if len(message.encode()) > _MOST_MESSAGE:
            message = message.encode()[:_MOST_MESSAGE].decode(errors="ignore") + "...TRUNCATED"
        code = grpc.StatusCode[CODES[status]]
        if found:
            details = faults.status_of(code.value[0], message, found)
            context.set_trailing_metadata((("x-request-id", id_), (faults.METADATA, details)))
        await context.abort(code, message)
        raise AssertionError("abort raises")

    async def _predict(self, form: str, body: bytes, id_: str, context: Any) -> bytes:
        """Answer a request that begins with its model_spec.

        Args:
          form: see `Request`.
        """
        served = self._served(_spec(_parsed(_head_class("Head"), body)), id_)
        answer = await self._answer(served, Request(id_, body, form), context)
        # Two messages, one after the other, are one message with the fields of both.
        return answer + _named(served.version.name, served.version.number)

    async def _multi(self, body: bytes, id_: str, context: Any) -> bytes:
        tasks = _parsed(_head_class("MultiHead"), body).tasks
        models = [(spec.name, *_version(spec)) for spec in map(_spec, tasks)]
        if len(set(models)) != 1:
            problem = "All ModelSpecs in a MultiInferenceRequest must access the same model name, and version"
            raise Refusal(400, problem if models else "MultiInferenceRequest has no tasks")
        served = self._served(tasks[0].model_spec, id_)
        answer = await self._answer(served, Request(id_, body, "proto-multi"), context)
        response = messages("inference_pb2").MultiInferenceResponse.FromString(answer)
        for result in response.results:
            spec = result.model_spec
            spec.name, spec.version.value = served.version.name, served.version.number
        return response.SerializeToString()

    def _served(self, spec: Any, id_: str) -> Served:
        return self._models.find(spec.name, *_version(spec), id_)

    async def _answer(self, served: Served, request: Request, context: Any) -> bytes:
        """Return the body of an answer. Raises Refusal."""
        if (parent := dict(context.invocation_metadata() or ()).get("traceparent")) is not None:
            request = dataclasses.replace(request, traceparent=parent)
        left = context.time_remaining()
        seconds = self._limits.request if left is None else max(0.0, min(left, self._limits.request))
        if self._open >= self._limits.requests:
            served.refuse(503, dataclasses.replace(request, body=b""), "grpc")
            raise _counted(503, f"more than serve.limits.requests {self._limits.requests:,} at the same time")
        self._open += 1
        try:
            answer = await served.answer(request, seconds, "grpc")
        finally:
            self._open -= 1
        if answer.status != 200:
            said = orjson.loads(answer.body)
            raise _counted(answer.status, str(said["error"]), said.get("details", ()))
        return answer.body

    async def _metadata(self, body: bytes, id_: str, context: Any) -> bytes:
        api = messages("get_model_metadata_pb2")
        request = _parsed(api.GetModelMetadataRequest, body)
        spec = request.model_spec
        served = self._models.find(spec.name, *_version(spec))
        if not request.metadata_field:
            raise Refusal(400, "GetModelMetadataRequest must specify at least one metadata_field")
        if unknown := [field for field in request.metadata_field if field != "signature_def"]:
            raise Refusal(400, f"Metadata field {unknown[0][:100]} is not supported")
        response = api.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = served.version.name, served.version.number
        signatures = json_format.ParseDict(served.metadata["metadata"]["signature_def"], api.SignatureDefMap())
        response.metadata["signature_def"].Pack(signatures)
        return response.SerializeToString()

    async def _model_status(self, body: bytes, id_: str, context: Any) -> bytes:
        api = messages("get_model_status_pb2")
        spec = _parsed(api.GetModelStatusRequest, body).model_spec
        response = api.GetModelStatusResponse()
        for one in self._models.statuses(spec.name, *_version(spec)):
            json_format.ParseDict(one, response.model_version_status.add())
        return response.SerializeToString()

    async def _reload(self, body: bytes, id_: str, context: Any) -> bytes:
        api = messages("model_management_pb2")
        if self._models.replace is None:
            raise Refusal(501, "models are not replaced by clients of this server: see serve.models.reload")
        await self._models.replace(_parsed(api.ReloadConfigRequest, body).config, context.time_remaining())
        return api.ReloadConfigResponse().SerializeToString()


class Rpc:
    """The gRPC server.

    Args:
      models: what is served.
      settings: where, limits and TLS.
      port: to listen on; 0 for any that is free.
      guard, log: see `Handlers`.

    Raises:
      JobError: the address is not available.
    """

    def __init__(
        self,
        models: Models,
        settings: ServeSettings,
        port: int,
        guard: Guard | None = None,
        log: RequestLog | None = None,
    ):
        limits, host = settings.limits, settings.host
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limits.body),
                ("grpc.max_metadata_size", limits.headers),
                ("grpc.absolute_max_metadata_size", limits.headers),
                ("grpc.server_handshake_timeout_ms", int(1000 * limits.header_time)),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._models = models
        handlers = Handlers(models, limits, guard, log)
        self._server.add_generic_rpc_handlers(handlers.services())
        reflection.enable(self._server, handlers.methods())
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._listen(address, grpc_credentials(settings.tls))
            if settings.grpc_uds is not None:
                address = settings.grpc_uds
                self._listen(f"unix:{address}", None)
        except RuntimeError:
            problem = f"serve.grpc_port: {address} is not available: choose another, 0 for any that is free, or null"
            raise JobError([problem]) from None

    def _listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    async def start(self) -> None:
        """Answer calls; not ready yet."""
        await self.be(False)
        await self._server.start()

    async def be(self, ready: bool) -> None:
        """Set what health checks answer."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in (*SERVICES, *_SHORT_NAMES):
            await self._health.set(service, status)

    async def follow(self) -> None:
        """Let health checks say from now on whether every model answers, as they do at the start."""
        said = True
        while True:
            if said != self._models.ready:
                said = not said
                await self.be(said)
            await asyncio.sleep(_HEALTH_S)

    async def stop(self, seconds: float) -> None:
        """Take no more calls, and wait for those that were accepted."""
        await self._server.stop(seconds)


def _counted(status: int, message: str, found: Sequence[Mapping[str, Any]] = ()) -> Refusal:
    """Return a refusal that is in the account of its version."""
    error = Refusal(status, message, faults=found)
    error.counted = True
    return error


def _spec(head: Any) -> Any:
    """Return the model_spec of a request. Raises Refusal."""
    if not head.HasField("model_spec"):
        raise Refusal(400, "Missing ModelSpec")
    if not head.model_spec.name:
        raise Refusal(400, "ModelSpec has no name specified.")
    return head.model_spec


@functools.lru_cache(256)
def _named(name: str, number: int) -> bytes:
    """Return a model_spec with name and version, as the field of a response to Predict, Classify or Regress."""
    return message(2, message(1, name.encode()) + message(2, b"\x08" + varint(number)))


def _version(spec: Any) -> tuple[str | None, str | None]:
    """Return version and label of a model_spec."""
    return str(spec.version.value) if spec.HasField("version") else None, spec.version_label or None


def _parsed(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError:
        raise Refusal(400, "the message is damaged") from None


@functools.cache
def _head_class(name: str) -> Any:
    return message_class(name, _FIELDS, f"beam_score.heads.{name.lower()}")
