"""Server reflection of gRPC: the services of this server and their messages, for clients without their definitions."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.pipeline.serve.tensors.v2 import rpc
from beam_score.transforms.model.proto_fields import file_of

_TYPES = {
    "Predict": ("PredictRequest", "PredictResponse"),
    "Classify": ("ClassificationRequest", "ClassificationResponse"),
    "Regress": ("RegressionRequest", "RegressionResponse"),
    "MultiInference": ("MultiInferenceRequest", "MultiInferenceResponse"),
    "HandleReloadConfigRequest": ("ReloadConfigRequest", "ReloadConfigResponse"),
}
"""Messages of a method that are not named as the method."""

_APIS = {
    "PredictionService": ("predict", "classification", "regression", "inference", "get_model_metadata"),
    "ModelService": ("get_model_status", "model_management"),
}
"""Files of TensorFlow Serving's API with the messages of a service."""


def enable(server: Any, services: Mapping[str, Any]) -> None:
    """Let a server answer what services it has.

    Args:
      services: their methods, by the full name of the service.
    """
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    methods = {name: tuple(own) for name, own in services.items()}
    reflection.enable_server_reflection(names, server, _Lazy(methods))


class _Lazy:
    """A descriptor pool that is filled when it is first asked.

    Args:
      methods: names of methods, by the full name of their service.
    """

    def __init__(self, methods: Mapping[str, tuple[str, ...]]):
        self._methods = methods

    @functools.cached_property
    def _pool(self) -> DescriptorPool:
        pool = DescriptorPool()
        _add(pool, health_pb2.DESCRIPTOR)
        _add(pool, reflection_pb2.DESCRIPTOR)
        for service, methods in self._methods.items():
            package, _, name = service.rpartition(".")
            file = descriptor_pb2.FileDescriptorProto()
            if package == rpc.PACKAGE:
                file = file_of(rpc.FIELDS, package)
            else:
                apis = [messages(f"{api}_pb2").DESCRIPTOR for api in _APIS[name]]
                for api in apis:
                    _add(pool, api)
                file.name, file.package, file.syntax = f"{service.replace('.', '/')}.proto", package, "proto3"
                file.dependency.extend(api.name for api in apis)
            to = file.service.add(name=name)
            for method in methods:
                asked, answered = _TYPES.get(method, (f"{method}Request", f"{method}Response"))
                to.method.add(name=method, input_type=f".{package}.{asked}", output_type=f".{package}.{answered}")
            pool.Add(file)
        return pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def _add(pool: DescriptorPool, file: Any) -> None:
    """Add a file to a pool, after those that it imports."""
    for imported in file.dependencies:
        _add(pool, imported)
    pool.AddSerializedFile(file.serialized_pb)
