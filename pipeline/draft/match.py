"""Match the columns of data to the inputs of a model: by name, by a guess, or as a question for the user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from beam_score.pipeline.draft.column_drafts import ColumnDraft, candidate, fed, kept, number_seen, unused
from beam_score.pipeline.draft.sample import Sample, Seen
from beam_score.pipeline.draft.yaml_text import flow, scalar
from beam_score.transforms.model.signature import Signature, Tensor

TODO = "TODO: choose"


@dataclass
class Match:
    """Columns and the inputs that they feed, for the job file.

    Attributes:
      columns: the contract, by name.
      inputs: by input name, the YAML after the colon and the comment lines; only for inputs that need an entry.
      keep: columns to keep in the output.
    """

    columns: dict[str, ColumnDraft] = field(default_factory=dict)
    inputs: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    keep: list[str] = field(default_factory=list)


def match_columns(signature: Signature, sample: Sample) -> Match:
    """Match the inputs of a signature to the columns of a sample."""
    match = Match()
    left = dict(sample.columns)
    waiting = []
    for tensor in signature.inputs.values():
        seen = _column_for(tensor, sample, signature)
        if seen is None:
            waiting.append(tensor)
        else:
            left.pop(seen.name, None)
            _feed(match, tensor, seen, sample)
    left = {n: s for n, s in left.items() if n not in signature.inputs}
    ids = [s for s in sample.columns.values() if _is_id_by_name(s)]
    for tensor in waiting:
        used = _guess(match, tensor, signature, left, sample) if len(waiting) == 1 else None
        if used is None:
            _leave_open(match, tensor, signature, left, sample, waiting)
        for name in used or ():
            left.pop(name)
    ids += [s for s in left.values() if s not in ids and _is_id_by_values(s)]
    match.keep = [s.name for s in sample.columns.values() if s in ids][:1]
    for name in match.keep:
        if name not in match.columns and (draft := kept(sample.columns[name], sample.is_text)):
            match.columns[name] = draft
    if not sample.has_names:
        # Without a header columns are identified by their order, so all of them need a name.
        match.columns = {
            n: match.columns.get(n)
            or (kept(s, sample.is_text) if n in match.keep else None)
            or unused(s, sample.is_text)
            for n, s in sample.columns.items()
        }
    return match


def _column_for(tensor: Tensor, sample: Sample, signature: Signature) -> Seen | None:
    """Return the column with the input's name, or the only column, if its values fit the input; else None."""
    if sample.bare and len(signature.inputs) == 1:
        return sample.columns[""]
    if sample.is_flat and is_examples(tensor, signature):
        return None  # the whole record feeds the input
    seen = sample.columns.get(tensor.name)
    if seen is None:
        wanted = tensor.name.strip().casefold()
        same = [s for n, s in sample.columns.items() if n.strip().casefold() == wanted]
        seen = same[0] if len(same) == 1 else None
    if seen is not None and sample.is_text and _size(tensor) not in (1, None):
        return None  # a CSV field contains one value
    return seen


def _feed(match: Match, tensor: Tensor, seen: Seen, sample: Sample) -> None:
    """Feed an input from one column, with the settings that give it the input's shape."""
    name, tail = seen.name or tensor.name, row_shape(tensor)
    shape, steps, notes = list(seen.shape), [], []
    if name != tensor.name:
        steps.append(f"column: {scalar(name)}")
        notes.append(f"guessed: the data has no column {scalar(tensor.name)}, and this name is the most similar")
    if tail is not None and len(shape) == len(tail) and all(a in (None, b) for a, b in zip(tail, shape, strict=True)):
        if None in tail and None not in shape:
            notes.append(f"the model accepts any length; all rows seen have shape {flow(shape)}, which is declared")
    elif tail is not None and None not in tail:
        flat = _size(tensor)
        if seen.kind == "nothing" or None in shape or _product(shape) != flat or sample.is_flat:
            shape = list(tail)  # the model's shape; a tf.Example is always flat
        else:
            steps.append(f"reshape: {flow(tail)}")
    if None in shape:
        notes.append("each batch has rows of one length; pad: 0 would pad rows to the longest row of the batch")
    match.columns[name] = fed(seen, tensor, shape, sample.is_text)
    if steps or notes:
        match.inputs[tensor.name] = ("{" + ", ".join(steps) + "}", notes)


def _guess(
    match: Match, tensor: Tensor, signature: Signature, left: dict[str, Seen], sample: Sample
) -> list[str] | None:
    """Feed the only input without a column of its name if there is exactly one way. Return the columns used."""
    if tensor.dtype == "string":
        if is_examples(tensor, signature):
            if not sample.is_flat:
                return None
            match.inputs[tensor.name] = (
                "{record: true}",
                [f"guessed from {_why_examples(tensor)}: the unchanged record"],
            )
            return []
        texts = [s for s in left.values() if s.kind in ("string", "bytes") and not _is_id_by_name(s)]
        if len(texts) != 1 or row_shape(tensor) not in ((), (1,)):
            return None
        return _feed_guess(match, tensor, texts[0], "the only column of text", sample)
    if tensor.dtype == "bool":
        return None
    size = _size(tensor)
    if size is None:
        return None
    vectors = [
        s for s in left.values() if s.is_number and s.shape and None not in s.shape and _product(s.shape) == size
    ]
    if len(vectors) == 1:
        return _feed_guess(match, tensor, vectors[0], f"the only column with {size} numbers per row", sample)
    numbers = [s for s in map(number_seen, left.values()) if s.is_number and not s.shape]
    for is_id in (_is_id_by_values, lambda s: s.kind == "integer" and s.unique, lambda s: False):
        pick = [s for s in numbers if not _is_id_by_name(s) and not is_id(s)]
        if len(pick) == size:
            break
    else:
        return None
    if size == 1 and row_shape(tensor) == ():
        return _feed_guess(match, tensor, left[pick[0].name], "the only column of numbers", sample)
    out = [s.name for s in numbers if s not in pick]
    notes = [
        f"guessed: the model takes {size} numbers per row, and the data has {size} columns of numbers"
        + (f", not counting {flow(out)}" if out else ""),
        "in the order of the data. The model does not record the order that it was trained with: check it.",
        "If the model was trained on standardized values: standardize: {mean: [...], std: [...]}",
    ]
    for seen in pick:
        match.columns[seen.name] = fed(left[seen.name], tensor, (), sample.is_text)
    reshape = "" if len(row_shape(tensor) or ()) == 1 else f", reshape: {flow(row_shape(tensor) or ())}"
    match.inputs[tensor.name] = (f"{{pack: {flow([s.name for s in pick])}{reshape}}}", notes)
    return [s.name for s in pick]


def _feed_guess(match: Match, tensor: Tensor, seen: Seen, why: str, sample: Sample) -> list[str]:
    _feed(match, tensor, seen, sample)
    how, notes = match.inputs[tensor.name]
    notes[0] = f"guessed: the data has no column {scalar(tensor.name)}, and this is {why}"
    match.inputs[tensor.name] = (how, notes)
    return [seen.name]


def _leave_open(
    match: Match,
    tensor: Tensor,
    signature: Signature,
    left: dict[str, Seen],
    sample: Sample,
    waiting: Sequence[Tensor],
) -> None:
    """Add a TODO that asks the user which columns feed an input.

    Args:
      waiting: all inputs with a TODO.
    """
    size, examples = _size(tensor), is_examples(tensor, signature)
    wants_number = tensor.dtype not in ("string", "bool")
    fits = [s for s in left.values() if number_seen(s).is_number == wants_number]
    ids = [s for s in fits if _is_id_by_name(s)]
    names = [s.name for s in fits if s not in ids] or [s.name for s in fits]
    kind = "text" if tensor.dtype == "string" else "bool" if tensor.dtype == "bool" else "numbers"
    candidates = f"columns of {kind}: {flow(names)}" if names else f"the data has no more columns of {kind}"
    if examples:
        names = list(left)
        candidates = "the features that the model parses, which the signature does not contain: " + flow(names)
        how, ask = "{serialize: []}", "the columns to encode as one tf.Example per row"
    elif size in (1, None) or not wants_number:
        is_one_of_list = row_shape(tensor) == (1,) and not any(left[n].shape for n in names)
        how, ask = "{column: null, reshape: [1]}" if is_one_of_list else "{column: null}", "the column"
    else:
        tail = row_shape(tensor) or ()
        how = "{pack: []}" if len(tail) == 1 else f"{{pack: [], reshape: {flow(tail)}}}"
        ask = f"{size} columns, in the order that the model was trained with"
    match.inputs[tensor.name] = (how, [f"{TODO} {ask}; {candidates}"])
    for name in names:
        dtype = None if examples else _dtype_for(left[name], tensor, waiting)
        match.columns.setdefault(name, candidate(left[name], dtype, sample.is_text))


def _dtype_for(seen: Seen, tensor: Tensor, waiting: Sequence[Tensor]) -> str:
    """Return the dtype of a column that may feed one of several inputs: the first dtype that accepts its values."""
    dtypes = [t.dtype for t in waiting]
    floats, integers = ([d for d in dtypes if kind in d] for kind in ("float", "int"))
    found = tensor.dtype
    if floats and integers and tensor.dtype in (*floats, *integers):
        found = floats[0] if seen.fractions else integers[0]
    return "float32" if found == "bfloat16" else found


_ID_NAME = re.compile(r"(id|uuid|guid|key|pk|rowid|index|idx)|.*[_\-. ](id|uuid|guid|key)|.*[a-z](Id|ID|Key|UUID)")


def _is_id_by_name(seen: Seen) -> bool:
    return bool(_ID_NAME.fullmatch(seen.name) or _ID_NAME.fullmatch(seen.name.lower())) and (
        seen.kind != "float" or not seen.fractions
    )


def _is_id_by_values(seen: Seen) -> bool:
    return seen.kind == "integer" and not seen.shape and seen.unique and seen.rising and seen.rows >= 10


_ESTIMATOR = ("tensorflow/serving/classify", "tensorflow/serving/regress")


def is_examples(tensor: Tensor, signature: Signature) -> bool:
    """Return whether an input takes serialized tf.Examples, according to the signature's method or the input's name."""
    if tensor.dtype != "string" or (tensor.shape is not None and len(tensor.shape) != 1):
        return False
    return signature.method_name in _ESTIMATOR or bool(re.search("example|serialized", tensor.name.lower()))


def _why_examples(tensor: Tensor) -> str:
    return "its name" if re.search("example|serialized", tensor.name.lower()) else "the signature's method"


def row_shape(tensor: Tensor) -> tuple[int | None, ...] | None:
    """Return the shape of one row, without the first dimension; None for a scalar, or an unknown rank."""
    return tensor.shape[1:] if tensor.shape else None


def _size(tensor: Tensor) -> int | None:
    """Return the number of values per row; None if a dimension is open."""
    tail = row_shape(tensor)
    return None if tail is None or None in tail else _product(tail)


def _product(shape: Sequence[int | None]) -> int:
    product = 1
    for size in shape:
        product *= size or 0
    return product
