"""Metrics of the versions themselves: state, time to load, hash; and of this build."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from beam_score.pipeline.serve.front.models import Models


class VersionMetrics:
    """A collector of prometheus-client.

    Args:
      models: what is served.
    """

    def __init__(self, models: Models):
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, as prometheus-client asks for them."""
        labels = ["model", "version"]
        state = GaugeMetricFamily("beam_score_model_state", "1 for the state of a version.", labels=[*labels, "state"])
        load = GaugeMetricFamily("beam_score_model_load_seconds", "Time to load a version.", labels=labels)
        info = GaugeMetricFamily("beam_score_model_info", "The hash of a version.", labels=[*labels, "sha256"])
        build = GaugeMetricFamily("beam_score_build_info", "This build.", labels=["version", "python"])
        for served in self._models:
            own = [served.version.name, str(served.version.number)]
            state.add_metric([*own, str(served.state)], 1)
            load.add_metric(own, served.load_s)
            info.add_metric([*own, str(served.version.sha256)], 1)
        build.add_metric([importlib.metadata.version("beam-score"), platform.python_version()], 1)
        yield from (state, load, info, build)
