"""The entry of one column in a drafted job file: its rules, and a comment on the values seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from beam_score.pipeline.draft.remedies import remedies
from beam_score.pipeline.draft.sample import Seen
from beam_score.pipeline.draft.yaml_text import flow
from beam_score.transforms.model.signature import Tensor

TEXT = ("string", "bytes")


@dataclass
class ColumnDraft:
    """One entry of `columns`.

    Attributes:
      settings: key to YAML text, in order.
      remark: the comment beside it.
    """

    settings: dict[str, str] = field(default_factory=dict)
    remark: str = ""

    def rules(self) -> str:
        """Return the settings as YAML, for example `{dtype: float32, shape: [3]}`."""
        return "{" + ", ".join(f"{key}: {value}" for key, value in self.settings.items()) + "}"


def fed(seen: Seen, tensor: Tensor, shape: Sequence[int | None], in_text: bool) -> ColumnDraft:
    """Draft a column that feeds a model input.

    Args:
      in_text: whether the data stores all values as text, as CSV does; likewise below.
    """
    dtype = fed_dtype(seen, tensor)
    settings = {"dtype": dtype} | ({"shape": flow(shape)} if shape else {})
    more, notes = _helped(seen, dtype, in_text)
    return ColumnDraft(settings | more, ", ".join([_seen(seen, dtype, in_text), *notes]))


def fed_dtype(seen: Seen, tensor: Tensor) -> str:
    """Return the dtype of a column that feeds an input: bfloat16 is not a column dtype, and bytes may not be text."""
    if tensor.dtype == "string" and seen.kind == "bytes":
        return "bytes"
    return "float32" if tensor.dtype == "bfloat16" else tensor.dtype


def kept(seen: Seen, in_text: bool) -> ColumnDraft | None:
    """Draft a column that is kept in the output; None if it needs no declaration."""
    dtype = kept_dtype(seen, in_text)
    if dtype is None:
        return None
    settings = {"dtype": dtype} | ({"shape": flow(seen.shape)} if seen.shape else {})
    remark = "kept; declared so that it is written with this dtype"
    return ColumnDraft(settings | {"required": "false"} | _helped(seen, dtype, in_text)[0], remark)


def kept_dtype(seen: Seen, in_text: bool) -> str | None:
    """Return the narrowest dtype for all values seen and likely further values; None if there is no such dtype."""
    if seen.shape and in_text:
        return "string"
    if seen.is_number:
        if seen.misfits or (in_text and seen.zero_led):
            return "string" if in_text else None
        if seen.not_finite or seen.fractions:
            return "float64"
        low, high = seen.low or 0, seen.high or 0
        if seen.kind == "float" and (not in_text or abs(low) > 2**53 or abs(high) > 2**53):
            return "float64"
        if np.iinfo("int64").min <= low and high <= np.iinfo("int64").max:
            return "int64"
        if low >= 0 and high <= np.iinfo("uint64").max:
            return "uint64"
        return "string" if in_text else None
    if in_text:
        return "string" if seen.kind != "bool" or seen.misfits else "bool"
    if seen.misfits:
        return None
    return {"bool": "bool", "string": "string", "bytes": "bytes"}.get(seen.kind)


def unused(seen: Seen, in_text: bool) -> ColumnDraft:
    """Draft an unused column of a file without a header, where every column needs a name."""
    remark = f"not used; named by its position in the file, {_seen(seen, 'string', in_text)}"
    return ColumnDraft({"dtype": "bytes", "required": "false"}, remark)


def candidate(seen: Seen, dtype: str | None, in_text: bool) -> ColumnDraft:
    """Draft a column that the user may choose for an input.

    Args:
      dtype: of the input; None if the input accepts columns of any dtype.
    """
    if dtype is None:
        dtype = kept_dtype(seen, in_text) or "string"
        dtype = "float32" if dtype == "float64" else dtype
    dtype = "bytes" if dtype == "string" and seen.kind == "bytes" else dtype
    settings = {"dtype": dtype} | ({"shape": flow(seen.shape)} if seen.shape and not in_text else {})
    more, notes = _helped(seen, dtype, in_text)
    remark = ", ".join([_seen(seen, dtype, in_text), *notes])
    return ColumnDraft(settings | more, remark + "; remove it if not chosen")


def _helped(seen: Seen, dtype: str, in_text: bool) -> tuple[dict[str, str], list[str]]:
    """Return the settings that nearly all values need, and remarks on these and other remedies."""
    found = remedies(seen, dtype, in_text)
    settings = {r.key: r.value for r in found if r.is_for_all}
    return settings, [r.why if r.is_for_all else f"{r.why} (rejected, unless {r.hint})" for r in found]


def _seen(seen: Seen, dtype: str, in_text: bool) -> str:
    """Describe the values seen: `seen: 18 .. 91 in 1,000 rows, 2 empty (...)`."""
    if not seen.rows:
        return "no rows seen"
    found = f"{_number(seen.low)} .. {_number(seen.high)}" if seen.low is not None else seen.kind
    parts = [f"seen: {found} in {seen.rows:,} rows"]
    wants_text = dtype in TEXT
    if wants_text and not in_text and seen.kind not in ("string", "bytes", "nothing"):
        parts.append(f"which is not {dtype}")
    if not (wants_text or seen.is_number or seen.kind in ("nothing", dtype) or seen.number_kind):
        parts.append(f"which is not {dtype}")
    if seen.empty:
        parts.append(f"{seen.empty:,} empty (rejected, unless there is a default)")
    if seen.misfits and not (wants_text and in_text) and not (seen.nulls and in_text):
        parts.append(f"{seen.misfits:,} not {'numbers' if seen.is_number else seen.kind} (rejected)")
    if "int" in dtype and seen.is_number:
        if seen.fractions:
            parts.append(f"{seen.fractions:,} not integers (rejected)")
        limits = np.iinfo(dtype)
        outside = seen.low is not None and seen.high is not None and (seen.low < limits.min or seen.high > limits.max)
        if outside:
            parts.append(f"some outside of {dtype} (rejected)")
    return ", ".join(parts)


def _number(value: float | int | None) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def number_seen(seen: Seen) -> Seen:
    """Return a column of numbers written as strings as a number column, as `from: string` reads it."""
    return seen if seen.number_kind is None else dataclasses.replace(seen, kind=seen.number_kind)
