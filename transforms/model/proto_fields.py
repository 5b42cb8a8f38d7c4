"""Protocol buffer messages defined by a table of the required fields, for files whose full definitions would require
TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

Fields = Mapping[str, Sequence[tuple[str, int, str]]]
"""Message -> (field, number, type). `*` before the type means repeated, `%` a map from string, `|` one of `kind`.
An enum is read as the int32 of its wire format."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
    "float": _FIELD.TYPE_FLOAT,
    "double": _FIELD.TYPE_DOUBLE,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
    "bool": _FIELD.TYPE_BOOL,
}


def message_class(name: str, fields: Fields, package: str) -> type[message.Message]:
    """Return the class of the message `name` of a table; see `message_classes`."""
    return message_classes(fields, package)[name]


def message_classes(fields: Fields, package: str) -> dict[str, type[message.Message]]:
    """Return the classes of the messages of a table, by name.

    Args:
      package: a package name for the messages of this table, such as `beam_score.saved_model`.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file_of(fields, package))
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in fields}


def file_of(fields: Fields, package: str) -> descriptor_pb2.FileDescriptorProto:
    """Return the description of a file with the messages of a table; see `message_classes`."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package.replace('.', '/')}.proto", package=package, syntax="proto3"
    )
    for message_name, its_fields in fields.items():
        to = file.message_type.add(name=message_name)
        if any(kind.startswith("|") for _, _, kind in its_fields):
            to.oneof_decl.add(name="kind")
        for field, number, kind in its_fields:
            _add(to, field, number, kind, f".{package}.", message_name)
    return file


def _add(to: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str, package: str, path: str) -> None:
    sign, bare = (kind[0], kind[1:]) if kind[0] in "*%|" else ("", kind)
    field = to.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if sign in ("*", "%") else field.LABEL_OPTIONAL
    if sign == "|":
        field.oneof_index = 0
    if sign == "%":
        entry = to.nested_type.add(name="".join(w.title() for w in name.split("_")) + "Entry")
        entry.options.map_entry = True
        _add(entry, "key", 1, "string", package, path)
        _add(entry, "value", 2, bare, package, path)
        field.type, field.type_name = field.TYPE_MESSAGE, f"{package}{path}.{entry.name}"
    elif bare in _SCALARS:
        field.type = _SCALARS[bare]
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f"{package}{bare}"
