"""What is known of a run, looked at while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from beam_score.pipeline.run.status import Status, Watcher
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import Damaged
from beam_score.transforms.ledger.folder import RunFolder

_EVERY_S = 0.25
_EVERY_IN_STORE_S = 5
"""A look lists the receipts, which a store charges for."""

Show = Callable[[Status], None]


@contextlib.contextmanager
def watch(folder: RunFolder, show: Show | None) -> Iterator[None]:
    """Calls `show` with what is known of the run, from a thread of its own while the body runs, and once
    at the end."""
    if show is None:
        yield
        return
    over = threading.Event()
    watcher = Watcher(folder.output)
    every_s = _EVERY_S if storage.has_folders(folder.path) else _EVERY_IN_STORE_S

    def look() -> None:
        # No run fails for want of a picture of it; what is wrong is told by those who need the files.
        with contextlib.suppress(OSError, Damaged):
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
