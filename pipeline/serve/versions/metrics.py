"""Metrics of Prometheus about versions: their states, and how a new one agrees with the one before."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from beam_score.pipeline.serve.front.models import Models

FORGOTTEN_AFTER_S = 3600.0
"""Seconds after which a version without a process is no longer reported."""


class VersionMetrics:
    """The metrics of the versions of all models.

    Args:
      models: of the server.
    """

    def __init__(self, models: Models):
        self._models = models
        self._gone: dict[tuple[str, int], float] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as prometheus-client asks for them."""
        self._forget()
        labels = ["model", "version"]
        states = GaugeMetricFamily("beam_score_model_state", "1 for the state.", labels=[*labels, "state"])
        info = GaugeMetricFamily("beam_score_model_info", "1 for a loaded version.", labels=[*labels, "sha256"])
        shadows = CounterMetricFamily("beam_score_shadow_requests", "Copies of requests.", labels=[*labels, "result"])
        for model in self._models.all:
            for number in model.numbers:
                own = [model.name, str(number)]
                states.add_metric([*own, str(model.status(number)["state"])], 1)
                if number in model.versions:
                    info.add_metric([*own, model.versions[number].version.sha256 or ""], 1)
            for number, results in model.shadows.items():
                for result, count in results.items():
                    shadows.add_metric([model.name, str(number), result], count)
        yield from (states, info, shadows)

    def _forget(self) -> None:
        now, loaded = time.monotonic(), {(m.name, number) for m in self._models.all for number in m.versions}
        known = self._models.accounts.versions
        self._gone = {key: self._gone.get(key, now) for key in known if key not in loaded}
        for key, since in self._gone.items():
            if now - since > FORGOTTEN_AFTER_S:
                self._models.accounts.forget(*key)
