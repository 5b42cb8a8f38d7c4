"""The way of valid rows through model and contract on numpy arrays, by the functions of a run that do the arithmetic.

Arrow and polars take 3 ms for a batch of one row, most of it fixed. Only jobs whose steps are all known here take this
way, and only batches in which nothing is at fault; for all others the functions of a run decide.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from beam_score.pipeline.job.steps import Steps
from beam_score.transforms.contract.inputs import Input, make_array
from beam_score.transforms.contract.outputs import Output
from beam_score.transforms.model.model import Feeds
from beam_score.transforms.model.signature import numpy_dtype
from beam_score.transforms.scoring.postprocess import choose
from beam_score.transforms.scoring.score import Scorer


@dataclasses.dataclass(frozen=True)
class Field:
    """A column of the predictions.

    Attributes:
      name: of the column.
      values: [rows], or [rows, values].
      chosen: a mask of the values that are not null; None for all.
      labels: the texts that integer values stand for; None for the values themselves.
    """

    name: str
    values: np.ndarray
    chosen: np.ndarray | None = None
    labels: tuple[str, ...] | None = None

    def tensor(self) -> np.ndarray:
        """Return the values; what is null is -1, or an empty text."""
        if self.labels is None:
            return self.values if self.chosen is None else np.where(self.chosen, self.values, -1)
        texts = np.array([label.encode() for label in self.labels], object)[self.values]
        return texts if self.chosen is None else np.where(self.chosen, texts, b"")

    def texts(self) -> list[bytes]:
        """Return the JSON of each row; of a list, without its brackets."""
        if self.labels is None and self.chosen is None:
            text = orjson.dumps(np.ascontiguousarray(self.values), option=orjson.OPT_SERIALIZE_NUMPY)
            return text[2:-2].split(b"],[") if self.values.ndim > 1 else text[1:-1].split(b",")
        flat = self.values.reshape(-1).tolist()
        if self.labels is None:
            texts = [b"%d" % value for value in flat]
        else:
            known = _as_json(self.labels)
            texts = [known[value] for value in flat]
        if self.chosen is not None and not self.chosen.all():
            chosen = self.chosen.reshape(-1).tolist()
            texts = [text if is_ else b"null" for text, is_ in zip(texts, chosen, strict=True)]
        if self.values.ndim == 1:
            return texts
        size = self.values.shape[1]
        return [b",".join(texts[at : at + size]) for at in range(0, len(texts), size)]


@functools.lru_cache(64)
def _as_json(labels: tuple[str, ...]) -> list[bytes]:
    return [orjson.dumps(label) for label in labels]


class Direct:
    """Scores valid rows.

    Args:
      steps: of the job.
      scorer: of its model.
    """

    def __init__(self, steps: Steps, scorer: Scorer):
        self._scorer, self._outputs, self._tensors = scorer, steps.outputs.outputs, steps.outputs.tensors
        self._inputs: list[tuple[str, Input, tuple[str, ...], np.dtype, bool]] = []
        columns = steps.read.columns.columns
        for name, tensor in steps.call.signature.inputs.items():
            how = steps.inputs.get(name, Input())
            sources = how.sources(name)
            finite = all(columns[source].finite for source in sources if source in columns)
            self._inputs.append((name, how, sources, numpy_dtype(tensor), finite))

    @staticmethod
    def is_able(steps: Steps) -> bool:
        """Return whether it knows all steps of a job, and all inputs and outputs of the model."""
        if steps.function is not None or steps.outputs.keep or steps.outputs.position:
            return False
        if any(how.record or how.serialize or how.pad is not None for how in steps.inputs.values()):
            return False
        tensors = steps.outputs.tensors
        return all(
            how.dtype is None
            and tensors[name].dtype not in ("string", "float16", "complex64")
            and len(tensors[name].row_shape) < 2
            and None not in tensors[name].row_shape
            for name, how in steps.outputs.outputs.items()
        )

    def predict(self, columns: Mapping[str, np.ndarray], rows: int) -> list[Field] | None:
        """Return the predictions of valid rows; None if a row is at fault, or the functions of a run have to decide.

        Args:
          columns: of the contract, [rows, ...] each.

        Raises:
          ModelHangs: the call took longer than its deadline.
        """
        feeds = {}
        columns = {name: _read_only(column) for name, column in columns.items()}
        for name, how, sources, dtype, finite in self._inputs:
            feeds[name], misfits = make_array([columns[source] for source in sources], how, dtype)
            if misfits or (finite and not _is_finite(feeds[name])):
                return None
        outputs = self._call(feeds, rows)
        if outputs is None or not all(_is_finite(output) for output in outputs.values()):
            return None  # a file spells what is not finite
        return [field for name, how in self._outputs.items() for field in self._interpret(name, how, outputs[name])]

    def _call(self, feeds: Feeds, rows: int) -> Feeds | None:
        """Call the model in as many calls as it takes; see `Scorer.call_arrays`."""
        most = self._scorer.limit
        if rows <= most:
            return self._scorer.call_arrays(feeds, rows)
        made = []
        for at in range(0, rows, most):
            part = {name: feed[at : at + most] for name, feed in feeds.items()}
            if (outputs := self._scorer.call_arrays(part, min(most, rows - at))) is None:
                return None
            made.append(outputs)
        return {name: np.concatenate([outputs[name] for outputs in made]) for name in made[0]}

    def _interpret(self, name: str, how: Output, output: np.ndarray) -> list[Field]:
        """Return the columns of one output; see `transforms.scoring.postprocess.interpret`."""
        column = how.as_ or name
        fields = [Field(column, output)]
        if how.meaning != "raw":
            best, score, chosen = choose(output, how)
            if how.top == 1:
                best, score, chosen = best[:, 0], score[:, 0], chosen[:, 0]
            fields.append(Field(f"{column}_class", best, chosen))
            if how.labels:
                fields.append(Field(f"{column}_label", best, chosen, how.labels))
            if how.meaning != "probability":
                fields.append(Field(f"{column}_score", score.astype(output.dtype, copy=False)))
        return fields


def lines(fields: Sequence[Field]) -> list[bytes]:
    """Return the JSON of each row, as `transforms.output.json_lines` writes it; of the only column, its value."""
    form = [b"[%b]" if field.values.ndim > 1 else b"%b" for field in fields]
    if len(fields) == 1:
        (text,) = form
    else:
        keys = [orjson.dumps(field.name).replace(b"%", b"%%") for field in fields]
        text = b"{" + b",".join(key + b":" + part for key, part in zip(keys, form, strict=True)) + b"}"
    return [text % row for row in zip(*(field.texts() for field in fields), strict=True)]


def _read_only(array: np.ndarray) -> np.ndarray:
    """Return a view of an array that no step of an input changes: another input, or another try, may use it, too."""
    view = array.view()
    view.flags.writeable = False
    return view


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype.kind != "f" or not array.size:
        return True
    return bool(np.isfinite(np.minimum.reduce(array, None)) and np.isfinite(np.maximum.reduce(array, None)))
