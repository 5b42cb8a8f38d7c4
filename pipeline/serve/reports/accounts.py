"""Counts of rows by their outcome, for each version. The sums close at every moment:

    received = predicted + rejected + failed + shed + in flight

The front does not parse bodies: a request whose rows are not known, or not yet, counts as one row.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from beam_score.pipeline.serve.answering.answer import STAGES, Answer, Request

OUTCOMES = ("predicted", "rejected", "failed", "shed")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_STAGE_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, *_SECONDS)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
_MICROSECONDS = tuple(10 * 1.8**k for k in range(33))
"""The buckets of TensorFlow Serving."""


class Buckets:
    """A histogram.

    Args:
      bounds: upper bounds of its buckets, ascending.
    """

    def __init__(self, bounds: tuple[float, ...]):
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value that has come some times."""
        self._counts[bisect.bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def __add__(self, other: Buckets) -> Buckets:
        """Return a histogram of the values of both, which have the same bounds."""
        both = Buckets(self._bounds)
        both._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        both._sum = self._sum + other._sum
        return both

    def as_prometheus(self) -> tuple[list[tuple[str, float]], float]:
        """Return the cumulative counts by upper bound, and the sum."""
        total, made = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            made.append((bound, float(total)))
        return made, self._sum


Observer = Callable[["Account", Request, Answer, str], None]
"""Called with each request that has been answered, and its protocol."""


def _by_name(bounds: tuple[float, ...]) -> collections.defaultdict[str, Buckets]:
    return collections.defaultdict(lambda: Buckets(bounds))


@dataclasses.dataclass
class Account:
    """The rows and requests of one version.

    Attributes:
      model, version: whose account it is.
      observers: see `Observer`.
      received: rows that have come, with one for a request whose rows are not known.
      in_flight: requests that are not answered.
      rows: rows by outcome.
      reasons: rejected rows by reason code and column.
      requests: requests by (signature, protocol, HTTP status).
      seconds: of requests, by signature.
      stages: seconds of requests in each stage.
      batch_rows: of the calls that requests shared.
      latency_us: microseconds of requests, by protocol.
      runtime_us: microseconds of the model for each request.
    """

    model: str
    version: int
    observers: list[Observer]
    received: int = 0
    in_flight: int = 0
    rows: Counter[str] = dataclasses.field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    requests: Counter[tuple[str, str, int]] = dataclasses.field(default_factory=Counter)
    seconds: collections.defaultdict[str, Buckets] = dataclasses.field(default_factory=lambda: _by_name(_SECONDS))
    stages: tuple[Buckets, ...] = dataclasses.field(
        default_factory=lambda: tuple(Buckets(_STAGE_SECONDS) for _ in STAGES)
    )
    batch_rows: Buckets = dataclasses.field(default_factory=lambda: Buckets(_ROWS))
    latency_us: collections.defaultdict[str, Buckets] = dataclasses.field(
        default_factory=lambda: _by_name(_MICROSECONDS)
    )
    runtime_us: Buckets = dataclasses.field(default_factory=lambda: Buckets(_MICROSECONDS))
    _batch: Sequence[float] = dataclasses.field(default=(), init=False)
    _of_batch: int = dataclasses.field(default=0, init=False)

    def sums(self) -> dict[str, int]:
        """Return the rows received, by outcome, and in flight."""
        return {"received": self.received, **{o: self.rows[o] for o in OUTCOMES}, "in_flight": self.in_flight}

    def begin(self) -> None:
        """Count a request that has come."""
        self.in_flight += 1
        self.received += 1

    def end(self, request: Request, answer: Answer, protocol: str, seconds: float) -> None:
        """Count the answer to a request, and complete its `seconds` and `stages`."""
        self.in_flight -= 1
        self.received += max(0, answer.received - 1)
        self.rows["predicted"] += answer.predicted
        self.rows["rejected"] += answer.rejected
        if not answer.received:
            self.rows["shed" if answer.shed else "rejected" if answer.status < 500 else "failed"] += 1
        for reason, column, count in answer.reasons:
            self.reasons[reason, column] += count
        self.requests[answer.signature, protocol, answer.status] += 1
        self.seconds[answer.signature].add(seconds)
        self.latency_us[protocol].add(seconds * 1e6)
        answer.seconds = seconds
        if answer.stages:
            batch = validate, model, encode = answer.stages
            answer.stages = (max(0.0, seconds - validate - model - encode), validate, model, encode)
            self.stages[0].add(answer.stages[0])
            if batch is not self._batch:
                self.settle()
                self._batch = batch
            self._of_batch += 1
        for observe in self.observers:
            observe(self, request, answer, protocol)

    def settle(self) -> None:
        """Count the stages of the latest batch, which its requests share: before they are read."""
        if self._of_batch:
            for buckets, spent in zip(self.stages[1:], self._batch, strict=True):
                buckets.add(spent, self._of_batch)
            self.runtime_us.add(self._batch[1] * 1e6, self._of_batch)
            self._of_batch = 0


class Accounts:
    """The accounts of all versions, as metrics of Prometheus.

    Attributes:
      registry: of prometheus-client.
      observers: of all accounts.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[str, int], Account] = {}
        self.observers: list[Observer] = []
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def of(self, model: str, version: int) -> Account:
        """Return the account of a version."""
        return self._of.setdefault((model, version), Account(model, version, self.observers))

    def __iter__(self) -> Iterator[Account]:
        """All accounts, settled."""
        for account in self._of.values():
            account.settle()
        return iter(tuple(self._of.values()))

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
        by_code = [*labels, "signature", "protocol", "code"]
        requests = CounterMetricFamily("beam_score_requests", "Requests.", labels=by_code)
        rows = CounterMetricFamily("beam_score_rows", "Rows, by what became of them.", labels=[*labels, "outcome"])
        by_reason = [*labels, "reason", "column"]
        reasons = CounterMetricFamily("beam_score_rejected_rows", "Rejected rows.", labels=by_reason)
        flight = GaugeMetricFamily("beam_score_inflight_rows", "Rows that are not answered yet.", labels=labels)
        by_signature = [*labels, "signature"]
        seconds = HistogramMetricFamily("beam_score_request_seconds", "Time to the answer.", labels=by_signature)
        stages = HistogramMetricFamily("beam_score_stage_seconds", "Time in a stage.", labels=[*labels, "stage"])
        batches = HistogramMetricFamily("beam_score_batch_rows", "Rows of a batch.", labels=labels)
        for account in self:
            own = [account.model, str(account.version)]
            for (signature, protocol, code), count in account.requests.items():
                requests.add_metric([*own, signature, protocol, str(code)], count)
            rows.add_metric([*own, "received"], account.received)
            for outcome in OUTCOMES:
                rows.add_metric([*own, outcome], account.rows[outcome])
            for (reason, column), count in account.reasons.items():
                reasons.add_metric([*own, reason, column], count)
            flight.add_metric(own, account.in_flight)
            for signature, buckets in account.seconds.items():
                seconds.add_metric([*own, signature], *buckets.as_prometheus())
            for stage, buckets in zip(STAGES, account.stages, strict=True):
                stages.add_metric([*own, stage], *buckets.as_prometheus())
            batches.add_metric(own, *account.batch_rows.as_prometheus())
        yield from (requests, rows, reasons, flight, seconds, stages, batches)
