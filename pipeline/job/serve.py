"""The `serve` section of the job file: where and how the server listens, and its limits."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from beam_score.pipeline.job.rollout import Rollout
from beam_score.pipeline.job.versions import OtherModels, Versions
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_bytes, parse_seconds


class Limits(Strict):
    """Limits of a request.

    Attributes:
      body: bytes of a body, also after it is inflated.
      rows: rows of a request.
      request: seconds until the answer.
      requests: at the same time.
    """

    body: int = pydantic.Field(default=4 << 20, ge=1)
    rows: int = pydantic.Field(default=1024, ge=1)
    request: float = pydantic.Field(default=30.0, gt=0)
    requests: int = pydantic.Field(default=1000, ge=1)

    _bytes = pydantic.field_validator("body", mode="before")(parse_bytes)
    _seconds = pydantic.field_validator("request", mode="before")(parse_seconds)


class Batching(Strict):
    """How requests share calls of the model.

    Attributes:
      rows: maximum rows of a call.
    """

    rows: int = pydantic.Field(default=1024, ge=1)


class ServeSettings(Strict):
    """The server.

    Attributes:
      name: of the model in paths; None for the name of its folder.
      host: the address to listen on.
      port: of HTTP; 0 for any that is free.
      grpc_port: of gRPC; 0 for any that is free; None for none.
      default: the signature that is meant if a request names none; None for `contract`, or without a contract for the
        model's default.
      compat: `tfserving` for the leniencies and the texts of TensorFlow Serving.
      cors: whether pages of any origin may ask, by the headers of Cross-Origin Resource Sharing.
      drain: seconds that accepted requests have to be answered after SIGTERM.
      versions: see `Versions`.
      models: see `OtherModels`.
      rollout: see `Rollout`.
      admin: the path of the socket for `--revert`; None for one beside the ready file, if there is one.
    """

    name: str | None = pydantic.Field(default=None, pattern=r"^[^/:]+$")
    host: str = "127.0.0.1"
    port: int = pydantic.Field(default=8501, ge=0, le=65535)
    grpc_port: int | None = pydantic.Field(default=8500, ge=0, le=65535)
    default: str | None = None
    compat: Literal["tfserving"] | None = None
    cors: bool = False
    drain: float = pydantic.Field(default=25.0, ge=0)
    limits: Limits = Limits()
    batching: Batching = Batching()
    versions: Versions = Versions()
    models: OtherModels = OtherModels()
    rollout: Rollout = Rollout()
    admin: str | None = pydantic.Field(default=None, min_length=1)

    _seconds = pydantic.field_validator("drain", mode="before")(parse_seconds)

    @pydantic.field_validator("name", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
