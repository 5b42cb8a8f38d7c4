"""The files of --batching_parameters_file and --monitoring_config_file: protocol buffers as text.

No wheel has their definitions (session_bundle_config.proto and monitoring_config.proto of TensorFlow Serving).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from beam_score.pipeline.job.mistakes import JobError
from beam_score.transforms.model.proto_fields import Fields, message_class

_BATCHING: Fields = {
    "BatchingParameters": [
        ("max_batch_size", 1, "Int64Value"),
        ("batch_timeout_micros", 2, "Int64Value"),
        ("max_enqueued_batches", 3, "Int64Value"),
        ("num_batch_threads", 4, "Int64Value"),
        ("thread_pool_name", 5, "StringValue"),
        ("allowed_batch_sizes", 6, "*int64"),
        ("pad_variable_length_inputs", 7, "bool"),
        ("enable_large_batch_splitting", 8, "BoolValue"),
        ("max_execution_batch_size", 9, "Int64Value"),
    ],
    "Int64Value": [("value", 1, "int64")],
    "StringValue": [("value", 1, "string")],
    "BoolValue": [("value", 1, "bool")],
}

_MONITORING: Fields = {
    "MonitoringConfig": [("prometheus_config", 1, "PrometheusConfig")],
    "PrometheusConfig": [("enable", 1, "bool"), ("path", 2, "string")],
}


def batching(path: str) -> dict[str, Any]:
    """Return the settings of a file with BatchingParameters, by their keys in the job file.

    Batches here have no queue of their own, threads, or padding: rows of other shapes are other calls, and what would
    be late is refused. So the other fields have no effect.

    Raises:
      JobError: the file cannot be read, or a value is out of range.
    """
    found = _read(path, "BatchingParameters", _BATCHING)
    made: dict[str, Any] = {}
    if found.HasField("max_batch_size"):
        made["serve.batching.rows"] = found.max_batch_size.value
    if found.HasField("batch_timeout_micros"):
        made["serve.batching.window_ms"] = found.batch_timeout_micros.value / 1000
    sizes = list(found.allowed_batch_sizes)
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != made.get("serve.batching.rows", sizes[-1])):
        raise JobError([f"{path}: allowed_batch_sizes must increase, and end with max_batch_size"])
    return made


def monitoring(path: str) -> dict[str, Any]:
    """Return the settings of a file with a MonitoringConfig, by their keys in the job file. Raises JobError."""
    found = _read(path, "MonitoringConfig", _MONITORING).prometheus_config
    if not found.enable:
        return {"serve.monitoring": None}
    return {"serve.monitoring": found.path or "/monitoring/prometheus/metrics"}


def _read(path: str, name: str, fields: Mapping[str, Any]) -> Any:
    message = message_class(name, fields, f"beam_score.tfserving.{name.lower()}")()
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        raise JobError([f"{path}: {getattr(error, 'strerror', None) or error}"]) from None
    except text_format.ParseError as error:
        raise JobError([f"{path} is not a {name} of TensorFlow Serving: line {error}"]) from None
