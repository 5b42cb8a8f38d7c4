"""A launch in preparation: visible to `beam-score status` from its first moment, before the plan exists."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from beam_score.transforms.durable import storage
from beam_score.transforms.durable.storage import Place
from beam_score.transforms.ledger.folder import LAUNCHES, STAGING


class Launching:
    """Holds a locked file in an output folder while the body runs, or until `end`.

    Only the reports of `status` and `clean` depend on the file. If it cannot be created, the launch continues without
    it and reports the problem with the folder itself.

    Args:
      output: the output folder; created, and removed again if the launch leaves nothing in it.
    """

    def __init__(self, output: str):
        self._output = output
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Launching:
        with contextlib.suppress(OSError, ValueError):
            self._begin()
        return self

    def _begin(self) -> None:
        folder = storage.at(self._output) / STAGING / LAUNCHES
        if storage.is_link(folder.parent) or storage.is_link(folder):
            return
        # The staging folders are always removed; of the folders above them, only those that this launch has made.
        above = [missing for missing in _missing(folder) if missing not in (folder, folder.parent)]
        path = folder / f"{secrets.token_hex(6)}.json"
        with contextlib.ExitStack() as stack:
            for made in (*above, folder.parent, folder):  # the innermost is removed first
                stack.callback(storage.remove_if_empty, made)
            storage.make_folder(folder)
            stack.callback(storage.remove, path)
            storage.create_if_absent(path, b"{}")
            stack.enter_context(storage.lease(path))
            self._held = stack.pop_all()

    def end(self) -> None:
        """Remove the file: the plan exists, and shows more."""
        with contextlib.suppress(OSError, ValueError):
            self._held.close()

    def __exit__(self, *_: object) -> None:
        self.end()


def _missing(folder: Place) -> Iterator[Place]:
    """Yield the missing folders on the path to a folder, and the folder, the outermost first."""
    if storage.has_folders(folder) and not storage.exists(folder):
        yield from _missing(folder.parent)
        yield folder


def launches(output: str) -> list[tuple[Place, bool]]:
    """Return the files of launches in an output folder, and whether each launch is alive."""
    folder = storage.at(output) / STAGING / LAUNCHES
    names = [name for name in storage.names(folder) if name.endswith(".json")]
    return [(folder / name, storage.is_leased(folder / name)) for name in names]
