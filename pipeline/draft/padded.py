"""Columns whose texts all begin with a space, as in CSV with a comma and a space as the separator. A model does not
treat `' Private'` as `'Private'`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ENOUGH = 2  # texts


def begin_with_a_space(values: Iterable[Any]) -> bool:
    """Return whether the values have at least two texts, and all of them begin with a space."""
    texts = [v for v in values if isinstance(v, str)]
    return len(texts) >= _ENOUGH and all(t.startswith(" ") for t in texts)


def padded_columns(columns: Mapping[str, Iterable[Any]]) -> list[str]:
    """Return the names of the columns whose texts all begin with a space.

    Args:
      columns: values of a sample, by column name.
    """
    return [name for name, values in columns.items() if begin_with_a_space(values)]


def padded_hint(names: Sequence[str]) -> str:
    """Return a message about columns whose texts all begin with a space."""
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    column = "column" if len(names) == 1 else "columns"
    return (
        f"all texts in {column} {shown} begin with a space, which is passed to the model: to remove it, set "
        "input.strip: true, or strip: true of the column"
    )
