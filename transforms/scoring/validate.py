"""Validation of the values of a block against the contract, a whole column at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.nested import leaves, owners
from beam_score.transforms.arrays.plain import distinct_pairs, is_true, nulls_of, values_of, whole
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.contract.numbers import BLANKS, parse_bool, parse_float, parse_integer, with_decimal_point
from beam_score.transforms.contract.single_values import without_nan
from beam_score.transforms.contract.values import NAN_HINT, convert, fits
from beam_score.transforms.rows.block import ROW, Block, reject_rows
from beam_score.transforms.rows.faults import FAULTS, Fault

_SHOWN_CHARS = 40
_DECIMAL_COMMA = r"^[ \t]*[+-]?[0-9]+,[0-9]+[ \t]*$"
_NAN = r"^[ \t]*[+-]?nan[ \t]*$"
_ENDLESS = r"^[ \t]*[+-]?(nan|inf|infinity)[ \t]*$"


def validate(block: Block, contract: Contract, show_values: bool = True) -> Block:
    """Return the block with its contract columns typed, and the rows that break the contract rejected.

    Args:
      block: as returned by a reader.
      contract: defines a valid row. A required column that the block lacks is `missing_column`.
      show_values: whether messages may contain the value that was found.

    Raises:
      ValueError: the block's rows have no numbers.
    """
    _check_numbered(block.rows)
    names = block.rows.schema.names  # built at each call
    known = set(names)
    lacking = [name for name in contract.columns if name not in known]
    faults = _reader_faults(block.rows)
    for name in lacking:
        if contract.columns[name].required:
            message = f"column {name!r} is missing{near_miss(name, names)}"
            faults.append(Fault(np.arange(block.rows.num_rows), name, "missing_column", message))
    faulty: dict[str | None, np.ndarray] = {}
    for fault in faults:  # a column may have several
        faulty[fault.column] = np.append(faulty.get(fault.column, np.array([], np.int64)), fault.index)
    held = contract.limits.held(block.rows) - faulty.keys()
    new: dict[str, pa.Array] = {}
    tally: dict[str, int] = {}
    for name in (*names, *lacking):
        column = contract.columns.get(name)
        if column is None or name in held:
            continue
        values = block.rows[name] if name in known else pa.nulls(block.rows.num_rows)
        judged = judge(name, column, values, faulty.get(name), show_values)
        faults += judged.faults
        if judged.values is not values or name not in known:
            new[name] = judged.values
        if judged.defaults:
            tally["defaults_used"] = tally.get("defaults_used", 0) + judged.defaults
            tally[f"defaults_used.{name}"] = judged.defaults
    if new or FAULTS in known:
        kept = [name for name in (*names, *lacking) if name != FAULTS]
        rows = pa.RecordBatch.from_pydict({n: new[n] if n in new else block.rows[n] for n in kept})
        block = dataclasses.replace(block, rows=rows)
    return reject_rows(block.with_tally(**tally), faults, "validate", contract.order)


def _check_numbered(rows: pa.RecordBatch) -> None:
    if ROW not in rows.schema.names or rows.schema.field(ROW).type != pa.int64():
        raise ValueError(
            f"the rows of a block need a column {ROW!r} of int64, the number of each row in its file: add it"
        )


def _reader_faults(rows: pa.RecordBatch) -> list[Fault]:
    """Return the faults that a reader recorded in the FAULTS column, one per column and reason."""
    if FAULTS not in rows.schema.names:
        return []
    lists = rows[FAULTS]
    parent = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    errors = lists.flatten()
    kinds, kind_of, _ = distinct_pairs(errors.field(1), errors.field(0))
    faults = []
    for number, (reason, column) in enumerate(kinds):
        where = np.flatnonzero(kind_of == number)
        faults.append(Fault(parent[where], column, reason, errors.field(2).take(pa.array(where))))
    return faults


@dataclasses.dataclass(frozen=True)
class Judged:
    """The result of validating one column.

    Attributes:
      values: of the column's Arrow type; undefined if a row is at fault.
      faults: at most one a row.
      defaults: how many missing values were filled.
    """

    values: pa.Array
    faults: list[Fault]
    defaults: int = 0


def judge(
    name: str, column: Column, values: pa.Array, known_bad: np.ndarray | None, show_values: bool = True
) -> Judged:
    """Type one column and find every row that breaks its rules.

    Args:
      values: text (under a number or bool column), or values of the column's Arrow type.
      known_bad: positions at which the reader has already reported a fault of this column.
    """
    found = values  # quoted in messages
    faults: list[Fault] = []
    bad = np.zeros(len(values), bool)
    if known_bad is not None:
        bad[known_bad] = True

    def refuse(mask: np.ndarray, reason: str, expected: str | None = None) -> None:
        mask = mask & ~bad
        index = np.flatnonzero(mask)
        if len(index):
            bad[index] = True
            faults.append(
                Fault(index, name, reason, _messages(name, found, index, expected or column.describe(), show_values))
            )

    if pa.types.is_null(values.type):
        values = pa.nulls(len(values), column.arrow_type)
    elif (
        not column.shape
        and not column.is_text
        and (pa.types.is_string(values.type) or pa.types.is_large_string(values.type))
    ):
        parse = parse_bool if column.dtype == "bool" else parse_float if column.is_float else parse_integer
        text = with_decimal_point(values) if column.decimal == "," else values
        values, wrong_type, out_of_range = parse(text, column.dtype)
        if column.lacks_nan and column.is_integer and wrong_type.any():
            at = np.flatnonzero(wrong_type)
            at = at[is_true(pc.match_substring_regex(found.take(pa.array(at)), _NAN, ignore_case=True))]
            wrong_type[at] = False
            values = _with_nulls(values, at)
        if column.is_integer and column.finite and wrong_type.any():
            # A number, valid in a float column, that does not fit an integer dtype.
            at = np.flatnonzero(wrong_type)
            endless = np.zeros(len(values), bool)
            endless[at] = is_true(pc.match_substring_regex(found.take(pa.array(at)), _ENDLESS, ignore_case=True))
            refuse(endless, "not_finite", column.describe() + NAN_HINT)
        if wrong_type.any() and column.is_numeric and column.decimal != ",":
            at = np.flatnonzero(wrong_type)
            commas = np.zeros(len(values), bool)
            commas[at] = is_true(pc.match_substring_regex(found.take(pa.array(at)), _DECIMAL_COMMA))
            refuse(commas, "wrong_type", f'{column.describe()}; for numbers with a decimal comma set decimal: ","')
        refuse(wrong_type, "wrong_type")
        if out_of_range.any():
            refuse(out_of_range, "out_of_range", _dtype_limits(column))
    elif values.type != column.arrow_type and fits(values.type, column):
        values, more = convert(values, name, column, show_values)
        for fault in more:
            fault = dataclasses.replace(fault, index=fault.index[~bad[fault.index]], message=_of(fault, ~bad))
            bad[fault.index] = True
            faults.append(fault)
    elif values.type != column.arrow_type:
        refuse(is_true(values.is_valid()), "wrong_type", f"{column.describe()}, and the block has {values.type}")
        values = pa.nulls(len(values), column.arrow_type)
    if column.lacks_nan:
        values = _nan_as_null(column, values, refuse)
    if column.trims:
        values = pc.utf8_trim(values, BLANKS)

    defaults = 0
    if values.null_count:
        missing = nulls_of(values) & ~bad
        if column.default is not None:
            defaults = int(missing.sum())
            if defaults:
                values = pc.if_else(pa.array(missing), pa.scalar(column.default, column.arrow_type), values)
        elif column.required and missing.any():
            index = np.flatnonzero(missing)
            bad[index] = True
            message = (
                f"column {name!r} is missing, expected {column.describe()}: supply it, or give the column a default"
            )
            faults.append(Fault(index, name, "missing_value", message))
    _judge_values(column, values, refuse)
    return Judged(values, faults, defaults)


def _of(fault: Fault, good: np.ndarray) -> pa.Array | str:
    """Return the messages of a fault for the rows that are good so far."""
    return fault.message if isinstance(fault.message, str) else fault.message.filter(pa.array(good[fault.index]))


def _with_nulls(values: pa.Array, at: np.ndarray) -> pa.Array:
    mask = np.zeros(len(values), bool)
    mask[at] = True
    return pc.if_else(pa.array(mask), pa.scalar(None, values.type), values)


def _nan_as_null(column: Column, values: pa.Array, refuse: Callable[..., None]) -> pa.Array:
    """Return the values, null where they are NaN; a list that contains a NaN is refused, like one that contains a
    null."""
    if not column.is_float:
        return values
    if not column.shape:
        return without_nan(values)
    flat, spread = _flatten(column, values)
    nan = np.isnan(values_of(flat))
    if nan.any():
        refuse(spread(nan), "missing_value")
    return values


def _dtype_limits(column: Column) -> str:
    info = np.finfo(column.dtype) if column.is_float else np.iinfo(column.dtype)
    return f"{column.describe()}, with the range {info.min} to {info.max}"


def _judge_values(column: Column, values: pa.Array, refuse: Callable[..., None]) -> None:
    """Apply the rules on values: finiteness, range, allowed values, lengths."""
    flat, spread = _flatten(column, values)
    if column.is_numeric and len(flat):
        numbers = values_of(flat)
        # One pass identifies a clean column: NaN makes min and max NaN, and infinities are extremes.
        if not _all_inside(column, numbers):
            at = _outside(column, numbers)
            if flat.null_count:
                at = at[~nulls_of(flat)[at]]
            suspects = numbers[at]

            def rows(where: np.ndarray) -> np.ndarray:
                mask = np.zeros(len(numbers), bool)
                mask[at[where]] = True
                return spread(mask)

            if column.is_float and column.finite:
                nan = rows(np.isnan(suspects))
                refuse(nan, "not_finite", column.describe() + NAN_HINT)
                refuse(rows(np.isinf(suspects)) & ~nan, "not_finite", column.describe())
            if column.range is not None:
                low, high = column.limits
                with np.errstate(invalid="ignore"):
                    refuse(rows((suspects < low) | (suspects > high)), "out_of_range")
    if column.allowed is not None:
        allowed = [a.encode() if column.dtype == "bytes" else a for a in column.allowed]
        inside = pc.is_in(flat, pa.array(allowed, flat.type), skip_nulls=True)
        refuse(spread(is_true(pc.and_(flat.is_valid(), pc.invert(inside)))), "not_allowed")
    if column.min_length is not None or column.max_length is not None:
        length = pc.binary_length(flat) if column.dtype == "bytes" else pc.utf8_length(flat)
        if column.min_length is not None:
            refuse(spread(is_true(pc.less(length, column.min_length))), "out_of_range")
        if column.max_length is not None:
            refuse(spread(is_true(pc.greater(length, column.max_length))), "out_of_range")


def _all_inside(column: Column, numbers: np.ndarray) -> bool:
    least, most = numbers.min(), numbers.max()
    if column.is_float and column.finite and not (np.isfinite(least) and np.isfinite(most)):
        return False
    if column.range is None:
        return True
    low, high = column.limits
    return bool(least >= low and most <= high)


def _outside(column: Column, numbers: np.ndarray) -> np.ndarray:
    """Return the positions of the numbers that are outside of the column's range, or not finite where they must be."""
    if column.range is None:
        return np.flatnonzero(~np.isfinite(numbers))
    low, high = column.limits
    with np.errstate(invalid="ignore"):
        inside = (numbers >= low) & (numbers <= high)  # false for NaN, which no rule refuses where it is allowed
    if column.is_float and column.finite and not (np.isfinite(low) and np.isfinite(high)):
        inside &= np.isfinite(numbers)
    return np.flatnonzero(~inside)


def _flatten(column: Column, values: pa.Array) -> tuple[pa.Array, Callable[[np.ndarray], np.ndarray]]:
    """Return the single values of a column, and a function that maps a mask over them to a mask over rows."""
    if not column.shape:
        return values, lambda mask: mask
    parents = owners(values)

    def spread(mask: np.ndarray) -> np.ndarray:
        rows = np.zeros(len(values), bool)
        rows[parents[mask]] = True
        return rows

    return leaves(values), spread


def _messages(name: str, found: pa.Array, index: np.ndarray, expected: str, show_values: bool) -> pa.Array | str:
    """Return one message per row, for example `column 'age' is 'n/a', expected float32 (contract: range 0..150)`."""
    if not show_values:
        return f"column {name!r} is not as expected: {expected}"
    picked = whole(found).take(pa.array(index))
    quote = "'" if pa.types.is_string(picked.type) else ""
    if pa.types.is_floating(picked.type):
        # A text for each distinct value: there may be many rows. By its bits, since 0 is not shown like -0.
        numbers = values_of(picked)
        bits, at = np.unique(numbers.view(f"i{numbers.itemsize}"), return_inverse=True)
        text = pa.array([_shown(v) for v in bits.view(numbers.dtype).tolist()], pa.string()).take(pa.array(at))
    elif pa.types.is_nested(picked.type) or pa.types.is_binary(picked.type):
        text = pa.array([_shown(v) for v in picked.to_pylist()], pa.string())
    else:
        text = pc.utf8_slice_codeunits(picked.cast(pa.string()), 0, _SHOWN_CHARS)
    return pc.binary_join_element_wise(f"column {name!r} is {quote}", text, f"{quote}, expected {expected}", "")


def _shown(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


assert ROW != FAULTS
