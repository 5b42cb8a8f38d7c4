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

from beam_score.transforms.formats.avro.container import MOST_BLOCK_BYTES

_DEEPEST = 64
_MOST_TYPES = 20_000
_DECIMAL_BYTES = 16  # of a decimal of 38 digits
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
    parser.open(schema, "")
    fields = parser.fields(schema, _space_of(schema, ""), 0)
    if not any(v.wire is not None for _, v in fields):
        raise Unsupported("the schema has no column with values")
    return Columns(tuple(v for _, v in fields), pa.schema([pa.field(n, v.type) for n, v in fields]))


class _Parser:
    """A `space` is the namespace in which names without a dot are resolved."""

    def __init__(self) -> None:
        self._named: dict[str, tuple[Any, str]] = {}
        self._open: list[str] = []
        self._count = self._seen = 0

    def open(self, schema: Mapping[str, Any], space: str) -> None:
        """Note a type that contains what is parsed from now on."""
        self._open.append(_full_name(schema, space))

    def fields(self, schema: Mapping[str, Any], space: str, depth: int) -> list[tuple[str, Values]]:
        fields = schema.get("fields")
        if not isinstance(fields, list) or not all(isinstance(f, Mapping) and "type" in f for f in fields):
            raise Unsupported("a record has no list of fields")
        found = []
        for field in fields:
            name = str(field.get("name"))
            try:
                found.append((name, self.values(field["type"], space, depth + 1)))
            except Unsupported as error:
                # The outermost name is that of the column.
                raise Unsupported(f"column {name!r} {error}" if not depth else str(error)) from None
        return found

    def values(self, schema: Any, space: str, depth: int) -> Values:
        self._seen += 1
        if self._seen > _MOST_TYPES:  # named types are expanded where they are used, which may be exponential
            raise Unsupported(f"has more than {_MOST_TYPES} types within types")
        if depth > _DEEPEST:
            raise Unsupported(f"is nested deeper than {_DEEPEST}")
        if isinstance(schema, list):
            return self._union(schema, space, depth)
        if isinstance(schema, str):
            return _PRIMITIVE[schema] if schema in _PRIMITIVE else self._reference(schema, space, depth)
        if not isinstance(schema, Mapping):
            raise Unsupported("has no type")
        kind = schema.get("type")
        if kind in ("record", "enum", "fixed"):
            self._named[_full_name(schema, space)] = (schema, space)
        if kind == "record":
            return self._record(schema, space, depth)
        if kind == "array":
            return _lists(self.values(schema.get("items"), space, depth + 1))
        if kind == "map":
            return _pairs(self.values(schema.get("values"), space, depth + 1), self._name())
        if kind == "enum":
            return _enum(schema)
        if kind == "fixed":
            return self._fixed(schema)
        return _logical(schema, self.values(kind, space, depth + 1))

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def _reference(self, name: str, space: str, depth: int) -> Values:
        full = name if "." in name or not space else f"{space}.{name}"
        if full in self._open:
            raise Unsupported(f"is of a type that contains itself, {name}")
        if full not in self._named:
            raise Unsupported(f"is of a type that the schema does not define, {name}")
        schema, within = self._named[full]
        return self.values(schema, within, depth + 1)

    def _union(self, branches: list[Any], space: str, depth: int) -> Values:
        others = [b for b in branches if b != "null"]
        if len(others) != 1 or len(branches) != 2:
            shown = " and ".join(_shown(b) for b in branches)
            raise Unsupported(f"is a union of {shown}: of unions, only those of null and one other type are read")
        inner = self.values(others[0], space, depth + 1)
        if inner.wire is None:
            raise Unsupported("is a union of null and null")
        return dataclasses.replace(inner, wire=["null", inner.wire] if branches[0] == "null" else [inner.wire, "null"])

    def _record(self, schema: Mapping[str, Any], space: str, depth: int) -> Values:
        self.open(schema, space)
        fields = self.fields(schema, _space_of(schema, space), depth + 1)
        self._open.pop()
        if not fields or any(v.wire is None for _, v in fields):
            raise Unsupported("has a record without values, or with a field that is always null")
        return _struct(fields, self._name())

    def _fixed(self, schema: Mapping[str, Any]) -> Values:
        size = schema.get("size")
        if type(size) is not int or not 1 <= size <= MOST_BLOCK_BYTES:
            raise Unsupported(f"is fixed of {size!r} bytes")
        wire = {"type": "fixed", "name": self._name(), "size": size}
        return _logical(schema, Values(wire, pa.binary(), lambda array: array.cast(pa.binary())))


def _full_name(schema: Mapping[str, Any], space: str) -> str:
    """Return the name of a type with its namespace, which it may inherit (the specification, "Names")."""
    name = str(schema.get("name"))
    if "." in name:
        return name
    space = str(schema.get("namespace") or "") if "namespace" in schema else space
    return f"{space}.{name}" if space else name


def _space_of(schema: Mapping[str, Any], space: str) -> str:
    """Return the namespace in which the fields of a record are."""
    return _full_name(schema, space).rpartition(".")[0]


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
    pair = _struct([("key", _PRIMITIVE["string"]), ("value", inner)], name)
    return dataclasses.replace(_lists(pair), refused="is a map: write its values as columns of their own")


def _struct(fields: list[tuple[str, Values]], name: str) -> Values:
    """Return the values of a record, which is named `name` for the decoder."""
    wire_fields = [{"name": f"f{i}", "type": v.wire} for i, (_, v) in enumerate(fields)]
    struct = pa.struct([pa.field(n, v.type) for n, v in fields])
    refused = next((v.refused for _, v in fields if v.refused), None)

    def convert(array: pa.Array) -> pa.Array:
        parts = [values.convert(array.field(i)) for i, (_, values) in enumerate(fields)]
        return pa.StructArray.from_arrays(parts, fields=list(struct), mask=_nulls(array))

    return Values({"type": "record", "name": name, "fields": wire_fields}, struct, convert, refused)


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
        if type(digits) is not int or type(scale) is not int or not 0 <= scale <= digits or digits < 1:
            return values
        if schema["type"] == "fixed" and schema["size"] > _DECIMAL_BYTES:
            why = f"is a decimal of {schema['size']} bytes, and at most {_DECIMAL_BYTES} are read: write it as a string"
            return dataclasses.replace(values, refused=why)
        if digits > _MOST_DIGITS:
            why = f"is a decimal of {digits} digits, and at most {_MOST_DIGITS} are read: write it as a string"
            return dataclasses.replace(values, refused=why)
        wire = {"type": "bytes"} if values.wire == "bytes" else dict(values.wire)
        wire |= {"logicalType": "decimal", "precision": digits, "scale": scale}
        type_ = pa.decimal128(digits, scale)
        return Values(wire, type_, lambda array: array.cast(type_))
    return values
