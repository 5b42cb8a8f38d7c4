"""Structured logs: one line per event, with the run's id, and never with a value of a row."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.printing.terminal import cut, printable, printable_lines
from beam_score.transforms.common.names import near_miss

LEVELS = ("debug", "info", "warning", "error")
FORMS = ("text", "json")

_NOISE = (
    # Both concern an engine that was chosen on purpose, and are logged on every run (Beam 2.77).
    "If direct_num_workers is not equal to 1",
    "Resource module is not available",
)


_run: dict[str, str] = {}


def set_up(level: str, form: str) -> None:
    """Send all logs of this process to standard error.

    Args:
      level: of beam-score's own logs; Beam and TensorFlow log critical errors only, unless it is debug.
      form: `text` or `json`.

    Raises:
      JobError: if the level or the form is unknown.
    """
    problems = [
        f"--{option} {value}: expected {', '.join(known)}{near_miss(value, known)}"
        for option, value, known in (("log-level", level, LEVELS), ("log-format", form, FORMS))
        if value not in known
    ]
    if problems:
        raise JobError(problems)
    own = getattr(logging, level.upper())
    others = logging.INFO if level == "debug" else logging.CRITICAL
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if level == "debug" else "2")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form, colors=sys.stderr.isatty()))
    handler.addFilter(_is_wanted)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(others)
    logging.getLogger("beam_score").setLevel(own)
    # Below INFO they log the data that they send and receive.
    for name in ("apache_beam", "tensorflow", "absl"):
        logging.getLogger(name).setLevel(others)


class _Formatter(logging.Formatter):
    """Imports structlog at the first record: many commands log nothing."""

    def __init__(self, form: str, colors: bool):
        super().__init__()
        self._form, self._colors = form, colors

    @functools.cached_property
    def _own(self) -> logging.Formatter:
        import structlog

        before: list[structlog.types.Processor] = [
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_run,
        ]
        last: list[structlog.types.Processor] = [structlog.processors.format_exc_info]
        if self._form == "json":
            last.append(structlog.processors.JSONRenderer())  # escapes non-ASCII characters
        else:
            last.append(_escape)
            last.append(
                structlog.dev.ConsoleRenderer(
                    colors=self._colors,
                    pad_event_to=0,
                    sort_keys=False,
                    exception_formatter=structlog.dev.plain_traceback,
                )
            )
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )

    def format(self, record: logging.LogRecord) -> str:
        return self._own.format(record)


def _escape(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Escape text that comes from data, so that an event is one line, except for its traceback."""
    escaped = {key: cut(printable(value)) for key, value in event.items() if isinstance(value, str)}
    if isinstance(found := event.get("exception"), str):
        escaped["exception"] = printable_lines(found)
    return {**event, **escaped}


def _is_wanted(record: logging.LogRecord) -> bool:
    # The command itself reports what a step raises. Beam logs it too, with the values of rows in it.
    # Messages of a job service have no logger name.
    from_beam = record.name.startswith("apache_beam.runners") or record.module == "portable_runner"
    raised = from_beam and record.levelno >= logging.ERROR
    return not raised and not any(noise in str(record.msg) for noise in _NOISE)


def name_run(run: str) -> None:
    """Add the run's id to every later log line."""
    _run["run"] = run


def _add_run(logger: Any, method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {**event, **_run}
