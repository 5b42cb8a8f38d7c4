"""Selection of the engine that runs a job, or that reports the state of a remote job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_score.runners.elsewhere import Elsewhere, Found
from beam_score.runners.settings import dataflow_names as names

if TYPE_CHECKING:
    from beam_score.runners.engine import Engine
    from beam_score.runners.settings.engine import EngineSettings


def engine_of(settings: EngineSettings, beam_args: Sequence[str] = ()) -> Engine:
    """Return the engine for a job's settings.

    Args:
      beam_args: Beam options, which take precedence over the settings.
    """
    if settings.runner == "dataflow":
        from beam_score.runners.dataflow.engine import Dataflow

        return Dataflow(settings, beam_args)
    if settings.runner == "flink":
        from beam_score.runners.flink.engine import Flink

        return Flink(settings, beam_args)
    if settings.runner == "prism":
        from beam_score.runners.portable.prism import Prism

        return Prism(settings, beam_args)
    from beam_score.runners.local import Local

    return Local(settings, beam_args)


_ADDRESS = re.compile(r"(?:https?://)?(?:[\w.-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?(?:/[\w./-]*)?", re.ASCII)


_ENDPOINT = re.compile(
    r"(?:https?://)?(?:localhost|127\.0\.0\.1|[a-z0-9.-]+\.googleapis\.com)(?::\d{1,5})?/?", re.ASCII
)


def place_problem(job: Elsewhere) -> str | None:
    """Return why the location of a remote job is not safe to use, or None.

    The location becomes the address of a request, which carries this user's credentials if it goes to Google Cloud,
    and part of a command that is shown to the user.
    """
    place = job.place
    if job.runner == "flink" and not (place.keys() == {"address"} and _ADDRESS.fullmatch(place["address"])):
        return f"{dict(place)} is not the address of a Flink cluster"
    if job.runner == "dataflow":
        if not {"project", "region"} <= place.keys() <= {"project", "region", "endpoint"}:
            return f"{dict(place)} is not a project and a region"
        if not _ENDPOINT.fullmatch(place.get("endpoint", "localhost")):
            return f"{place['endpoint']} is not an endpoint of Google Cloud"
        return names.project_problem(place["project"]) or names.region_problem(place["region"])
    return None


def find(job: Elsewhere) -> Found:
    """Ask the engine for the state of a remote job; takes seconds if the engine does not answer."""
    if job.runner == "flink":
        from beam_score.runners.flink import cluster as flink_cluster

        return flink_cluster.find(job)
    if job.runner == "dataflow":
        from beam_score.runners.dataflow import active as dataflow_active

        return dataflow_active.find(job)
    return Found(job, alive=None, why=f"this release of beam-score does not know the engine {job.runner!r}")
