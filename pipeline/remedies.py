"""What a setting can do about values that a contract refuses: for the draft of `init`, and the hints of `check`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.sample import Seen
from pipeline.yaml_text import flow


@dataclass
class Remedies:
    """What helps with the values seen of one column.

    Attributes:
      settings: key to YAML text: what nearly all values need.
      notes: what some values need, or why a setting is there.
    """

    settings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def remedies(seen: Seen, dtype: str, format: str) -> Remedies:
    """The settings with which a column of this dtype takes the values that were seen."""
    found = Remedies()
    if dtype in ("string", "bytes"):
        _of_text(seen, dtype, format, found)
        return found
    if dtype == "bool":
        return found
    if seen.number_texts and format == "jsonl":
        if seen.number_kind is not None:
            found.settings["from"] = "string"
            found.notes.append("numbers written as JSON strings")
        else:
            found.notes.append(f"{seen.number_texts:,} numbers written as strings (rejected, unless from: string)")
    if seen.nulls:
        found.notes.append(f"to read some as missing: nulls: {flow(seen.nulls)}")
    if seen.not_finite:
        found.notes.append(f"{seen.not_finite:,} not finite (rejected{_not_finite(dtype)})")
    return found


def _of_text(seen: Seen, dtype: str, format: str, found: Remedies) -> None:
    if format == "csv" and seen.spaced and dtype == "string":
        found.settings["strip"] = "true"
        found.notes.append("all texts begin with a space")
    if seen.not_utf8 and dtype == "string":
        found.notes.append(f"{seen.not_utf8:,} not UTF-8 (rejected: write the files as UTF-8, or dtype: bytes)")


def _not_finite(dtype: str) -> str:
    """What helps: an integer is never NaN, whatever `finite` says."""
    if dtype.startswith("float"):
        return ", unless finite: false; nan: missing and a default fill NaN"
    return ", unless nan: missing and a default"
