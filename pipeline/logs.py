"""Logs: one line an event, structured, with the run's id; never a value of a row."""

from __future__ import annotations

import logging
import os
import sys

import structlog

_NOISE = (
    # Both are about an engine that was chosen on purpose, and are said on every run (Beam 2.77).
    "If direct_num_workers is not equal to 1",
    "Resource module is not available",
)


def set_up(level: str, form: str) -> None:
    """Sends all logs of this process to standard error.

    Args:
      level: of our own logs; Beam's and TensorFlow's are one step quieter, unless it is debug.
      form: `text` or `json`.
    """
    if level != "debug":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, renderer],
        )
    )
    handler.addFilter(_add_run)
    handler.addFilter(lambda record: not any(n in str(record.msg) for n in _NOISE))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    own = getattr(logging, level.upper())
    root.setLevel(logging.DEBUG if level == "debug" else max(own, logging.ERROR))
    for name in ("pipeline", "transforms", "runners"):
        logging.getLogger(name).setLevel(own)
    # At debug level these say what goes over the wire, row by row.
    for name in ("asyncio", "urllib3", "google", "grpc", "apache_beam"):
        logging.getLogger(name).setLevel(max(own, logging.INFO if level == "debug" else logging.ERROR))


_RUN: dict[str, str] = {}


def name_run(run: str) -> None:
    """From now on each line of the log has the run's id."""
    _RUN["run"] = run


def _add_run(record: logging.LogRecord) -> bool:
    if isinstance(record.msg, str) and _RUN and record.name.partition(".")[0] in ("pipeline", "transforms", "runners"):
        record.msg = f"{record.getMessage()} run={_RUN['run']}"
        record.args = ()
    return True
