"""The receipts of a run: the finished splits and the attempts that finished them.

A receipt is valid if it is as it was written, and all of its parts exist. An invalid receipt is never overwritten: the
split is read again, and its new receipt is the next version. Readers take the first valid version, so all agree.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.receipt import Receipt

_READ_AT_ONCE = 4096


def standing(folder: RunFolder, split: int) -> Receipt | None:
    """Return the valid receipt of a split; None if the split is still to be done."""
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
    """Return a receipt as it was written; None if it is damaged."""
    try:
        receipt = Receipt.from_json(content)
    except (CorruptFile, TypeError):
        return None
    return receipt if receipt.split == split else None


def _stands(receipt: Receipt, size: Callable[[str], int | None]) -> bool:
    """Return whether all parts of a receipt exist, with their sizes."""
    return all(size(part.name) == part.bytes for part in receipt.parts)


def is_done(folder: RunFolder, split: int) -> bool:
    """Return whether a split has a valid receipt."""
    return standing(folder, split) is not None


def put(folder: RunFolder, receipt: Receipt) -> bool:
    """Write a receipt, unless its split has a valid one.

    Returns:
      True if this receipt is the valid one; otherwise its parts are unused.

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
        # The run is gone; with folders, the write would have failed. The process that removes the plan lists the other
        # files after that: it removes a receipt written before the listing, and a later one is removed here.
        storage.remove(folder.receipt(receipt.split, version))
        raise FileNotFoundError(errno.ENOENT, "the run was discarded", str(folder.plan))
    return True


def collect(folder: RunFolder, splits: int) -> Iterator[Receipt | None]:
    """Yield the valid receipts, in the order of the splits; None for splits still to be done.

    They are read some thousands at a time: one takes 2 kB, and callers that sum them need not keep all.
    """
    names = set(storage.names(folder.receipts))
    # After the names: the parts of an existing receipt were written before it.
    size = storage.sizes(folder.parts)

    def counting(split: int) -> Receipt | None:
        if folder.receipt(split).name not in names:
            return None
        receipt = _first(folder, split)
        return receipt if receipt is not None and _stands(receipt, size) else standing(folder, split)

    for at in range(0, splits, _READ_AT_ONCE):
        yield from storage.each(folder.path, counting, range(at, min(at + _READ_AT_ONCE, splits)))


def _first(folder: RunFolder, split: int) -> Receipt | None:
    """Return the first receipt of a split, if it is whole."""
    content = storage.read(folder.receipt(split))
    return None if content is None else _whole(split, content)


def all_done(folder: RunFolder, splits: int) -> bool:
    """Return whether every split has a valid receipt."""
    if len(storage.names(folder.receipts)) < splits:
        return False
    return None not in collect(folder, splits)
