"""A separate thread for the pipeline: start it, and wait until it has ended."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from beam_score.transforms.common.stopping import Stopping
from beam_score.transforms.durable import on_objects
from beam_score.transforms.model import deadline
from beam_score.transforms.stores import fetch as object_fetch

log = logging.getLogger(__name__)

_LOOKS_EVERY_S = 0.1


def in_thread(work: Callable[[], object]) -> Future[object]:
    """Run `work` in a separate daemon thread. A thread, because Beam handles a signal only after all its workers have
    ended by themselves; a daemon, because a hanging worker must not keep the process alive."""
    running: Future[object] = Future()

    def call() -> None:
        try:
            running.set_result(work())
        except BaseException as error:
            running.set_exception(error)

    threading.Thread(target=call, name="pipeline", daemon=True).start()
    return running


def wait_for_end(running: Future[object], stopping: Stopping) -> None:
    """Wait for the pipeline, and log if it is to end after the splits in progress."""
    logged = False
    # Polars catches SIGINT while it works in another thread, and passes it on without a wake-up.
    while not wait([running], _LOOKS_EVERY_S).done:
        if stopping.after_splits.is_set() and not logged:
            log.warning("finishing the splits in hand; interrupt again to stop now")
            logged = True


def wait_for_workers(running: Future[object] | None, wait_s: float) -> None:
    """Wait until the pipeline has ended and no thread is inside a step. Joining the threads is not enough: Beam keeps
    its threads for other work."""
    until = time.monotonic() + wait_s
    wait([running] if running else (), wait_s)
    while any(_is_at_work(thread) for thread in _others()):
        if time.monotonic() > until:
            return
        time.sleep(0.02)


def _others() -> set[int]:
    """Return all threads except this one, the threads that only make calls for others, which may return late or never,
    and the thread that keeps the lock of this launch."""
    names = (deadline.THREAD, object_fetch.THREAD, on_objects.THREAD)
    callers = {thread.ident for thread in threading.enumerate() if thread.name.startswith(names)}
    return sys._current_frames().keys() - callers - {threading.get_ident()}


def _is_at_work(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("beam_score.transforms."):
            return True
        frame = frame.f_back
    return False
