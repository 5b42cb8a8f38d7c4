"""Settings of readers, with the options of their format among the others."""

from __future__ import annotations

from typing import Any

from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.formats.base import ReadSettings, format_named


def read_settings(format_: str, columns: Contract, **changes: Any) -> ReadSettings:
    """`ReadSettings`, where `changes` may name options of the format, such as `delimiter`."""
    kind = format_named(format_).options_type
    names = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
    options = {name: changes.pop(name) for name in list(changes) if name in names}
    return ReadSettings(format_, columns, options=kind(**options), **changes)
