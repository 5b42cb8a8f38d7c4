"""The receipt of a finished split: the only source for status, progress, resume, the commit and the manifest's
counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from beam_score.transforms.common.sums import add_tally
from beam_score.transforms.durable.sealed import CorruptFile, seal, unseal
from beam_score.transforms.ledger.shapes import RECEIPT, Misfit, fit
from beam_score.transforms.output.part import Part
from beam_score.transforms.rows.rejections import Rejection, Rejections


def new_file_counts() -> dict[str, Any]:
    """Return the initial counts of a file: rows read, predicted, rejected by reason; stretches of unknown length by
    reason."""
    return {"read": 0, "predicted": 0, "rejected": {}, "stretches": {}}


@dataclasses.dataclass(frozen=True)
class Receipt:
    """The record of a finished split.

    Attributes:
      split, attempt: the split and the attempt of this receipt.
      parts: the written parts; no part without rows.
      files: source to counts; see `new_file_counts`.
      tally: the sum of the blocks' tallies.
      rejections: by reason and column; none in a receipt of an earlier version.
      began, ended: seconds since the epoch, by the clock of the worker.
    """

    split: int
    attempt: str
    parts: tuple[Part, ...]
    files: Mapping[str, Mapping[str, Any]]
    tally: Mapping[str, float]
    began: float
    ended: float
    rejections: tuple[Rejection, ...] = ()

    def to_json(self) -> bytes:
        return seal(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, content: bytes) -> Receipt:
        """Return a parsed receipt. Raises transforms.durable.sealed.CorruptFile."""
        fields = unseal(content, "receipt")
        try:
            fit(fields, RECEIPT)
        except Misfit as error:
            raise CorruptFile(f"receipt: damaged: {error}") from None
        own = {
            "parts": tuple(Part(**p) for p in fields["parts"]),
            "rejections": tuple(Rejection(**r) for r in fields.get("rejections") or ()),
        }
        return cls(**fields | own)


@dataclasses.dataclass
class Counts:
    """The sums of receipts.

    Attributes:
      read, predicted, rejected: rows; stretches: unusable files and stretches of unknown length.
      reasons: of rejected rows; stretch_reasons: of stretches.
      files: source to its counts, as in a receipt.
      rejections: of rows and stretches, by reason and column.
    """

    read: int = 0
    predicted: int = 0
    rejected: int = 0
    stretches: int = 0
    reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    stretch_reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    files: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    tally: dict[str, float] = dataclasses.field(default_factory=dict)
    rejections: Rejections = dataclasses.field(default_factory=Rejections)

    @classmethod
    def of(cls, receipts: Iterable[Receipt]) -> Counts:
        total = cls()
        for receipt in receipts:
            total.take(receipt)
        return total

    def take(self, receipt: Receipt) -> None:
        """Add a receipt."""
        self.tally = add_tally(self.tally, receipt.tally)
        self.rejections.add(receipt.rejections)
        for source, file in receipt.files.items():
            self.add(source, file)

    def add(self, source: str, file: Mapping[str, Any]) -> None:
        """Add the counts of one file in one receipt."""
        own = self.files.setdefault(source, new_file_counts())
        own["read"] += file["read"]
        own["predicted"] += file["predicted"]
        own["rejected"] = add_tally(own["rejected"], file["rejected"])
        own["stretches"] = add_tally(own["stretches"], file["stretches"])
        self.read += file["read"]
        self.predicted += file["predicted"]
        self.rejected += sum(file["rejected"].values())
        self.stretches += sum(file["stretches"].values())
        self.reasons = add_tally(self.reasons, file["rejected"])
        self.stretch_reasons = add_tally(self.stretch_reasons, file["stretches"])

    def summary(self) -> dict[str, Any]:
        """Return the sums over all files, in the form of verdicts and manifests."""
        return {
            "read": self.read,
            "predicted": self.predicted,
            "rejected": self.rejected,
            "stretches": self.stretches,
            "rejected_by_reason": dict(sorted(self.reasons.items())),
            "stretches_by_reason": dict(sorted(self.stretch_reasons.items())),
            "rejected_by_column": self.rejections.largest(),
        }
