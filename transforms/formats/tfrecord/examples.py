"""Conversion of serialized tf.Examples to columns, all records of a block in lock-step.

The wire format is parsed with numpy: one load of eight bytes a record decides what comes next, for all records at once.
A record that is not in the plain form of every tf.Example writer (or is broken) is left to protobuf itself:
`_parse_one`. Both ways return the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from beam_score.transforms.arrays.plain import broken_text
from beam_score.transforms.formats.tfrecord.wire import BYTES, FLOAT, INT64, KIND_NAMES, Lists, LockStep
from beam_score.transforms.framing.tfrecord import Records
from beam_score.transforms.model.proto_fields import message_class

_ARROW = {BYTES: pa.binary(), FLOAT: pa.float32(), INT64: pa.int64()}


@dataclasses.dataclass(frozen=True)
class Examples:
    """The content of some records.

    Attributes:
      malformed: positions of the records that are not a tf.Example.
      features: by name and kind.
      others: (row, name) of the features that were not requested; only if wanted.
    """

    malformed: np.ndarray
    features: dict[tuple[str, int], Lists]
    others: list[tuple[int, str]]


def parse(records: Records, names: Sequence[str], want_others: bool = False) -> Examples:
    """Parse records as tf.Examples.

    Args:
      names: the features to return.
      want_others: whether to return the names of other features.
    """
    step = LockStep(records)
    step.find_entries()
    step.find_lists()
    known = step.match(names)
    step.check_other_names(known)
    values = step.values()
    slow = np.flatnonzero(step.slow)
    exact = [_parse_one(records.buffer[records.starts[i] : records.ends[i]]) for i in slow]
    malformed = slow[[found is None for found in exact]] if len(slow) else slow
    features = {}
    for name, at in zip(names, known, strict=True):
        for kind in KIND_NAMES:
            fast = step.lists(at, kind, values)
            left = [
                (row, own)
                for row, found in zip(slow.tolist(), exact, strict=True)
                if (own := _values_of(found, name, kind)) is not None
            ]
            if lists := _merge(fast, left, kind):
                features[name, kind] = lists
    others = []
    if want_others:
        others = step.others(known)
        others += [(int(i), n) for i, found in zip(slow, exact, strict=True) for n in found or () if n not in names]
    return Examples(malformed, features, sorted(set(others)))


def python_rows(records: Records) -> tuple[list[dict[str, Any]], int]:
    """Return the features of some records as Python values, for a draft: a list if any record has several values, text
    if the bytes of all records are UTF-8, because a tf.Example does not distinguish text from bytes; and the number of
    records that are damaged or not a tf.Example."""
    bad = ~records.sound()
    names = dict.fromkeys(name for _, name in parse(records, (), want_others=True).others)
    examples = parse(records, tuple(names))
    bad[examples.malformed] = True
    rows: list[dict[str, Any]] = [{} for _ in range(len(records))]
    for name in names:
        found = [lists for kind in KIND_NAMES if (lists := examples.features.get((name, kind))) is not None]
        single = all((lists.counts <= 1).all() for lists in found)
        for lists in found:
            values = lists.values
            if pa.types.is_binary(values.type) and not len(broken_text(values)):
                values = values.cast(pa.string())
            ends = np.cumsum(lists.counts)
            for row, start, end in zip(lists.rows.tolist(), (ends - lists.counts).tolist(), ends.tolist(), strict=True):
                if end > start:
                    own = values[start:end].to_pylist()
                    rows[row][name] = own[0] if single else own
    return [row for row, is_bad in zip(rows, bad.tolist(), strict=True) if not is_bad], int(bad.sum())


_Features = dict[str, tuple[int, list[Any]]]
"""Kind and values of each feature of a record."""


def _values_of(found: _Features | None, name: str, kind: int) -> list[Any] | None:
    """Return the values of a feature of one record; None if the record does not have it with this kind."""
    found_kind, values = (found or {}).get(name, (None, []))
    return values if found_kind == kind else None


def _merge(fast: Lists | None, left: list[tuple[int, list[Any]]], kind: int) -> Lists | None:
    if not left:
        return fast
    rows = np.array([i for i, _ in left], np.int64)
    lists = pa.array([values for _, values in left], pa.large_list(_ARROW[kind]))
    if fast is not None:
        rows = np.concatenate([fast.rows, rows])
        offsets = pa.array(np.append(0, np.cumsum(fast.counts)))
        lists = pa.concat_arrays([pa.LargeListArray.from_arrays(offsets, fast.values), lists])
    order = np.argsort(rows)
    lists = lists.take(pa.array(order))
    counts = np.diff(lists.offsets.to_numpy())
    return Lists(rows[order], counts, lists.flatten())


# One record, by protobuf.


def _parse_one(record: bytes) -> _Features | None:
    """Return kind and values of each feature; None if the record is not a tf.Example."""
    from google.protobuf.message import DecodeError

    try:
        features = _example_class().FromString(record).features.feature
        found = {}
        for name, feature in features.items():
            kind = feature.WhichOneof("kind")
            if kind:
                number = next(n for n, text in KIND_NAMES.items() if text == kind)
                found[name] = (number, list(getattr(feature, kind).value))
            else:
                found[name] = (0, [])
        return found
    except (DecodeError, UnicodeDecodeError):
        return None


_FIELDS = {
    "Example": [("features", 1, "Features")],
    "Features": [("feature", 1, "%Feature")],
    "Feature": [("bytes_list", 1, "|BytesList"), ("float_list", 2, "|FloatList"), ("int64_list", 3, "|Int64List")],
    "BytesList": [("value", 1, "*bytes")],
    "FloatList": [("value", 1, "*float")],
    "Int64List": [("value", 1, "*int64")],
}


@functools.cache
def _example_class() -> Any:
    """Return tf.Example's message class, declared here: importing TensorFlow for it takes seconds."""
    return message_class("Example", _FIELDS, "beam_score.example")
