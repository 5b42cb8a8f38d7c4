"""The section `outputs` of a drafted job file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from beam_score.pipeline.draft.yaml_text import scalar
from beam_score.pipeline.printing.terminal import printable
from beam_score.transforms.contract.outputs import Output, as_written, unusable_output
from beam_score.transforms.model.signature import Signature, Tensor

_MEANINGS = {
    "prob": "probabilities",
    "softmax": "probabilities",
    "sigmoid": "probabilities",
    "logistic": "probabilities",
    "logit": "logits",
}
"""Meanings of outputs, by the beginning of their names."""

_FLOATS = ("float16", "float32", "float64", "bfloat16")
_OF_ONE_VALUE = Output(shape=())


def unusable_outputs(signature: Signature) -> dict[str, str]:
    """Return why outputs cannot be written as predictions, by name. An unknown rank can be declared."""
    rows = next((t.shape[0] for t in signature.inputs.values() if t.shape and t.shape[0]), None)
    found = {}
    for tensor in signature.outputs.values():
        if why := unusable_output(tensor, _OF_ONE_VALUE if tensor.shape is None else Output(), rows):
            found[tensor.name] = why
    return found


def output_lines(signature: Signature, keep: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the section `outputs`.

    Args:
      keep: columns to keep in the output, whose names are taken.
    """
    unusable = unusable_outputs(signature)
    yield "# The meaning of the outputs. Outputs that are not listed are left out of the predictions."
    yield "outputs:"
    for tensor in signature.outputs.values():
        if tensor.name in unusable:
            yield f"  # {printable(unusable[tensor.name])}"
        else:
            yield from _lines(tensor, signature, tensor.name in keep)


def _lines(tensor: Tensor, signature: Signature, is_taken: bool) -> Iterator[str]:
    written = as_written(tensor, _OF_ONE_VALUE if tensor.shape is None else Output())
    tail = written.row_shape
    scores = tensor.shape is not None and tensor.dtype in _FLOATS and len(tail) <= 1
    size = (tail[0] if tail else 1) if scores else None
    meaning = None if size is None else _meaning(tensor, signature, size)
    settings = [f"meaning: {meaning or 'raw'}"]
    settings += ["shape: []"] if tensor.shape is None else []
    settings += ["dtype: string"] if tensor.dtype == "string" else []
    settings += [f"as: {scalar('model_' + tensor.name)}"] if is_taken else []  # a kept column has the name
    yield f"  {scalar(tensor.name)}: {{{', '.join(settings)}}}  # {tensor.describe()}"
    if tensor.shape is None:
        yield "    # guessed: the model does not declare the shape of a row. [] is one value, [null] a list."
    if tensor.dtype == "string":
        yield "    # guessed: text. dtype: bytes if the values are not UTF-8"
    if size is None:
        return
    labels = 'labels: ["no", "yes"], threshold: 0.5' if size == 1 else f"labels: [...], top: {min(3, size)}"
    many = "" if size == 1 else f" ({size} labels)"
    if meaning:
        yield f"    # guessed from the name; raw leaves out class and score. More: {labels}{many}"
    else:
        what = "a probability: meaning: probability" if size == 1 else "scores of classes: meaning: probabilities"
        yield f"    # if this is {what}, or logits; {labels}{many}"


def _meaning(tensor: Tensor, signature: Signature, size: int) -> str | None:
    if signature.method_name == "tensorflow/serving/classify" and tensor.name == "scores":
        return "probability" if size == 1 else "probabilities"
    meaning = next((m for start, m in _MEANINGS.items() if tensor.name.lower().startswith(start)), None)
    return "probability" if meaning == "probabilities" and size == 1 else meaning
