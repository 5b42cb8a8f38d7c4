"""Traces of requests for OpenTelemetry: a span each, with a span for each stage; sent by OTLP over HTTP."""

from __future__ import annotations

import time
from typing import Any

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.answering.answer import STAGES, Answer, Request
from beam_score.pipeline.serve.reports.accounts import Account

_NS = 1_000_000_000


class Traces:
    """Makes spans of requests that have been answered, and sends them from a thread of its own.

    Args:
      endpoint: the base URL of a collector; None for that of the environment variable OTEL_EXPORTER_OTLP_ENDPOINT.

    Raises:
      JobError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str | None):
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError as error:
            raise JobError([f"serve.traces needs the package {error.name}: pip install 'beam-score[otel]'"]) from None
        url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
        self._provider = TracerProvider(resource=Resource.create({"service.name": "beam-score"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("beam-score")
        self._parent = TraceContextTextMapPropagator()
        self._kind, self._inside = SpanKind.SERVER, set_span_in_context

    def observe(self, account: Account, request: Request, answer: Answer, protocol: str) -> None:
        """Make the spans of a request."""
        ended = time.time_ns()
        at = ended - int(answer.seconds * _NS)
        given = request.traceparent
        attributes: dict[str, Any] = {
            "request.id": request.id,
            "protocol": protocol,
            "model": account.model,
            "version": account.version,
            "signature": answer.signature,
            "code": answer.status,
            "rows": answer.received,
            "predicted": answer.predicted,
            "rejected": answer.rejected,
            "batch.rows": answer.batch_rows,
        }
        span = self._tracer.start_span(
            f"predict {account.model}",
            context=self._parent.extract({"traceparent": given}) if given else None,
            kind=self._kind,
            attributes=attributes,
            start_time=at,
        )
        inside = self._inside(span)
        for name, seconds in zip(STAGES, answer.stages, strict=False):
            stage = self._tracer.start_span(name, context=inside, start_time=at)
            at += int(seconds * _NS)
            stage.end(at)
        span.end(ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
