"""How far a run is, from its receipts: works from any machine that sees the output."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from transforms.plan import RunFolder
from transforms.receipt import Receipt

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

_EVERY_S = 0.25
_LOG_EVERY_S = 30


@contextlib.contextmanager
def watch(folder: RunFolder, splits: int, show: Callable[[int, int, int], None] | None) -> Iterator[None]:
    """Calls `show(splits done, splits, rows read)` from a thread of its own while the body runs, each
    time that there are new receipts, and once at the end."""
    if show is None:
        yield
        return
    over = threading.Event()
    seen: dict[str, int] = {}

    def look() -> None:
        with contextlib.suppress(FileNotFoundError):  # the run has been published and cleaned up
            for path in folder.receipts.iterdir():
                if path.suffix == ".json" and not path.name.startswith(".") and path.name not in seen:
                    seen[path.name] = sum(f["read"] for f in Receipt.from_json(path.read_bytes()).files.values())
            show(len(seen), splits, sum(seen.values()))

    def loop() -> None:
        while not over.wait(_EVERY_S):
            look()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


@contextlib.contextmanager
def shown() -> Iterator[Callable[[int, int, int], None]]:
    """A function to show progress with: a live bar on a terminal, else a line in the log now and then."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as show:
            yield show
    else:
        yield log_now_and_then(time.monotonic, log.info)


def log_now_and_then(now: Callable[[], float], say: Callable) -> Callable[[int, int, int], None]:
    """A function to show progress with, which says a line every half minute.

    Args:
      now: seconds by some clock.
      say: takes a format and its values, as `logging.info` does.
    """
    last = now()

    def show(done: int, total: int, rows: int) -> None:
        nonlocal last
        if (moment := now()) - last >= _LOG_EVERY_S:
            last = moment
            say("%d of %d splits, %d rows", done, total, rows)

    return show


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int, int], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("scoring"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} splits  {task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = None

        def show(done: int, total: int, rows: int) -> None:
            nonlocal task
            if task is None:
                task = progress.add_task("scoring", total=max(total, 1), rows=0)
            progress.update(task, completed=done, rows=rows)

        yield show
