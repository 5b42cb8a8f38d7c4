"""OpenTelemetry: a span for each request with its stages, below the span of the client; by OTLP over HTTP."""

from __future__ import annotations

import http.server
import threading

import jobs
import serving
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def test_a_trace_a_request_with_its_stages(tmp_path, model):
    spans = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{collector.server_port}/"
    job = jobs.write_job(tmp_path, model("multiply"), serve={"name": "people", "traces": {"endpoint": url}})
    with serving.served(tmp_path, job, OTEL_EXPORTER_OTLP_COMPRESSION="none") as server:
        parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "X-Request-ID": "mine"}
        body = {"instances": [{"age": 1, "income": 1.5, "score": 0.5}]}
        assert server.post("/predict", body, headers=parent).status_code == 200
        assert server.end() == 0
    collector.shutdown()
    named = {span.name: span for span in spans}
    whole = named["predict people"]
    assert whole.trace_id.hex() == "a" * 32 and whole.parent_span_id.hex() == "b" * 16
    attributes = {one.key: one.value for one in whole.attributes}
    assert attributes["request.id"].string_value == "mine" and attributes["rows"].int_value == 1
    assert set(named) == {"predict people", "queue", "validate", "model", "encode"}
    for name in ("queue", "validate", "model", "encode"):
        assert named[name].parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= named[name].start_time_unix_nano <= named[name].end_time_unix_nano
