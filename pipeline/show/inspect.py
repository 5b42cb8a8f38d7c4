"""`beam-score inspect`: describe a model's versions, hash and signatures, without loading TensorFlow."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from beam_score.pipeline.printing.terminal import Console, escape, printable
from beam_score.transforms.contract.outputs import Output, unusable_output
from beam_score.transforms.model.copies import hashed_model, named
from beam_score.transforms.model.ops import ops_of
from beam_score.transforms.model.signature import (
    DEFAULT_SIGNATURE,
    Signature,
    Tensor,
    read_signatures,
    tensorflow_version,
    unsupported,
)
from beam_score.transforms.model.versions import find_version


def inspect_model(path: str, version: str | int = "latest") -> dict[str, Any]:
    """Describe a model as JSON-serializable data.

    Args:
      path: a SavedModel folder, or a folder of numbered versions, local or in an object store.
      version: a number, or `latest`.

    Returns:
      path (of the SavedModel itself), version (None if it has no number), versions, sha256, tensorflow (the version
      that wrote the model) and signatures: by name, each with its method, inputs and outputs (name to dtype and shape;
      None for an open dimension, a shape of None for an unknown rank), problems (messages about inputs that cannot be
      fed and outputs that cannot be written), and effects (descriptions of ops that do more than compute).

    Raises:
      ModelError: if the model or version does not exist.
    """
    found = find_version(path, version)
    local, sha256 = hashed_model(found.path)
    with named(found.path, local):
        signatures, tensorflow = read_signatures(local), tensorflow_version(local)
        effects = {name: ops_of(local, name).describe() for name in signatures}
    return {
        "path": found.path,
        "version": found.version,
        "versions": list(found.versions),
        "sha256": sha256,
        "tensorflow": tensorflow,
        "signatures": {
            name: {
                "method": signature.method_name,
                "inputs": {t.name: _tensor(t) for t in signature.inputs.values()},
                "outputs": {t.name: _tensor(t) for t in signature.outputs.values()},
                "problems": _problems(signature),
                "effects": effects[name],
            }
            for name, signature in signatures.items()
        },
    }


def print_inspection(info: dict[str, Any], console: Console) -> None:
    """Print the result of `inspect_model`: a few facts, and a table per signature."""
    facts = {"model": info["path"], "sha256": info["sha256"]}
    if info["version"] is not None:
        others = [v for v in info["versions"] if v != info["version"]]
        facts["version"] = info["version"] + (f" (others: {', '.join(others)})" if others else "")
    facts["written by"] = f"TensorFlow {info['tensorflow'] or '(unknown version)'}"
    for fact, value in facts.items():
        console.print(Text(printable(f"{fact:<12}{value}")), soft_wrap=True)  # a path stays on one line, to copy it
    if not info["signatures"]:
        console.print("no signatures: export it with model.export(path), or tf.saved_model.save(..., signatures=...)")
    for name, signature in info["signatures"].items():
        note = " (the default; see model.signature)" if name == DEFAULT_SIGNATURE else ""
        console.print()
        console.print(Text(printable(f"signature {name}{note}"), style="bold"), soft_wrap=True)
        table = Table()
        for heading in ("", "name", "dtype", "shape"):
            table.add_column(heading, overflow="fold")
        for side in ("inputs", "outputs"):
            for key, tensor in signature[side].items():
                table.add_row(side[:-1], Text(printable(key)), escape(tensor["dtype"]), _shape(tensor))
            table.add_section()
        console.print(table)
        for problem in signature["problems"]:
            console.print(Text(printable(f"cannot be used: {problem}")), soft_wrap=True)
        for effect in signature["effects"]:
            console.print(Text(printable(f"does more than compute: {effect}"), style="yellow"), soft_wrap=True)
    if any(signature["effects"] for signature in info["signatures"].values()):
        console.print("A model is a program: run a model that you do not trust in isolation.")


def _problems(signature: Signature) -> list[str]:
    outputs = (unusable_output(tensor, Output()) for tensor in signature.outputs.values())
    return unsupported(signature) + [problem for problem in outputs if problem]


def _tensor(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else list(tensor.shape)
    return {"dtype": tensor.dtype, "shape": shape, "kind": tensor.kind}


def _shape(tensor: dict[str, Any]) -> Text:
    if tensor["kind"] != "dense":
        return Text(printable(tensor["kind"]))
    if tensor["shape"] is None:
        return Text("unknown")
    return Text("[" + ", ".join("?" if d is None else str(d) for d in tensor["shape"]) + "]")
