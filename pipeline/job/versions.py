"""The sections of `serve` in the job file that a running server can change: its models, and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_seconds


def seconds_or_0(value: Any) -> float | None:
    """Parse a duration that may be 0; see `parse_seconds`."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    try:
        return parse_seconds(value)
    except ValueError as error:
        raise ValueError(f"{error}, or 0") from None


class Versions(Strict):
    """The versions of a model that are served, and the time between two looks at its folder.

    Attributes:
      policy: `{"latest": N}`, `{"all": None}` or `{"specific": (N, ...)}`.
      labels: names for versions, which are then served too.
      poll: seconds between two looks at the folder; 0 for a look at the start only.
    """

    policy: Mapping[str, Any] = {"latest": 1}
    labels: Mapping[str, int] = {}
    poll: float = pydantic.Field(default=1.0, ge=0)

    _seconds = pydantic.field_validator("poll", mode="before")(seconds_or_0)

    @pydantic.field_validator("policy", mode="before")
    @classmethod
    def _policy(cls, value: Any) -> Mapping[str, Any]:
        given = {value: None} if isinstance(value, str) else value
        if isinstance(given, Mapping) and len(given) == 1:
            ((kind, of),) = given.items()
            if kind == "latest" and (of is None or _is_number(of, 1)):
                return {"latest": of or 1}
            if kind == "all" and of in (None, {}):
                return {"all": None}
            if kind == "specific" and isinstance(of, list | tuple) and of and all(_is_number(one) for one in of):
                return {"specific": tuple(sorted(set(of)))}
        raise ValueError("expected latest, {latest: N} with N from 1, all, or {specific: [N, ...]}")

    @pydantic.field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError("expected names with the numbers of versions, for example {stable: 3}")
        for label, number in value.items():
            if not isinstance(label, str) or not label or set("/:") & set(label):
                raise ValueError(f"{label!r} is not a label: expected text without / and :")
            if not _is_number(number):
                raise ValueError(f"{label}: {number!r} is not the number of a version")
        return value


class OtherModels(Strict):
    """Further models.

    Attributes:
      file: a list of them as TensorFlow Serving's `--model_config_file` has it; None for none.
      poll: seconds between two looks at the file; 0 for a look at the start, and at SIGHUP.
      reload: whether clients may replace the list of models, by HandleReloadConfigRequest.
    """

    file: str | None = pydantic.Field(default=None, min_length=1)
    poll: float = pydantic.Field(default=0.0, ge=0)
    reload: bool = False

    _seconds = pydantic.field_validator("poll", mode="before")(seconds_or_0)


def _is_number(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 63
