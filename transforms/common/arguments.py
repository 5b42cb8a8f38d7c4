"""Checks of the arguments of the public interface: an obvious mistake is reported where it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_type(name: str, value: Any, type_: type, remedy: str) -> None:
    """Raise TypeError if an argument is not of a type.

    Args:
      name: of the argument, after what it is passed to: `WriteParts: settings`.
      remedy: what to pass instead.
    """
    if not isinstance(value, type_):
        raise TypeError(f"{name} is of type {type(value).__name__}, expected {type_.__name__}: {remedy}")


def check_mapping(name: str, value: Any, type_: type, remedy: str) -> None:
    """Raise TypeError if an argument is not a mapping to values of a type; see `check_type`."""
    check_type(name, value, Mapping, remedy)
    for key, item in value.items():
        check_type(f"{name}[{key!r}]", item, type_, remedy)
