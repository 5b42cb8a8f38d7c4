"""Settings that make a contract accept more values, for the draft of `init` and the hints of `check`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from beam_score.pipeline.draft.sample import Seen
from beam_score.pipeline.draft.yaml_text import flow, scalar
from beam_score.transforms.contract.columns import Column


@dataclass(frozen=True)
class Remedy:
    """A setting with which a column accepts more of the values that were seen.

    Attributes:
      key: name of the setting in the job file.
      setting: value of the setting.
      why: the values seen.
      also: a further condition, or an alternative.
      is_for_all: whether nearly all values need the setting, so that a draft includes it.
    """

    key: str
    setting: str | tuple[str, ...]
    why: str
    also: str = ""
    is_for_all: bool = False

    @property
    def value(self) -> str:
        """The setting as YAML text."""
        return scalar(self.setting) if isinstance(self.setting, str) else flow(self.setting)

    @property
    def hint(self) -> str:
        """The setting and its condition, for example `nan: missing, with a default`."""
        return f"{self.key}: {self.value}" + (f", {self.also}" if self.also else "")

    def is_in(self, column: Column) -> bool:
        """Return whether a column already has the setting."""
        found = getattr(column, f"{self.key}_" if self.key == "from" else self.key)
        return set(self.setting) <= set(found) if isinstance(found, tuple) else found == self.setting


def remedies(seen: Seen, dtype: str, in_text: bool) -> list[Remedy]:
    """Return the settings with which a column of this dtype accepts more of the values that were seen."""
    return list(_of_text(seen, dtype) if dtype in ("string", "bytes") else _of_numbers(seen, dtype, in_text))


def _of_text(seen: Seen, dtype: str) -> Iterator[Remedy]:
    if dtype == "bytes":
        return
    if seen.not_utf8:
        yield Remedy("dtype", "bytes", f"{seen.not_utf8:,} not UTF-8", "or write the files as UTF-8")
    if seen.kind == "bytes":
        yield Remedy("dtype", "bytes", "the values are bytes")


def _of_numbers(seen: Seen, dtype: str, in_text: bool) -> Iterator[Remedy]:
    if dtype == "bool" or seen.shape:
        return
    if seen.number_kind is not None:
        yield Remedy("from", "string", "numbers written as strings", is_for_all=True)
    elif seen.number_texts:
        yield Remedy("from", "string", f"{seen.number_texts:,} numbers written as strings", "if all are written so")
    if seen.decimal_comma and (in_text or seen.number_kind):
        yield Remedy("decimal", ",", "numbers with a decimal comma", is_for_all=True)
    if seen.nulls and in_text:
        texts = tuple(sorted({t.strip(" \t") for t in seen.nulls}) if seen.spaced else seen.nulls)
        yield Remedy("nulls", texts, f"{seen.misfits:,} not numbers", "with a default")
    if seen.not_finite:
        # `finite` has no effect on integers, which are never NaN.
        other = "; or finite: false" if dtype.startswith("float") else ""
        yield Remedy("nan", "missing", f"{seen.not_finite:,} not finite", f"with a default{other}")
