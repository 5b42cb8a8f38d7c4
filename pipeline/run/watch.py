"""The state of a run, reported while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from beam_score.pipeline.run.status import Status, Watcher
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile
from beam_score.transforms.ledger.folder import RunFolder

_EVERY_S = 0.25
_EVERY_IN_STORE_S = 5
"""Each look lists the receipts, which a store charges for."""

Show = Callable[[Status], None]


@contextlib.contextmanager
def watch(folder: RunFolder, show: Show | None) -> Iterator[None]:
    """Call `show` with the status of the run, from a separate thread while the body runs, and once at the end."""
    if show is None:
        yield
        return
    over = threading.Event()
    watcher = Watcher(folder.output)
    every_s = _EVERY_S if storage.has_folders(folder.path) else _EVERY_IN_STORE_S

    def look() -> None:
        # A run must not fail because its status cannot be read; the steps that need the files report the error.
        with contextlib.suppress(OSError, CorruptFile):
            status = watcher.look()
            if status.run == folder.run:
                show(status)

    def loop() -> None:
        while not over.wait(every_s):
            look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()
