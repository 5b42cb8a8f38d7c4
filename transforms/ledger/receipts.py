"""The receipts of a run: which splits are done, and by whose attempt.

A receipt counts if it is as it was written, and all of its parts stand. One that does not count is never
overwritten: the split is read again, and its new receipt is the next version. Whoever reads takes the first
version that counts, so all say the same.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import Damaged
from beam_score.transforms.ledger.folder import RunFolder
from beam_score.transforms.ledger.receipt import Receipt

_READ_AT_ONCE = 4096


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


def collect(folder: RunFolder, splits: int) -> Iterator[Receipt | None]:
    """The receipts that count, in the order of the splits; None for those still to be done.

    They come some thousands at a time: one takes 2 kB, and who adds them up need not hold them all."""
    names = set(storage.names(folder.receipts))
    # After the names: the parts of a receipt that is there were written before it.
    size = storage.sizes(folder.parts)

    def counting(split: int) -> Receipt | None:
        if folder.receipt(split).name not in names:
            return None
        receipt = _first(folder, split)
        return receipt if receipt is not None and _stands(receipt, size) else standing(folder, split)

    for at in range(0, splits, _READ_AT_ONCE):
        yield from storage.each(folder.path, counting, range(at, min(at + _READ_AT_ONCE, splits)))


def _first(folder: RunFolder, split: int) -> Receipt | None:
    """The first receipt of a split, if it is whole."""
    content = storage.read(folder.receipt(split))
    return None if content is None else _whole(split, content)


def all_done(folder: RunFolder, splits: int) -> bool:
    """Whether every split has a receipt that counts."""
    if len(storage.names(folder.receipts)) < splits:
        return False
    return None not in collect(folder, splits)
