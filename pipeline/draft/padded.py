"""Texts that all begin with a space, as in files that are written with a comma and a space: to a model `' Private'` is
not `'Private'`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_ENOUGH = 2  # texts


def begin_with_a_space(values: Iterable[Any]) -> bool:
    """Whether all texts among some values begin with a space; there are two at least."""
    texts = [v for v in values if isinstance(v, str)]
    return len(texts) >= _ENOUGH and all(t.startswith(" ") for t in texts)


def padded_columns(columns: Mapping[str, Iterable[Any]]) -> list[str]:
    """The names of the columns all of whose texts begin with a space.

    Args:
      columns: values by name, of a sample.
    """
    return [name for name, values in columns.items() if begin_with_a_space(values)]


def padded_hint(names: Sequence[str]) -> str:
    """What to do about such columns, in a sentence."""
    shown = ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    column = "column" if len(names) == 1 else "columns"
    return (
        f"all texts of {column} {shown} begin with a space, and the model is given it: to drop it, set "
        "input.strip: true, or strip: true of the column"
    )
