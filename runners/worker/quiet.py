"""Suppression of Beam's own output on standard error: the command itself reports what a worker raised."""

from __future__ import annotations

import threading

import grpc
from apache_beam.runners.worker import sdk_worker

_raised_in_a_thread = threading.excepthook


def _without_hang_ups(raised: threading.ExceptHookArgs) -> None:
    # Beam's threads that listen to a worker, or to the engine, print a traceback when it is gone.
    if not isinstance(raised.exc_value, grpc.RpcError):
        _raised_in_a_thread(raised)


def keep_quiet() -> None:
    """Suppress Beam's output in this process from now on."""
    threading.excepthook = _without_hang_ups
    # Beam (2.77) also prints a worker's exception, whose text may contain values of rows; and if standard error is
    # closed, it waits forever for the worker that failed to print.
    sdk_worker.print = lambda *args, **kwargs: None  # type: ignore[attr-defined]  # hides the builtin function there
