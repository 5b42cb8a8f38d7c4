"""A model to be served: where its versions are, which of them, and with which contract."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError, together
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.job.versions import Versions
from beam_score.pipeline.serve.binding import default_of, steps_of
from beam_score.pipeline.serve.versions.folders import LOOK_FAILS, version_folders
from beam_score.pipeline.serve.versions.golden import golden_rows
from beam_score.transforms.model.copies import local_model, named
from beam_score.transforms.model.signature import ModelError, read_signatures
from beam_score.transforms.model.versions import find_version

RELOADED = ("versions", "models", "rollout")
"""Keys of the `serve` section that a running server can change."""


@dataclasses.dataclass(frozen=True)
class ModelSource:
    """A model to be served.

    Attributes:
      name: in paths.
      path: of its versions, or of a SavedModel.
      versions: which of them.
      job: its contract, or a model folder without one.
      main: whether it is the model of the job file.
    """

    name: str
    path: str
    versions: Versions
    job: Job | ModelFolder
    main: bool = True


def source_of(job: Job | ModelFolder) -> ModelSource:
    """Return the model of a job. A version that `model.version` names is the only one."""
    path = job.model.path.rstrip("/")
    name, versions = job.serve.name or Path(path).name, job.serve.versions
    if job.model.version.isdecimal() and "policy" not in versions.model_fields_set:
        versions = versions.model_copy(update={"policy": {"specific": (int(job.model.version),)}})
    return ModelSource(name, path, versions, job)


def reloaded(before: Job | ModelFolder, now: Job | ModelFolder) -> tuple[Job | ModelFolder, list[str]]:
    """Return a job with those settings of another that a running server can change.

    Returns:
      the job, and the keys of other settings that differ.
    """
    old, new = before.as_json(), now.as_json()
    one, other = old.pop("serve", {}), new.pop("serve", {})
    differ = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    keys = sorted((one.keys() | other.keys()) - set(RELOADED))
    differ += [f"serve.{key}" for key in keys if one.get(key) != other.get(key)]
    serve = before.serve.model_copy(update={key: getattr(now.serve, key) for key in RELOADED})
    return before.model_copy(update={"serve": serve}), differ


def check_sources(sources: Iterable[ModelSource], loaded: Mapping[str, Collection[int]]) -> None:
    """Check that each job fits a version of its model, the highest for which it does, and that labels name versions.

    Args:
      loaded: versions that need no folder, since they are loaded, by model.

    Raises:
      JobError: with the problems of all models.
    """
    problems = list[str]()
    for source in sources:
        try:
            _check_source(source, loaded.get(source.name, ()))
        except JobError as error:
            problems += error.problems if source.main else [f"model {source.name!r}: {p}" for p in error.problems]
    if problems:
        raise JobError(problems)


def _check_source(source: ModelSource, loaded: Collection[int]) -> None:
    compare = source.job.serve.rollout.compare
    together(lambda: compare and golden_rows(compare), lambda: _check_versions(source, loaded))


def _check_versions(source: ModelSource, loaded: Collection[int]) -> None:
    ((kind, of),) = source.versions.policy.items()
    try:
        try:
            folders = version_folders(source.path)
        except (FileNotFoundError, NotADirectoryError):
            folders = {}  # `find_version` explains it
        absent = [
            f"serve.versions.labels: {label}: {source.path} has no version {number}"
            for label, number in source.versions.labels.items()
            if folders and number not in folders and number not in loaded
        ]
        numbers = sorted((n for n in folders if kind != "specific" or n in of), reverse=True)
        together(lambda: _refuse(absent), lambda: _check_any(source.job, [folders[number] for number in numbers]))
        if not numbers:
            find_version(source.path, source.job.model.version if kind == "latest" else of[-1])
    except LOOK_FAILS as error:
        raise JobError([f"model.path: {error}"]) from None


def _refuse(problems: list[str]) -> None:
    if problems:
        raise JobError(problems)


def _check_any(job: Job | ModelFolder, paths: Iterable[str]) -> None:
    """Raise the JobError of the first of some versions, if the job fits none of them."""
    errors = list[JobError]()
    for path in paths:
        try:
            _check(job, path)
        except JobError as error:
            errors.append(error)
        else:
            return
    if errors:
        raise errors[0]


def _check(job: Job | ModelFolder, path: str) -> None:
    try:
        local = local_model(path)
        with named(path, local):
            together(
                lambda: steps_of(job, local, "") if isinstance(job, Job) else None,
                lambda: default_of(job, read_signatures(local)),
            )
    except (ModelError, OSError) as error:
        raise JobError([f"model.path: {error}"]) from None
