"""Counts of rows by their outcome, for each version. The sums close at every moment:

    received = predicted + rejected + failed + shed + in flight

The front does not parse bodies: a request whose rows are not known, or not yet, counts as one row.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from beam_score.pipeline.serve.answering.answer import Answer

OUTCOMES = ("predicted", "rejected", "failed", "shed")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)


class Buckets:
    """A histogram.

    Args:
      bounds: upper bounds of its buckets, ascending.
    """

    def __init__(self, bounds: tuple[float, ...]):
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        at = 0
        while at < len(self._bounds) and value > self._bounds[at]:
            at += 1
        self._counts[at] += 1
        self._sum += value

    def as_prometheus(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulative counts by upper bound, and the sum."""
        total, made = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            made.append((bound, float(total)))
        return made, self._sum


@dataclasses.dataclass
class Account:
    """The rows and requests of one version.

    Attributes:
      in_flight: requests that are not answered.
      rows: rows by outcome.
      reasons: rejected rows by reason code.
      requests: requests by (protocol, HTTP status).
      seconds: of requests.
      batch_rows: of the calls that requests shared.
    """

    in_flight: int = 0
    rows: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[str] = dataclasses.field(default_factory=Counter)
    requests: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    seconds: Buckets = dataclasses.field(default_factory=lambda: Buckets(_SECONDS))
    batch_rows: Buckets = dataclasses.field(default_factory=lambda: Buckets(_ROWS))

    @property
    def received(self) -> int:
        """All rows that have come."""
        return self.in_flight + sum(self.rows.values())

    def begin(self) -> None:
        """Count a request that has come."""
        self.in_flight += 1

    def end(self, answer: Answer, protocol: str, seconds: float) -> None:
        """Count the answer to a request."""
        self.in_flight -= 1
        self.rows["predicted"] += answer.predicted
        self.rows["rejected"] += answer.rejected
        if not answer.received:
            self.rows["shed" if answer.shed else "rejected" if answer.status < 500 else "failed"] += 1
        for reason, count in answer.reasons.items():
            self.reasons[reason] += count
        self.requests[protocol, answer.status] += 1
        self.seconds.add(seconds)


class Accounts:
    """The accounts of all versions, as metrics of Prometheus."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], Account] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def of(self, model: str, version: int) -> Account:
        """Return the account of a version."""
        return self._of.setdefault((model, version), Account())

    @property
    def versions(self) -> list[tuple[str, int]]:
        """The models and versions that have accounts."""
        return list(self._of)

    def forget(self, model: str, version: int) -> None:
        """Report the account of a version no longer."""
        del self._of[model, version]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as prometheus-client asks for them."""
        labels = ["model", "version"]
        requests = CounterMetricFamily("beam_score_requests", "Requests.", labels=[*labels, "protocol", "code"])
        rows = CounterMetricFamily("beam_score_rows", "Rows, by what became of them.", labels=[*labels, "outcome"])
        reasons = CounterMetricFamily("beam_score_rejected_rows", "Rejected rows.", labels=[*labels, "reason"])
        flight = GaugeMetricFamily("beam_score_inflight_rows", "Rows that are not answered yet.", labels=labels)
        seconds = HistogramMetricFamily("beam_score_request_seconds", "Time to the answer.", labels=labels)
        batches = HistogramMetricFamily("beam_score_batch_rows", "Rows of a batch.", labels=labels)
        for (model, version), account in self._of.items():
            own = [model, str(version)]
            for (protocol, code), count in account.requests.items():
                requests.add_metric([*own, protocol, str(code)], count)
            rows.add_metric([*own, "received"], account.received)
            for outcome in OUTCOMES:
                rows.add_metric([*own, outcome], account.rows[outcome])
            for reason, count in account.reasons.items():
                reasons.add_metric([*own, reason], count)
            flight.add_metric(own, account.in_flight)
            seconds.add_metric(own, *account.seconds.as_prometheus())
            batches.add_metric(own, *account.batch_rows.as_prometheus())
        yield from (requests, rows, reasons, flight, seconds, batches)
