"""Base class of settings."""

from __future__ import annotations

import pydantic


class Strict(pydantic.BaseModel):
    """Base of every settings object: frozen, and an unknown key is an error."""

    # A default of NaN is recorded as NaN, not as null.
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
