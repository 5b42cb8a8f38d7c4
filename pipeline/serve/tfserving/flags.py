"""The flags of tensorflow_model_server (model_servers/main.cc), each as a setting of this server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.serve.tfserving.files import batching, monitoring
from beam_score.transforms.common.names import near_miss

_Settings = dict[str, Any]


def _as(key: str, convert: Callable[[str], Any] = str) -> Callable[[str], _Settings]:
    return lambda value: {key: convert(value)}


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a whole number") from None


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number") from None


def _ignored(value: str) -> _Settings:
    _whole(value)
    return {}


def _rest_port(value: str) -> _Settings:
    if value == "0":
        raise ValueError("0 turns HTTP off there; here HTTP is always served")
    return {"serve.port": _whole(value)}


_FLAGS: dict[str, Callable[[str], _Settings]] = {
    "port": _as("serve.grpc_port", _whole),
    "rest_api_port": _rest_port,
    "model_name": _as("serve.name"),
    "model_base_path": _as("model.path"),
    "batching_parameters_file": batching,
    "monitoring_config_file": monitoring,
    "rest_api_timeout_in_ms": _as("serve.limits.request", lambda value: _whole(value) / 1000),
    "grpc_socket_path": _as("serve.grpc_uds"),
    "file_system_poll_wait_seconds": _as("serve.versions.poll", _number),
    "model_config_file": _as("serve.models.file"),
    "model_config_file_poll_wait_seconds": _as("serve.models.poll", _number),
    # A version that does not load is tried again when its folder changes.
    "max_num_load_retries": _ignored,
    "load_retry_interval_micros": _ignored,
}
"""Flags with a value."""

_SWITCHES: dict[str, str | None] = {
    "enable_batching": None,
    "enable_grpc_healthcheck_service": None,
    "allow_version_labels_for_unavailable_models": None,
    "rest_api_enable_cors_support": "serve.cors",
}
"""Flags that are true or false, and the setting of each; None for what this server always does."""

_TRUE, _FALSE = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")


def translated(arguments: Sequence[str]) -> list[str]:
    """Replace the flags of TensorFlow Serving, of which there is one at least, in the arguments of `serve` by --set.

    `--port` is the port of HTTP here and that of gRPC there: it is meant as there, since it is beside flags of
    TensorFlow Serving. `--model_base_path` without a job file stands for the folder to serve.

    Raises:
      JobError: a flag is unknown, or its value is wrong.
    """
    kept: list[str] = []
    settings: _Settings = {}
    problems: list[str] = []
    todo = list(arguments)
    while todo:
        argument = todo.pop(0)
        name, given, value = argument.removeprefix("--").partition("=")
        if not (_is_theirs(argument) or argument.startswith("--port")):
            kept.append(argument)
            if argument in _WITH_VALUE and todo:
                kept.append(todo.pop(0))
            continue
        try:
            if name in _FLAGS:
                settings |= _FLAGS[name](value if given or not todo else todo.pop(0))
            elif name in _SWITCHES:
                settings |= _switch(_SWITCHES[name], value if given else "true")
            else:
                known = [*_FLAGS, *_SWITCHES]
                problems.append(f"--{name}: this server has no such flag{near_miss(name, known)}")
        except ValueError as error:
            problems.append(f"--{name}: {error}")
        except JobError as error:
            problems += [f"--{name}: {problem}" for problem in error.problems]
    path = settings.pop("model.path", None)
    if path is not None and (not kept or kept[0].startswith("-")):
        kept.insert(0, path)
    elif path is not None:
        settings["model.path"] = path
    if problems:
        raise JobError(problems)
    return [*kept, *(f"--set={key}={json.dumps(value)}" for key, value in settings.items())]


_WITH_VALUE = (
    "--set",
    "--host",
    "--ready-file",
    "--log-level",
    "--log-format",
    "--compat",
    "--grpc-port",
    "--drain-delay",
    "--revert",
)


def _is_theirs(argument: str) -> bool:
    return argument.startswith("--") and "_" in argument.partition("=")[0]


def _switch(key: str | None, text: str) -> _Settings:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError(f"{text!r} is neither true nor false")
    return {} if key is None else {key: text.lower() in _TRUE}
