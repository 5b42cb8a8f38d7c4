"""What a setting can do about values that a contract refuses: for the draft of `init`, and the hints of `check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.sample import Seen
from pipeline.yaml_text import flow


@dataclass(frozen=True)
class Remedy:
    """A setting with which a column takes more of the values that were seen.

    Attributes:
      key, value: of the column in the job file, as YAML text.
      why: what was seen.
      also: what else it takes, or would do.
      is_for_all: whether nearly all values need it, so that a draft has it.
    """

    key: str
    value: str
    why: str
    also: str = ""
    is_for_all: bool = False

    @property
    def hint(self) -> str:
        """`nan: missing, with a default`."""
        return f"{self.key}: {self.value}" + (f", {self.also}" if self.also else "")

    def is_set(self, column: Any) -> bool:
        """Whether a column of the contract (`transforms.contract.Column`) has the setting already."""
        found = getattr(column, f"{self.key}_" if self.key == "from" else self.key, None)
        return {"true": True, "false": False}.get(self.value, self.value) == found or (self.key == "nulls" and found)


def remedies(seen: Seen, dtype: str, format: str) -> list[Remedy]:
    """The settings that help a column of this dtype with the values that were seen."""
    return list(_of_text(seen, dtype, format) if dtype in ("string", "bytes") else _of_numbers(seen, dtype, format))


def _of_text(seen: Seen, dtype: str, format: str) -> Iterator[Remedy]:
    if dtype == "bytes":
        return
    if format == "csv" and seen.spaced:
        yield Remedy("strip", "true", "all texts begin with a space", is_for_all=True)
    if seen.not_utf8:
        yield Remedy("dtype", "bytes", f"{seen.not_utf8:,} not UTF-8", "or write the files as UTF-8")
    if seen.kind == "bytes":
        yield Remedy("dtype", "bytes", "the values are bytes", is_for_all=True)


def _of_numbers(seen: Seen, dtype: str, format: str) -> Iterator[Remedy]:
    if dtype == "bool":
        return
    if seen.number_texts and format == "jsonl":
        is_for_all = seen.number_kind is not None
        many = "" if is_for_all else f"{seen.number_texts:,} "
        yield Remedy("from", "string", f"{many}numbers written as JSON strings", is_for_all=is_for_all)
    if seen.nulls:
        yield Remedy("nulls", flow(seen.nulls), f"{seen.misfits:,} not numbers", "with a default")
    if seen.not_finite:
        # An integer is never NaN, whatever `finite` says.
        other = "; or finite: false" if dtype.startswith("float") else ""
        yield Remedy("nan", "missing", f"{seen.not_finite:,} not finite", f"with a default{other}")
