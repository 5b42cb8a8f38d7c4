"""The receipts of a run: which splits are done, and by whose attempt.

A receipt counts if it is as it was written, and all of its parts stand. One that does not count is never
overwritten: the split is read again, and its new receipt is the next version. Whoever reads takes the first
version that counts, so all say the same.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from transforms import storage
from transforms.receipt import Receipt
from transforms.run_folder import RunFolder
from transforms.sealed import Damaged


def standing(folder: RunFolder, split: int) -> Receipt | None:
    """The receipt that counts; None where the split is still to be done."""
    version = 1
    while (content := storage.read(folder.receipt(split, version))) is not None:
        if (receipt := _believed(folder, split, content)) is not None:
            return receipt
        version += 1
    return None


def _believed(folder: RunFolder, split: int, content: bytes) -> Receipt | None:
    receipt = _whole(split, content)
    return receipt if receipt and _stands(receipt, lambda name: storage.size(folder.parts / name)) else None


def _whole(split: int, content: bytes) -> Receipt | None:
    """A receipt as it was written; None where it is damaged."""
    try:
        receipt = Receipt.from_json(content)
    except (Damaged, TypeError):
        return None
    return receipt if receipt.split == split else None


def _stands(receipt: Receipt, size: Callable[[str], int | None]) -> bool:
    """Whether all parts of a receipt stand, by their sizes."""
    return all(size(part.name) == part.bytes for part in receipt.parts)


def is_done(folder: RunFolder, split: int) -> bool:
    """Whether a split has a receipt that counts."""
    return standing(folder, split) is not None


def put(folder: RunFolder, receipt: Receipt) -> bool:
    """Makes a receipt the one that counts, unless its split has one.

    Returns:
      whether it does; else its parts are nobody's.

    Raises:
      FileNotFoundError: the run is gone.
    """
    content, version = receipt.to_json(), 1
    while not storage.create_if_absent(folder.receipt(receipt.split, version), content):
        found = storage.read(folder.receipt(receipt.split, version))
        if found is None:
            raise FileNotFoundError(folder.receipt(receipt.split, version))
        if _believed(folder, receipt.split, found) is not None:
            return False
        version += 1
    if not storage.has_folders(folder.path) and not storage.exists(folder.plan):
        # The run is gone, and a folder would have stopped this. Who takes the plan away lists the rest after it: a
        # receipt that came before that goes with the rest, and one that came later goes here.
        storage.remove(folder.receipt(receipt.split, version))
        raise FileNotFoundError(errno.ENOENT, "the run was discarded", str(folder.plan))
    return True


def collect(folder: RunFolder, splits: int) -> list[Receipt | None]:
    """The receipts that count, in the order of the splits; None for those still to be done."""
    names = set(storage.names(folder.receipts))
    there = [split for split in range(splits) if folder.receipt(split).name in names]
    # The receipts before the sizes of parts: those that they tell of were written before them.
    first = dict(zip(there, storage.each(folder.path, lambda split: _first(folder, split), there), strict=True))
    size = storage.sizes(folder.parts)

    def counting(split: int) -> Receipt | None:
        receipt = first.get(split)
        if receipt is not None and _stands(receipt, size):
            return receipt
        return standing(folder, split) if split in first else None

    return storage.each(folder.path, counting, range(splits))


def _first(folder: RunFolder, split: int) -> Receipt | None:
    """The first receipt of a split, if it is whole."""
    content = storage.read(folder.receipt(split))
    return None if content is None else _whole(split, content)


def all_done(folder: RunFolder, splits: int) -> bool:
    """Whether every split has a receipt that counts."""
    if len(storage.names(folder.receipts)) < splits:
        return False
    return None not in collect(folder, splits)
