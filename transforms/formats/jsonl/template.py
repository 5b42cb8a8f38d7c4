"""Parsing of lines that all have one form: the same keys in the same order, written the same way.

Such files are written by programs, and a line is constant text around its scalars. The text between two commas is a
field: its constant parts are compared in all lines at once, and the scalars are cast a whole column at a time, faster
than by any parser of JSON. A line that differs in any byte of the constant parts, or contains a scalar of another kind,
is left to the next parser.
"""

from __future__ import annotations

import collections
import dataclasses
import re

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.arrays.plain import cut_out, is_true, mask_of, nulls_of, numpy_type, values_of, with_values
from beam_score.transforms.arrays.texts import Texts, has_text
from beam_score.transforms.contract.columns import Column
from beam_score.transforms.formats.base import ReadSettings
from beam_score.transforms.formats.jsonl.exact import LineJudge, Row, members
from beam_score.transforms.formats.jsonl.lines import Lines
from beam_score.transforms.framing.lines import byte_positions

_EXAMPLES = 40
_FEW_EXAMPLES = 4  # for a form that is known from another file
_LEAF = re.compile(r'"(?:[^"\\]|\\.)*+"(?P<key>[ \t]*:)?|-?[0-9][0-9.eE+-]*+|true|false|null')
_TRIES = 3
_WORTH = 0.8  # the share of lines from which on this is faster than parsing JSON
_MOST_COMMAS = 100
"""Maximum commas of a line that is parsed this way. A field costs 0.5 ms a block, and the more fields lines have,
the fewer lines a block has: with 1,000 fields a value took 2 microseconds, where a parser of JSON takes 0.1."""
_KINDS = {'"': "string", "t": "literal", "f": "literal", "n": "null"}
_ZERO, _NINE, _MINUS, _DOT, _QUOTE, _BACKSLASH, _X, _COMMA = b'09-."\\x,'


def _is_plain(column: Column) -> bool:
    return not column.shape and column.dtype != "bytes"


@dataclasses.dataclass(frozen=True)
class _Field:
    """The text between two commas of a line.

    Attributes:
      prefix, suffix: the constant text around the scalar; of a string its quotes too.
      kind: `number`, `string` or `literal` (true, false); None for a field without a scalar.
      column: the used column that it is a value of; None for a field that is only checked.
      nullable: whether the value may be `null`.
    """

    prefix: str
    suffix: str
    kind: str | None
    column: str | None
    nullable: bool


_Form = tuple[tuple[str, ...], tuple[str | None, ...]]
"""The constant texts before, between and after the scalars of a line; and the used column of each scalar, if any."""

_LEARNT: dict[tuple[tuple[tuple[str, pa.DataType | None], ...], _Form], tuple[_Field, ...]] = {}
"""The fields of forms that were learnt, by used columns and form: to learn one from all examples takes 1 ms a file, and
files are often written by one program. Only the time depends on what is kept."""

_MOST_LEARNT = 100


class TemplateLines:
    """Parses the lines that have the form of most of the first lines.

    Args:
      settings: what to read.
    """

    def __init__(self, settings: ReadSettings):
        self._settings = settings
        self._columns: dict[str, Column | None] = dict(settings.contract_columns)
        self._columns |= dict.fromkeys(settings.kept_undeclared)
        self._types = {n: pa.string() if c is None else c.arrow_type for n, c in self._columns.items()}
        self._judge = LineJudge(settings)
        self._fields: tuple[_Field, ...] | None = None
        # A column with an open dimension has no constant form.
        self._tries = 0 if any(c is not None and c.size is None for c in self._columns.values()) else _TRIES

    def take(self, lines: Lines) -> tuple[np.ndarray, pa.RecordBatch | None]:
        """Return the positions of the lines that have the form, and their columns in order."""
        none = np.array([], np.int64), None
        if self._fields is None:
            if self._tries and lines.line(0).count(b",") > _MOST_COMMAS:
                self._tries = 0
            if not self._tries:
                return none
            self._fields = self._learn(lines)
            if self._fields is None:
                self._tries -= 1
                return none
        plain = None
        if b"\\" in lines.data:
            # Escapes are not decoded here, and a string with an escape looks like any other.
            plain = np.ones(len(lines), bool)
            escapes = np.flatnonzero(np.frombuffer(lines.data, np.uint8) == _BACKSLASH)
            plain[np.searchsorted(lines.starts, escapes, side="right") - 1] = False
            plain = np.flatnonzero(plain)
            if len(plain) < _WORTH * len(lines):
                return none
        good, columns = self._parse(lines if plain is None else lines.pick(plain), self._fields)
        if plain is not None:
            good = plain[good]
        if len(good) < _WORTH * len(lines):
            self._fields, self._tries = None, self._tries - 1
        if not len(good):
            return none
        return good, pa.RecordBatch.from_arrays(columns, [*self._types])

    def _learn(self, lines: Lines) -> tuple[_Field, ...] | None:
        """Return the form of most of some lines; None if they have none in common."""
        # Spread without a period, which could coincide with that of some odd lines.
        spread = (np.arange(_EXAMPLES) * 0.6180339887498949 % 1 * len(lines)).astype(np.int64)
        examples = np.unique(spread).tolist()
        columns = tuple((name, None if c is None else c.arrow_type) for name, c in self._columns.items())
        forms: dict[_Form, list[list[str]]] = collections.defaultdict(list)
        for number, index in enumerate(examples, 1):
            if (form := self._form(lines.line(index))) is not None:
                forms[form[0]].append(form[1])
                few, learnt = forms[form[0]], _LEARNT.get((columns, form[0]))
                if number == len(few) == _FEW_EXAMPLES and learnt is not None and _have_kinds(few, learnt):
                    return learnt
        if not forms:
            return None
        key = max(forms, key=lambda k: len(forms[k]))
        if len(forms[key]) < _WORTH * len(examples):
            return None
        if len(_LEARNT) >= _MOST_LEARNT:
            _LEARNT.clear()
        fields = _LEARNT[columns, key] = self._fields_of(*key, forms[key])
        return fields

    def _fields_of(
        self, constants: tuple[str, ...], columns: tuple[str | None, ...], kinds: list[list[str]]
    ) -> tuple[_Field, ...]:
        """Return the fields of a form, as a split at every comma yields them.

        Args:
          constants, columns: see `_Form`.
          kinds: of the scalars, in each example.
        """
        fields = []
        *before, prefix = constants[0].split(",")
        fields += [_Field(text, "", None, None, False) for text in before]
        for leaf, (constant, name) in enumerate(zip(constants[1:], columns, strict=True)):
            suffix, *rest = constant.split(",")
            column = self._columns.get(name) if name is not None else None
            if column is not None:
                kind = "number" if column.is_numeric else "literal" if column.dtype == "bool" else "string"
            else:
                seen = collections.Counter(k[leaf] for k in kinds if k[leaf] != "null")
                kind = seen.most_common(1)[0][0] if seen else "number"
            fields.append(_Field(prefix, suffix, kind, name, column is None or _is_plain(column)))
            if rest:
                *between, prefix = rest
                fields += [_Field(text, "", None, None, False) for text in between]
        if (len(columns) and rest) or not columns:
            fields.append(_Field(prefix, "", None, None, False))
        return tuple(fields)

    def _form(self, line: bytes) -> tuple[_Form, list[str]] | None:
        """Return the form of one line and the kinds of its scalars; None if the line cannot have a form."""
        if b"\\" in line:
            return None
        verdict = self._judge.judge(line)
        if not isinstance(verdict, Row) or verdict.faults:
            return None
        text = line.decode()
        first, found = members(text)
        if first != "{":
            return None
        owners: collections.deque[tuple[int, int, str]] = collections.deque()  # in the order of the text
        for raw, start, end in found:
            column = self._columns.get(raw[1:-1])
            if column is not None or raw[1:-1] in self._columns:
                # null may replace a whole value, but not the scalars in it.
                has_form = text[start] not in "[{" if column is None else text[start] != "n" or _is_plain(column)
                if not has_form:
                    return None
                owners.append((start, end, raw[1:-1]))
        constants: list[str] = []
        columns: list[str | None] = []
        kinds: list[str] = []
        at = 0
        for match in _LEAF.finditer(text):
            if match.group("key"):
                continue
            start, end = match.span()
            if "," in match.group():
                return None
            constants.append(text[at:start])
            while owners and owners[0][1] <= start:
                owners.popleft()
            columns.append(owners[0][2] if owners and owners[0][0] <= start else None)
            kinds.append(_KINDS.get(text[start], "number"))
            at = end
        return ((*constants, text[at:]), tuple(columns)), kinds

    def _parse(self, lines: Lines, fields: tuple[_Field, ...]) -> tuple[np.ndarray, list[pa.Array]]:
        starts, ends, index = _split(lines, len(fields))
        count = len(index)
        if not count:
            return index, []
        data, good = pa.py_buffer(lines.data), np.ones(count, bool)
        values: dict[str, list[pa.Array]] = collections.defaultdict(list)
        for number, field in enumerate(fields):
            value = self._take_field(field, data, starts[number], ends[number], good)
            if field.column is not None and value is not None:
                values[field.column].append(value)
        if not good.all():
            mask = mask_of(good)
            values = {name: [value.filter(mask) for value in found] for name, found in values.items()}
            index = index[good]
        return index, [self._column(name, values.get(name), len(index)) for name in self._columns]

    def _take_field(
        self, field: _Field, data: pa.Buffer, starts: np.ndarray, ends: np.ndarray, good: np.ndarray
    ) -> pa.Array | None:
        """Return the scalars of one field; clears `good` where a line differs from the form.

        Args:
          starts, ends: of the field in each line.

        Returns:
          numbers, text or booleans, null where the text is `null`, arbitrary where the line is not good; None for a
            field that is only compared.
        """
        quote = '"' if field.kind == "string" else ""
        before, after = (field.prefix + quote).encode(), (quote + field.suffix).encode()
        text, lengths = np.frombuffer(data, np.uint8), ends - starts
        fits = lengths == len(before) if field.kind is None else lengths >= len(before) + len(after)
        if before:
            fits &= has_text(text, starts, before)
        if field.kind is None:
            good &= fits
            return None
        if after:
            fits &= has_text(text, ends - len(after), after)
        begins = np.minimum(starts + len(before), ends)
        inner = cut_out(data, begins, np.maximum(ends - len(after), begins))
        column = self._columns.get(field.column) if field.column is not None else None
        if field.kind == "number":
            fits &= _is_json_number(inner)
            value, known = _numbers(_text(inner, fits), column)
        elif field.kind == "literal":
            words = _text(inner, fits)
            true, false = is_true(pc.equal(words, "true")), is_true(pc.equal(words, "false"))
            known = true | false
            value = pa.array(true, mask=~known)
        else:
            fits &= _lacks_quotes(inner)
            value, known = _text(inner, fits), fits
            if column is not None and column.dtype == "bytes":
                value = pl.Series(value).str.decode("base64", strict=False).to_arrow().cast(pa.binary())
                known = ~nulls_of(value)
        fits &= known
        if not fits.all():
            null = np.zeros(len(starts), bool)
            if field.nullable:
                unlike = np.flatnonzero(good & ~fits)
                none = f"{field.prefix}null{field.suffix}".encode()
                null[unlike] = is_true(pc.equal(cut_out(data, starts[unlike], ends[unlike]), none))
            good &= fits | null
        if field.column is not None and column is None:  # undeclared: its JSON text
            value = _text(inner, fits)
            value = pc.binary_join_element_wise(quote, value, quote, "") if quote else value
        return value

    def _column(self, name: str, values: list[pa.Array] | None, count: int) -> pa.Array:
        """Return one used column, built from its scalars, in row-major order."""
        type_, column = self._types[name], self._columns[name]
        if values is None:
            return pa.nulls(count, type_)
        scalar = pa.string() if column is None else column.scalar_type
        if column is None or not column.shape:
            return _typed(values[0], scalar)
        parts = [_typed(v, scalar) for v in values]
        if column.is_numeric:
            flat = pa.array(
                np.column_stack([p.fill_null(0).to_numpy(zero_copy_only=False) for p in parts]).ravel(), scalar
            )
        else:
            order = np.arange(count * len(parts)).reshape(len(parts), count).T.ravel()
            flat = pa.concat_arrays(parts).take(pa.array(order))
        for dimension in reversed(column.shape):
            flat = pa.FixedSizeListArray.from_arrays(flat, dimension)
        return flat.cast(type_)


def _have_kinds(examples: list[list[str]], fields: tuple[_Field, ...]) -> bool:
    """Return whether the scalars of some examples are of the kinds that their fields have, or null."""
    kinds = [field.kind for field in fields if field.kind is not None]
    return all(own in (kind, "null") for one in examples for kind, own in zip(kinds, one, strict=True))


def _split(lines: Lines, fields: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where the fields of the lines that have this number of fields begin and end in the data, [fields, lines],
    and the positions of these lines."""
    commas, between, count = byte_positions(np.frombuffer(lines.data, np.uint8), _COMMA), fields - 1, len(lines)
    regular = len(commas) == between * count
    if regular:
        index, inside = np.arange(count), commas.reshape(count, between)
        regular = bool(((inside > lines.starts[:, None]) & (inside < lines.ends[:, None])).all())
    if not regular:
        # Between lines there are no commas, so a line's are those from its first to the first of the next line.
        first = np.append(np.searchsorted(commas, lines.starts), len(commas))
        index = np.flatnonzero(np.diff(first) == between)
        inside = commas[first[index, None] + np.arange(between)]
    return np.vstack([lines.starts[index], inside.T + 1]), np.vstack([inside.T, lines.ends[index]]), index


def _typed(value: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_floating(type_) and value.type != type_:
        return with_values(value, values_of(value).astype(numpy_type(type_)))
    return value.cast(type_)


def _text(values: pa.Array, valid: np.ndarray) -> pa.Array:
    """Return values of `cut_out` as strings, null where they are not valid, without a copy.

    The block is UTF-8, and a text that fits was cut between characters; what is behind a null is not read.
    """
    bits = None if valid.all() else mask_of(valid).buffers()[1]
    return pa.Array.from_buffers(pa.string(), len(values), [bits, *values.buffers()[1:]])


def _lacks_quotes(texts: pa.Array) -> np.ndarray:
    """Return which texts have no quote in them."""
    offsets, data = Texts(texts, (len(texts),)).buffers()
    lacks, quotes = np.ones(len(texts), bool), np.flatnonzero(data == _QUOTE)
    lacks[np.searchsorted(offsets, quotes, side="right") - 1] = False
    return lacks


def _is_json_number(texts: pa.Array) -> np.ndarray:
    """Return which texts, if Arrow or polars casts them to a number, are valid JSON numbers.

    One or the other also accepts `+1`, `.5`, `5.`, `007`, `0x7`, `nan` and `inf`.
    """
    offsets, data = Texts(texts, (len(texts),)).buffers()
    if not len(data):
        return np.zeros(len(texts), bool)
    start, end = offsets[:-1], offsets[1:]
    first = data.take(start, mode="clip")
    minus = first == _MINUS
    if minus.any():
        start = start + minus
        first = data.take(start, mode="clip")
    is_digit = (first >= _ZERO) & (first <= _NINE)
    good = (start < end) & is_digit & (data.take(end - 1, mode="clip") != _DOT)
    zero = np.flatnonzero(first == _ZERO)
    if len(zero):
        second = data.take(start[zero] + 1, mode="clip")
        digit_or_x = ((second >= _ZERO) & (second <= _NINE)) | (second | 32 == _X)
        good[zero[digit_or_x & (start[zero] + 1 < end[zero])]] = False
    # A byte below 0 wraps around, so one comparison identifies a digit.
    lone = (data[:-1] == _DOT) & (data[1:] - np.uint8(_ZERO) > _NINE - _ZERO)
    if lone.any():
        good[np.searchsorted(offsets, np.flatnonzero(lone), side="right") - 1] = False
    return good


def _numbers(inner: pa.Array, column: Column | None) -> tuple[pa.Array, np.ndarray]:
    """Return texts as numbers, and which of them are a value of the column's dtype."""
    dtype = "float64" if column is None else column.dtype
    type_ = pa.float64() if "float" in dtype else pa.uint64() if dtype == "uint64" else pa.int64()
    try:
        value = inner.cast(type_)
    except pa.ArrowInvalid:  # it does not say which: the next way judges each
        value = _by_polars(inner, type_)
    numbers, known = values_of(value), ~nulls_of(value)
    if "float" in dtype:
        if dtype != "float64":
            with np.errstate(over="ignore", invalid="ignore"):  # behind a null is anything
                numbers = numbers.astype(dtype)
            value = with_values(value, numbers)
        return value, known & np.isfinite(numbers)
    info = np.iinfo(dtype)
    return value, known if info.bits == 64 else known & (numbers >= info.min) & (numbers <= info.max)


def _by_polars(inner: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return texts as numbers, null where a text is none."""
    texts = pl.Series(inner.fill_null(""))
    wanted = {pa.float64(): pl.Float64, pa.int64(): pl.Int64, pa.uint64(): pl.UInt64}[type_]
    value = texts.cast(wanted, strict=False)
    if not pa.types.is_floating(type_) and value.null_count():
        # pandas writes integers as `7.0` in columns with gaps: these are still cast a column at a time.
        value = value.fill_null(texts.str.replace(r"^(-?[0-9]+)\.0+$", "$1").cast(wanted, strict=False))
    return value.to_arrow()
