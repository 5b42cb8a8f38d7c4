"""The metrics of TensorFlow Serving under its names, for dashboards that exist (servables/tensorflow/util.cc).

Its counters have no `_total`, which prometheus-client would add; so the text is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from beam_score.pipeline.serve.answering.answer import CODES
from beam_score.pipeline.serve.reports.accounts import Accounts, Buckets

_APIS = {"rest": ("predict", "REST"), "grpc": ("Predict", "GRPC")}
"""Protocol to the labels API and entrypoint."""


def as_text(accounts: Accounts) -> bytes:
    """Return the metrics of all models in the text format of Prometheus."""
    counts: Counter[tuple[str, str]] = Counter()
    latency: dict[tuple[str, str], Buckets] = {}
    runtime: dict[str, Buckets] = {}
    for account in accounts:
        for (_, _, status), count in account.requests.items():
            counts[account.model, CODES.get(status, "OK")] += count
        for protocol, buckets in account.latency_us.items():
            key = account.model, protocol
            latency[key] = latency[key] + buckets if key in latency else buckets
        own = account.runtime_us
        runtime[account.model] = runtime[account.model] + own if account.model in runtime else own
    lines = ["# TYPE :tensorflow:serving:request_count counter"]
    for (model, code), count in counts.items():
        lines.append(f":tensorflow:serving:request_count{_labels(model_name=model, status=code)} {count}")
    lines.append("# TYPE :tensorflow:serving:request_latency histogram")
    for (model, protocol), buckets in latency.items():
        if protocol not in _APIS:  # copies of requests, for a shadow
            continue
        api, entrypoint = _APIS[protocol]
        labels = {"model_name": model, "API": api, "entrypoint": entrypoint}
        lines += _histogram(":tensorflow:serving:request_latency", labels, buckets)
    lines.append("# TYPE :tensorflow:serving:runtime_latency histogram")
    for model, buckets in runtime.items():
        labels = {"model_name": model, "API": "Predict", "runtime": "TF1"}
        lines += _histogram(":tensorflow:serving:runtime_latency", labels, buckets)
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, labels: Mapping[str, str], buckets: Buckets) -> Iterator[str]:
    counts, total = buckets.as_prometheus()
    for bound, count in counts:
        le = bound if bound == "+Inf" else f"{float(bound):g}"
        yield f"{name}_bucket{_labels(**labels, le=le)} {count:.0f}"
    yield f"{name}_sum{_labels(**labels)} {total}"
    yield f"{name}_count{_labels(**labels)} {counts[-1][1]:.0f}"


def _labels(**labels: str) -> str:
    escaped = {n: v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for n, v in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
