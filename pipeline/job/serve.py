"""The `serve` section of the job file: where and how the server listens, and its limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from beam_score.pipeline.job.rollout import Rollout
from beam_score.pipeline.job.versions import OtherModels, Versions, seconds_or_0
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_bytes, parse_seconds


class Limits(Strict):
    """Limits of a request.

    Attributes:
      body: bytes of a body, also after it is inflated.
      rows: rows of a request.
      request: seconds until the answer.
      requests: at the same time.
      headers: bytes of a header of HTTP, or of the metadata of gRPC.
      header_time, body_time: seconds that a client has to send its header and its body.
      connections: of HTTP.
    """

    body: int = pydantic.Field(default=4 << 20, ge=1)
    rows: int = pydantic.Field(default=1024, ge=1)
    request: float = pydantic.Field(default=30.0, gt=0)
    requests: int = pydantic.Field(default=1000, ge=1)
    headers: int = pydantic.Field(default=16 << 10, ge=1)
    header_time: float = pydantic.Field(default=10.0, gt=0)
    body_time: float = pydantic.Field(default=30.0, gt=0)
    connections: int = pydantic.Field(default=1000, ge=1)

    _bytes = pydantic.field_validator("body", "headers", mode="before")(parse_bytes)
    _seconds = pydantic.field_validator("request", "header_time", "body_time", mode="before")(parse_seconds)


class Batching(Strict):
    """How requests share calls of the model.

    Attributes:
      rows: maximum rows of a call; `auto` for `model.batch_rows`, or if that is `auto`, for what a sweep chooses.
      window_ms: milliseconds that a request may wait for company although the model is free.
    """

    rows: Annotated[int, pydantic.Field(ge=1)] | Literal["auto"] = "auto"
    window_ms: float = pydantic.Field(default=0.0, ge=0)


class Tls(Strict):
    """TLS of HTTP and gRPC.

    Attributes:
      certificate, key: files in PEM; None for no TLS.
      client_ca: a file in PEM; clients must have a certificate of this authority.
    """

    certificate: str | None = None
    key: str | None = None
    client_ca: str | None = None

    @pydantic.model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.certificate is None) != (self.key is None) or (self.client_ca is not None and self.key is None):
            raise ValueError("expected a certificate and its key, which client_ca needs, too")
        return self


class Token(Strict):
    """The source of the bearer token: one of the two, or none for no token.

    Attributes:
      file: whose content it is.
      env: an environment variable.
    """

    file: str | None = pydantic.Field(default=None, min_length=1)
    env: str | None = pydantic.Field(default=None, min_length=1)

    @pydantic.model_validator(mode="after")
    def _one(self) -> Token:
        if self.file is not None and self.env is not None:
            raise ValueError("expected {file: PATH} or {env: NAME}, not both")
        return self


class RequestLogging(Strict):
    """The log lines of requests.

    Attributes:
      sample: the share of requests that are logged.
    """

    sample: float = pydantic.Field(default=1.0, ge=0, le=1)


class TraceSettings(Strict):
    """The destination of traces.

    Attributes:
      endpoint: the base URL of a collector of OTLP over HTTP; None for none, unless OTEL_EXPORTER_OTLP_ENDPOINT is set.
    """

    endpoint: str | None = None

    @pydantic.field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError(f"{value!r} is not the URL of a collector: expected http:// or https:// at its beginning")
        return value


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
      drain_delay: seconds after SIGTERM in which new requests are still answered, for load balancers.
      uds, grpc_uds: paths of Unix domain sockets, which are served beside the ports.
      tls: of HTTP and gRPC.
      token: that requests must have.
      monitoring: the path of the metrics under the names of TensorFlow Serving; None for none.
      log: see `RequestLogging`.
      traces: see `TraceSettings`.
      versions: see `Versions`.
      models: see `OtherModels`.
      rollout: see `Rollout`.
      admin: the path of the socket for `--revert`; None for one beside the ready file, if there is one.
    """

    name: str | None = None
    host: str = "127.0.0.1"
    port: int = pydantic.Field(default=8501, ge=0, le=65535)
    grpc_port: int | None = pydantic.Field(default=8500, ge=0, le=65535)
    default: str | None = None
    compat: Literal["tfserving"] | None = None
    cors: bool = False
    drain: float = pydantic.Field(default=25.0, ge=0)
    drain_delay: float = pydantic.Field(default=0.0, ge=0)
    uds: str | None = None
    grpc_uds: str | None = None
    tls: Tls = Tls()
    token: Token = Token()
    monitoring: str | None = "/monitoring/prometheus/metrics"
    log: RequestLogging = RequestLogging()
    traces: TraceSettings = TraceSettings()
    limits: Limits = Limits()
    batching: Batching = Batching()
    versions: Versions = Versions()
    models: OtherModels = OtherModels()
    rollout: Rollout = Rollout()
    admin: str | None = pydantic.Field(default=None, min_length=1)

    _seconds = pydantic.field_validator("drain", "drain_delay", mode="before")(seconds_or_0)

    @pydantic.field_validator("name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and (not value or set("/:") & set(value)):
            raise ValueError(f"{value!r} is not a name in paths: expected text without / and :")
        return value

    @pydantic.field_validator("monitoring")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            raise ValueError(f"{value!r} is not a path of HTTP: expected text that begins with /")
        return value

    @pydantic.field_validator("name", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value
