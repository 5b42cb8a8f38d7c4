"""Lists of models as TensorFlow Serving has them: `--model_config_file`, and HandleReloadConfigRequest.

A list is a ModelServerConfig (tensorflow_serving/config/model_server_config.proto).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
from google.protobuf import text_format

from beam_score.pipeline.job.job import Job, Model
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.model_folder import ModelFolder
from beam_score.pipeline.job.versions import Versions
from beam_score.pipeline.serve.tensors.stubs import messages
from beam_score.pipeline.serve.versions.source import ModelSource
from beam_score.transforms.stores.objects import is_object


def read_config(path: str) -> Any:
    """Return the list in a text file. Raises JobError."""
    config = messages("model_management_pb2").ReloadConfigRequest().config
    try:
        with open(path, encoding="utf-8") as file:
            text_format.Parse(file.read(), config)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        line = "line " if isinstance(error, text_format.ParseError) else ""
        raise JobError([line + (getattr(error, "strerror", None) or str(error))]) from None
    return config


def sources_in(config: Any, main: ModelSource) -> list[ModelSource]:
    """Return the models in a list.

    Args:
      config: a ModelServerConfig.
      main: the model of the job: its contract is kept if the list names it, its settings are those of all.

    Raises:
      JobError: with all mistakes.
    """
    if config.WhichOneof("config") != "model_config_list":
        raise JobError(["expected a model_config_list"])
    models = list(config.model_config_list.config)
    names = [one.name for one in models]
    problems = [f"model {name!r} is listed twice" for name in sorted({name for name in names if names.count(name) > 1})]
    sources = list[ModelSource]()
    for one in models:
        faults = list(_faults(one))
        if not faults:
            try:
                sources.append(_source(one, main))
            except pydantic.ValidationError as error:
                faults = [str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors()]
        problems += [f"model {one.name!r}: {fault}" for fault in faults]
    if problems:
        raise JobError(problems)
    return sources


def _faults(one: Any) -> Iterator[str]:
    if not one.name or set("/:") & set(one.name):
        yield "expected a name without / and :"
    if not one.base_path.startswith("/") and not is_object(one.base_path):
        yield f"base_path {one.base_path!r} is not absolute"
    if one.model_platform not in ("", "tensorflow"):
        yield f"model_platform {one.model_platform!r} is not supported: expected tensorflow"


def _source(one: Any, main: ModelSource) -> ModelSource:
    path, policy = one.base_path.rstrip("/"), one.model_version_policy
    given: dict[str, Any] = {"labels": dict(one.version_labels), "poll": main.versions.poll}
    kind = policy.WhichOneof("policy_choice")
    if kind == "latest":
        given["policy"] = {"latest": policy.latest.num_versions or 1}
    elif kind is not None:
        given["policy"] = {kind: list(policy.specific.versions) if kind == "specific" else None}
    job: Job | ModelFolder = main.job
    if one.name != main.name:
        rollout = main.job.serve.rollout.model_copy(update={"compare": None})  # the rows are those of the job
        settings = main.job.serve.model_copy(update={"name": one.name, "default": None, "rollout": rollout})
        job = ModelFolder(model=Model(path=path), serve=settings)
    return ModelSource(one.name, path, Versions.model_validate(given), job, one.name == main.name)
