"""The settings of `serve`: a job, or the folder of a model alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from beam_score.pipeline.job.job import Job, Model, load_job, parse_job, set_key
from beam_score.pipeline.job.mistakes import JobError, sentences
from beam_score.pipeline.job.serve import ServeSettings
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.stores.objects import is_object

SAGEMAKER = Path("/opt/ml/model")
"""Where SageMaker puts a model."""

_JOB_FILES = (".yaml", ".yml", ".json")


class ModelFolder(Strict):
    """A model without a contract: only its own signatures are served."""

    model: Model
    serve: ServeSettings = ServeSettings()

    def as_json(self) -> dict[str, Any]:
        """Return the settings as plain data, without defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def given_by(environment: Mapping[str, str], sagemaker: Path = SAGEMAKER) -> tuple[str | None, list[str]]:
    """Return what a container of Vertex AI or SageMaker serves if its command does not name it, and the overrides by
    which it listens: `AIP_STORAGE_URI`, `AIP_HTTP_PORT`; `/opt/ml/model`, `SAGEMAKER_BIND_TO_PORT`.

    Args:
      sagemaker: the folder of the model; if it has a `job.yaml`, this job is served.
    """
    place, port = environment.get("AIP_STORAGE_URI"), environment.get("AIP_HTTP_PORT")
    if port is None and ("SAGEMAKER_BIND_TO_PORT" in environment or sagemaker.is_dir()):
        port = environment.get("SAGEMAKER_BIND_TO_PORT", "8080")
    if place is None and sagemaker.is_dir():
        job = sagemaker / "job.yaml"
        place = str(job if job.exists() else sagemaker)
    return place, [] if port is None else ["serve.host=0.0.0.0", f"serve.port={port}"]


def load_served(path: str, overrides: Sequence[str] = ()) -> Job | ModelFolder:
    """Read a job file, or take the folder of a model, local or in a store, as it is.

    Args:
      overrides: see `load_job`; of a folder, those of `serve` and `model`.

    Raises:
      JobError: with all problems.
    """
    if not Path(path).is_dir() and (not is_object(path) or path.endswith(_JOB_FILES)):
        return load_job(path, overrides)
    settings: dict[str, Any] = {"model": {"path": path}}
    for override in overrides:
        set_key(settings, override)
    return parse_served(settings)


def parse_served(settings: Mapping[str, Any], path: str = "job") -> Job | ModelFolder:
    """Validate plain data as a job, or as a model folder, whose only keys are `model` and `serve`.

    Args:
      path: of the job file, for messages.

    Raises:
      JobError: with all problems.
    """
    if {"input", "output", "columns"} & settings.keys():
        return parse_job(settings, path)
    try:
        return ModelFolder.model_validate(settings)
    except pydantic.ValidationError as error:
        raise JobError([f"--set: {problem}" for _, problem in sentences(error, _keys_at)]) from None


def _keys_at(where: Sequence[str]) -> list[str]:
    known: dict[str, type[Strict]] = {"": ModelFolder, "model": Model, "serve": ServeSettings}
    found = known.get(".".join(where))
    return [] if found is None else list(found.model_fields)
