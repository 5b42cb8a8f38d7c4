"""The `serve.rollout` section of the job file: how a new version takes over."""

from __future__ import annotations

from typing import Any

import pydantic

from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_seconds, parse_share


class Rollout(Strict):
    """The tests of a new version, and the way back.

    Attributes:
      compare: a file of rows as JSON Lines, on which it must agree with the version before; None for none.
      tolerance: by which numbers may differ; relative to numbers above 1.
      canary: share of requests that it answers before it takes over.
      shadow: share of requests that it is asked too before it takes over; the version before answers.
      hold: seconds of canary and shadow; and after it has taken over, during which it is watched.
      max_errors: share of requests that may fail beyond those of the version before; more end it.
      max_latency: times the mean time of the version before; more end it; None for any.
      keep_previous: versions that stay loaded after another took over, to go back to: 0 or 1.
    """

    compare: str | None = pydantic.Field(default=None, min_length=1)
    tolerance: float = pydantic.Field(default=1e-6, ge=0)
    canary: float = 0.0
    shadow: float = 0.0
    hold: float = pydantic.Field(default=600.0, gt=0)
    max_errors: float = 0.01
    max_latency: float | None = pydantic.Field(default=None, ge=1)
    keep_previous: int = pydantic.Field(default=1, ge=0, le=1)

    _seconds = pydantic.field_validator("hold", mode="before")(parse_seconds)

    @pydantic.field_validator("canary", "shadow", "max_errors", mode="before")
    @classmethod
    def _share(cls, value: Any) -> Any:
        try:
            share = value if value == 1.0 and isinstance(value, float) else parse_share(value)
        except ValueError:
            share = 1  # a count
        if isinstance(share, int) and share > 0:
            raise ValueError(f"{value!r} is not a share: expected 0% to 100%, for example 5%")
        return float(share)
