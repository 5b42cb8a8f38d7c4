"""Avro schemas: the Arrow type of each column, and an equivalent schema that the decoder of polars can read.

The decoder does not know maps, enums with null, or null itself, and wraps integers that are too large. Where two
schemas have the same encoding one stands for the other: a map is an array of pairs, an enum is an integer, every
integer is a long. Values are then converted to the type of the original schema.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

_DEEPEST = 64
_MOST_DIGITS = 38


class Unsupported(Exception):
    """A schema that cannot be decoded at all. Args: what it is."""


@dataclasses.dataclass(frozen=True)
class Values:
    """How the values of a schema are decoded.

    Attributes:
      wire: the schema that the decoder gets; None for null, which takes no bytes.
      type: of the values.
      convert: from the decoder's values. Raises pa.ArrowException for values that the schema does not allow.
      refused: why a column of such values cannot be used; None if it can.
    """

    wire: Any
    type: pa.DataType
    convert: Callable[[pa.Array], pa.Array]
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
      values: of each column, in the order of the file.
      schema: their names and types.
    """

    values: tuple[Values, ...]
    schema: pa.Schema

    def wire(self) -> dict[str, Any]:
        """Return the decoder's schema; columns are named by their position."""
        fields = [{"name": f"c{i}", "type": v.wire} for i, v in enumerate(self.values) if v.wire is not None]
        return {"type": "record", "name": "row", "fields": fields}


def columns_of(schema: Any) -> Columns:
    """Return the columns of a file with this schema. Raises Unsupported."""
    if not isinstance(schema, Mapping) or schema.get("type") != "record":
        raise Unsupported("the schema is not a record, so rows have no columns")
    parser = _Parser()
    fields = parser.fields(schema, 0)
    if not any(v.wire is not None for _, v in fields):
        raise Unsupported("the schema has no column with values")
    return Columns(tuple(v for _, v in fields), pa.schema([pa.field(n, v.type) for n, v in fields]))


class _Parser:
    def __init__(self) -> None:
        self._named: dict[str, Any] = {}
        self._open: list[str] = []
        self._count = 0

    def fields(self, schema: Mapping[str, Any], depth: int) -> list[tuple[str, Values]]:
        fields = schema.get("fields")
        if not isinstance(fields, list) or not all(isinstance(f, Mapping) and "type" in f for f in fields):
            raise Unsupported("a record has no list of fields")
        found = []
        for field in fields:
            name = str(field.get("name"))
            try:
                found.append((name, self.values(field["type"], depth + 1)))
            except Unsupported as error:
                # The outermost name is that of the column.
                raise Unsupported(f"column {name!r} {error}" if not depth else str(error)) from None
        return found

    def values(self, schema: Any, depth: int) -> Values:
        if depth > _DEEPEST:
            raise Unsupported(f"is nested deeper than {_DEEPEST}")
        if isinstance(schema, list):
            return self._union(schema, depth)
        if isinstance(schema, str):
            if schema in _PRIMITIVE:
                return _PRIMITIVE[schema]
            if schema in self._open:
                raise Unsupported(f"is of a type that contains itself, {schema}")
            if schema not in self._named:
                raise Unsupported(f"is of a type that the schema does not define, {schema}")
            return self.values(self._named[schema], depth + 1)
        if not isinstance(schema, Mapping):
            raise Unsupported("has no type")
        kind = schema.get("type")
        if kind in ("record", "enum", "fixed"):
            self._named |= dict.fromkeys(_names(schema), schema)
        if kind == "record":
            return self._record(schema, depth)
        if kind == "array":
            return _lists(self.values(schema.get("items"), depth + 1))
        if kind == "map":
            return _pairs(self.values(schema.get("values"), depth + 1), self._name())
        if kind == "enum":
            return _enum(schema)
        if kind == "fixed":
            return self._fixed(schema)
        return _logical(schema, self.values(kind, depth + 1))

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _union(self, branches: list[Any], depth: int) -> Values:
        others = [b for b in branches if b != "null"]
        if len(others) != 1 or len(branches) != 2:
            shown = " and ".join(_shown(b) for b in branches)
            raise Unsupported(f"is a union of {shown}: of unions, only those of null and one other type are read")
        inner = self.values(others[0], depth + 1)
        if inner.wire is None:
            raise Unsupported("is a union of null and null")
        return dataclasses.replace(inner, wire=["null", inner.wire] if branches[0] == "null" else [inner.wire, "null"])

    def _record(self, schema: Mapping[str, Any], depth: int) -> Values:
        names = _names(schema)
        self._open += names
        fields = self.fields(schema, depth + 1)
        del self._open[len(self._open) - len(names) :]
        if not fields or any(v.wire is None for _, v in fields):
            raise Unsupported("has a record without values, or with a field that is always null")
        wire = {
            "type": "record",
            "name": self._name(),
            "fields": [{"name": f"f{i}", "type": v.wire} for i, (_, v) in enumerate(fields)],
        }
        refused = next((v.refused for _, v in fields if v.refused), None)
        return Values(wire, pa.struct([pa.field(n, v.type) for n, v in fields]), _struct_converter(fields), refused)

    def _fixed(self, schema: Mapping[str, Any]) -> Values:
        size = schema.get("size")
        if not isinstance(size, int) or size < 1:
            raise Unsupported(f"is fixed of {size!r} bytes")
        wire = {"type": "fixed", "name": self._name(), "size": size}
        return _logical(schema, Values(wire, pa.binary(), lambda array: array.cast(pa.binary())))


def _names(schema: Mapping[str, Any]) -> list[str]:
    """Return the names by which a type may be referred to."""
    name = str(schema.get("name"))
    space = schema.get("namespace")
    return list({name, name.rpartition(".")[2], f"{space}.{name}" if space else name})


def _shown(schema: Any) -> str:
    return schema if isinstance(schema, str) else str(schema.get("type")) if isinstance(schema, Mapping) else "a union"


def _as_text(array: pa.Array) -> pa.Array:
    return array.cast(pa.binary()).view(pa.string())  # unchecked: `convert` and `carry` report text that is not UTF-8


def _plain(wire: str, type_: pa.DataType) -> Values:
    return Values(wire, type_, lambda array: array.cast(type_))


_PRIMITIVE = {
    "null": Values(None, pa.null(), lambda array: array),
    "boolean": _plain("boolean", pa.bool_()),
    "int": _plain("long", pa.int32()),
    "long": _plain("long", pa.int64()),
    "float": _plain("float", pa.float32()),
    "double": _plain("double", pa.float64()),
    "bytes": _plain("bytes", pa.binary()),
    "string": Values("bytes", pa.string(), _as_text),
}


def _enum(schema: Mapping[str, Any]) -> Values:
    symbols = schema.get("symbols")
    if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
        raise Unsupported("is an enum without symbols")
    names = pa.array(symbols, pa.string())
    return Values("long", pa.string(), lambda array: names.take(array))


def _lists(inner: Values) -> Values:
    if inner.wire is None:
        raise Unsupported("is an array of null")
    type_ = pa.list_(inner.type)

    def convert(array: pa.Array) -> pa.Array:
        offsets = array.offsets.cast(pa.int32())
        return pa.ListArray.from_arrays(offsets, inner.convert(array.values), type_, mask=_nulls(array))

    return Values({"type": "array", "items": inner.wire}, type_, convert, inner.refused)


def _pairs(inner: Values, name: str) -> Values:
    if inner.wire is None:
        raise Unsupported("is a map of null")
    fields = [("key", _PRIMITIVE["string"]), ("value", inner)]
    wire = {
        "type": "record",
        "name": name,
        "fields": [{"name": "f0", "type": "bytes"}, {"name": "f1", "type": inner.wire}],
    }
    pair = Values(wire, pa.struct([pa.field(n, v.type) for n, v in fields]), _struct_converter(fields))
    return dataclasses.replace(_lists(pair), refused="is a map: write its values as columns of their own")


def _struct_converter(fields: list[tuple[str, Values]]) -> Callable[[pa.Array], pa.Array]:
    struct = pa.struct([pa.field(n, v.type) for n, v in fields])

    def convert(array: pa.Array) -> pa.Array:
        parts = [values.convert(array.field(i)) for i, (_, values) in enumerate(fields)]
        return pa.StructArray.from_arrays(parts, fields=list(struct), mask=_nulls(array))

    return convert


def _nulls(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


_TIMES = {
    ("date", "int"): pa.date32(),
    ("time-millis", "int"): pa.time32("ms"),
    ("time-micros", "long"): pa.time64("us"),
    ("timestamp-millis", "long"): pa.timestamp("ms", "UTC"),
    ("timestamp-micros", "long"): pa.timestamp("us", "UTC"),
    ("timestamp-nanos", "long"): pa.timestamp("ns", "UTC"),
    ("local-timestamp-millis", "long"): pa.timestamp("ms"),
    ("local-timestamp-micros", "long"): pa.timestamp("us"),
    ("local-timestamp-nanos", "long"): pa.timestamp("ns"),
}


def _logical(schema: Mapping[str, Any], values: Values) -> Values:
    """Return the values of a logical type. An unknown one is that of its base, as the specification demands."""
    logical = schema.get("logicalType")
    if (type_ := _TIMES.get((str(logical), str(schema.get("type"))))) is not None:
        base = pa.int32() if schema["type"] == "int" else pa.int64()
        return Values("long", type_, lambda array: array.cast(base).cast(type_))
    if logical == "decimal" and schema.get("type") in ("bytes", "fixed"):
        digits, scale = schema.get("precision"), schema.get("scale", 0)
        if not isinstance(digits, int) or not isinstance(scale, int) or not 0 <= scale <= digits or digits < 1:
            return values
        if digits > _MOST_DIGITS:
            why = f"is a decimal of {digits} digits, and at most {_MOST_DIGITS} are read: write it as a string"
            return dataclasses.replace(values, refused=why)
        wire = {"type": "bytes"} if values.wire == "bytes" else dict(values.wire)
        wire |= {"logicalType": "decimal", "precision": digits, "scale": scale}
        type_ = pa.decimal128(digits, scale)
        return Values(wire, type_, lambda array: array.cast(type_))
    return values
