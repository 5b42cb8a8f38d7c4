"""SavedModel folders with faults: damaged bytes, or a signature that TensorFlow does not write. Deterministic: the same
seed gives the same faults."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from beam_score.transforms.model.signature import _message_class

PB = "saved_model.pb"
DATA, INDEX = "variables/variables.data-00000-of-00001", "variables/variables.index"

_DTYPES = (0, 1, 2, 3, 7, 8, 9, 10, 14, 19, 20, 21, 24, 26, 101, 999, -1)
_SIZES = (-2, 0, 1, 3, 7, 1 << 20, 1 << 40, (1 << 63) - 1)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one fault, or a few."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 3, 20))):
        if not found:
            return b""
        at, length = rng.randrange(len(found)), rng.choice((1, 2, 8, 64, 1000))
        kind = rng.randrange(6)
        if kind == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            found[at : at + length] = bytes(rng.randrange(256) for _ in range(min(length, 64)))
        elif kind == 2:
            del found[at : at + length]
        elif kind == 3:
            found[at:at] = found[at : at + length]
        elif kind == 4:
            del found[at:]
        else:
            found[at : at + length] = bytes(min(length, len(found) - at))
    return bytes(found)


def odd_signature(data: bytes, rng: random.Random) -> bytes:
    """Return an intact `saved_model.pb` with an unusual signature."""
    model = _message_class().FromString(data)
    signature = next(s for name, s in sorted(model.meta_graphs[0].signature_def.items()) if "init" not in name)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_ODD)(signature, rng)
    return model.SerializeToString()


def _tensor(signature: Any, rng: random.Random) -> Any:
    tensors = [side[name] for side in (signature.inputs, signature.outputs) for name in sorted(side)]
    return rng.choice(tensors) if tensors else signature.inputs["new"]


def _dtype(signature: Any, rng: random.Random) -> None:
    _tensor(signature, rng).dtype = rng.choice(_DTYPES)


def _rank(signature: Any, rng: random.Random) -> None:
    shape = _tensor(signature, rng).tensor_shape
    if rng.random() < 0.5 and shape.dim:
        del shape.dim[rng.randrange(len(shape.dim)) :]
    else:
        for _ in range(rng.choice((1, 2, 40))):
            shape.dim.add(size=rng.choice(_SIZES))


def _size(signature: Any, rng: random.Random) -> None:
    shape = _tensor(signature, rng).tensor_shape
    if shape.dim:
        rng.choice(shape.dim).size = rng.choice(_SIZES)


def _unknown_rank(signature: Any, rng: random.Random) -> None:
    _tensor(signature, rng).tensor_shape.unknown_rank = True


def _node(signature: Any, rng: random.Random) -> None:
    _tensor(signature, rng).name = rng.choice(("", ":0", "nowhere:0", "StatefulPartitionedCall:7", "^x", "x" * 5000))


def _composite(signature: Any, rng: random.Random) -> None:
    tensor = _tensor(signature, rng)
    tensor.composite_tensor.type_spec.type_spec_class = rng.choice((0, 1, 3, 99))
    for _ in range(rng.choice((0, 0, 2))):
        tensor.composite_tensor.components.add(name="x:0", dtype=1)


def _sparse(signature: Any, rng: random.Random) -> None:
    _tensor(signature, rng).coo_sparse.values_tensor_name = rng.choice(("", "x:0"))


def _renamed(signature: Any, rng: random.Random) -> None:
    side = rng.choice((signature.inputs, signature.outputs))
    for name in sorted(side)[:1]:
        side[rng.choice(("", " ", "\0", "\x1b[31m", "a" * 3000, "ключ", "[red]", "input/x", "#row"))].CopyFrom(
            side[name]
        )
        del side[name]


def _fewer(signature: Any, rng: random.Random) -> None:
    side = rng.choice((signature.inputs, signature.outputs))
    for name in sorted(side)[:1]:
        del side[name]


_ODD: tuple[Callable[[Any, random.Random], None], ...] = (
    _dtype,
    _rank,
    _size,
    _unknown_rank,
    _node,
    _composite,
    _sparse,
    _renamed,
    _fewer,
)


def damaged_folders(model: str, folder: Path, count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """Write copies of a model, each with a fault.

    Yields:
      a description of the fault, and the folder.
    """
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        path = folder / f"m{number}"
        shutil.copytree(model, path)
        name = rng.choice((PB, PB, PB, DATA, INDEX))
        data = (path / name).read_bytes()
        odd = name == PB and rng.random() < 0.6
        (path / name).write_bytes(odd_signature(data, rng) if odd else damaged_bytes(data, rng))
        yield f"{number}: {'an odd signature' if odd else f'{name} damaged'}", path
