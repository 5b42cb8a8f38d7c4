"""The job file: settings, defaults, and what is refused, all problems at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from transforms.commit import Budget
from transforms.contract import Column, Contract, Strict
from transforms.inputs import Input
from transforms.names import near_miss
from transforms.postprocess import Output

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


_SECONDS = {"s": 1, "m": 60, "h": 3600}


class JobError(ValueError):
    """The job file or the command line is wrong. `problems` has a sentence for each thing found."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def parse_bytes(value: Any) -> int:
    """64MB, 64 MiB or a number, as bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip().upper().replace(" ", "")
    digits = text.rstrip("BKMGI")
    try:
        return int(float(digits) * _UNITS[text[len(digits) :]])
    except (ValueError, KeyError):
        raise ValueError(f"{value!r} is no size: write 64MB, 64MiB or a number of bytes") from None


def parse_share(value: Any) -> int | float:
    """1% as a float share of 0.01; a whole number as a count."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            share = float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{value!r} is no share: write 1% or a whole number of rows") from None
        if not 0 <= share <= 1:
            raise ValueError(f"{value!r}: a share is from 0% to 100%")
        return share
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, float) and 0 <= value < 1:
        return value
    raise ValueError(f"{value!r}: write a share, as 1%, or a whole number of rows")


def parse_seconds(value: Any) -> float | None:
    """30s, 2m, 1h or a number of seconds, as seconds; null for none."""
    if value is None:
        return None
    text = str(value).strip().lower()
    unit = text[-1:] if text[-1:] in _SECONDS else "s"
    try:
        seconds = float(text.removesuffix(unit)) * _SECONDS[unit]
    except ValueError:
        seconds = 0.0
    if isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise ValueError(f"{value!r} is no duration: write 30s, 2m, 1h or a number of seconds above 0")
    return seconds


class Csv(Strict):
    """What CSV lets one set."""

    delimiter: str = pydantic.Field(",", min_length=1, max_length=1)
    quote: str = pydantic.Field('"', max_length=1)
    header: bool = True
    nulls: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _characters(self) -> Csv:
        for name, value in (("delimiter", self.delimiter), ("quote", self.quote)):
            if value and (not value.isascii() or value in "\r\n"):
                raise ValueError(f"{name} {value!r}: one ASCII character, not a line end")
        if self.delimiter == self.quote:
            raise ValueError("delimiter and quote are the same character")
        return self


class InputFiles(Strict):
    """What is read."""

    files: tuple[str, ...]
    format: Literal["csv", "jsonl", "parquet", "tfrecord"] | None = None
    csv: Csv = Csv()
    extra: Literal["ignore", "reject"] = "ignore"
    max_row_bytes: int = 16 << 20

    _bytes = pydantic.field_validator("max_row_bytes", mode="before")(parse_bytes)

    @pydantic.field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("files")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(value):
            raise ValueError("name at least one file or pattern")
        return value


class Model(Strict):
    """What is called."""

    path: str = pydantic.Field(min_length=1)
    version: str = "latest"
    signature: str | None = None
    batch_rows: int | Literal["auto"] = "auto"
    deadline: float | None = None

    _seconds = pydantic.field_validator("deadline", mode="before")(parse_seconds)

    @pydantic.field_validator("version", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @pydantic.field_validator("batch_rows")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("a positive number of rows, or auto")
        return value


class OutputFiles(Strict):
    """What is written."""

    path: str = pydantic.Field(min_length=1)
    format: Literal["parquet", "jsonl"] = "parquet"
    keep: tuple[str, ...] | Literal["all", "none"] = ()
    position: bool = False
    not_finite: Literal["null", "string"] = "null"

    @pydantic.field_validator("keep")
    @classmethod
    def _once(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        twice = [name for name in dict.fromkeys(value) if value.count(name) > 1] if isinstance(value, tuple) else []
        if twice:
            raise ValueError(f"{', '.join(map(repr, twice))} is named twice: a column is kept once")
        return value

    @property
    def kept(self) -> tuple[str, ...] | None:
        """The names; None for all."""
        return None if self.keep == "all" else () if self.keep == "none" else self.keep


class Rejects(Strict):
    """What may be refused, and what a dead letter shows."""

    payload: Literal["full", "none"] = "full"
    budget: int | float = 0.01
    files: int = pydantic.Field(0, ge=0)
    stop_after: int | None = pydantic.Field(None, ge=0)

    _share = pydantic.field_validator("budget", mode="before")(parse_share)

    @pydantic.field_serializer("budget")
    def _as_written(self, budget: int | float) -> int | float | str:
        return "100%" if isinstance(budget, float) and budget == 1 else budget  # 1.0 is refused: is it a row, or all?

    def as_budget(self) -> Budget:
        if isinstance(self.budget, int):
            return Budget(rows=self.budget, share=None, files=self.files)
        return Budget(share=self.budget, files=self.files)


class Engine(Strict):
    """Where and how it runs. Nothing here changes a result."""

    runner: Literal["local"] = "local"
    workers: int | Literal["auto"] = "auto"
    split_bytes: int = 64_000_000
    block_bytes: int = 1 << 20
    xla: Literal["auto", "on", "off"] = "auto"
    intra_op_threads: int | Literal["auto"] = "auto"

    _bytes = pydantic.field_validator("split_bytes", "block_bytes", mode="before")(parse_bytes)

    @pydantic.field_validator("xla", mode="before")
    @classmethod
    def _switch(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @pydantic.model_validator(mode="after")
    def _sizes(self) -> Engine:
        if self.split_bytes < 1 << 10 or self.block_bytes < 1 << 10:
            raise ValueError("split_bytes and block_bytes are at least 1 KiB")
        if isinstance(self.workers, int) and self.workers < 1:
            raise ValueError("workers: a positive number, or auto")
        if isinstance(self.intra_op_threads, int) and self.intra_op_threads < 1:
            raise ValueError("intra_op_threads: a positive number, or auto")
        return self

    @property
    def worker_count(self) -> int:
        return self.workers if isinstance(self.workers, int) else available_cores()


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Job(Strict):
    """A whole job file. See docs/job-file.md."""

    input: InputFiles
    model: Model
    output: OutputFiles
    columns: Mapping[str, Column] = {}
    preprocess: str | None = None
    inputs: Mapping[str, Input] = {}
    outputs: Mapping[str, Output] = {}
    rejects: Rejects = Rejects()
    engine: Engine = Engine()

    @pydantic.field_validator("outputs", mode="before")
    @classmethod
    def _bare_outputs(cls, value: Any) -> Any:
        # An output that is just named is wanted as it is.
        if isinstance(value, list):
            return {name: {} for name in value}
        return {k: v or {} for k, v in value.items()} if isinstance(value, Mapping) else value

    @pydantic.model_validator(mode="after")
    def _column_names(self) -> Job:
        try:
            Contract(columns=self.columns)
        except pydantic.ValidationError as error:
            raise ValueError("; ".join(str(e["ctx"]["error"]) for e in error.errors())) from None
        return self

    @property
    def contract(self) -> Contract:
        return Contract(columns=self.columns)

    def as_json(self) -> dict[str, Any]:
        """The settings as plain data, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def load_job(path: str, overrides: Sequence[str] = ()) -> Job:
    """Reads a job file.

    Args:
      path: of the YAML file (1.2: `no` and `off` are text).
      overrides: `key=value`, the key with dots (`rejects.budget=5%`), the value as YAML.

    Raises:
      JobError: with everything that is wrong with it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            settings = _yaml().load(file)
    except OSError as error:
        raise JobError(
            [f"{path}: {error.strerror}; write one with: beam-score init MODEL --data 'data/*.csv'"]
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise JobError([f"{path} is no valid YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(settings, dict):
        raise JobError([f"{path} is no job file: expected keys such as input, model and output"])
    for override in overrides:
        set_key(settings, override)
    return parse_job(settings, path)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def set_key(settings: dict[str, Any], override: str) -> None:
    """Carries out `key=value`, as `load_job` has it. Raises JobError."""
    key, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise JobError([f"--set {override}: expected key=value, as in --set rejects.budget=5%"])
    try:
        value = _yaml().load(text)
    except YAMLError as error:
        raise JobError([f"--set {override}: the value is no valid YAML: {' '.join(str(error).split())}"]) from None
    at: Any = settings
    *parents, last = key.strip().split(".")
    for name in parents:
        if at.get(name) is None:
            at[name] = {}
        at = at[name]
        if not isinstance(at, dict):
            raise JobError([f"--set {override}: {name!r} holds no further keys"])
    at[last] = value


def parse_job(settings: Mapping[str, Any], path: str = "job") -> Job:
    """Checks plain data. Raises JobError."""
    try:
        return Job.model_validate(settings)
    except pydantic.ValidationError as error:
        raise JobError([f"{path}: {problem}" for problem in _explain(error)]) from None


def _explain(error: pydantic.ValidationError) -> Iterator[str]:
    """A sentence for each thing that is wrong, once."""
    unknown, missing, found = {}, [], {}
    for detail in error.errors(include_url=False):
        # pydantic names the branch of a union tried, in a location that no person wrote
        where = [str(p) for p in detail["loc"] if not _is_branch(p)]
        key = ".".join(where)
        if detail["type"] == "extra_forbidden":
            unknown[key] = near_miss(where[-1], _keys_at(where[:-1]))
        elif detail["type"] == "missing":
            missing.append((key, where[-1]))
        else:
            found.setdefault(key, []).append(detail)
    for key, hint in unknown.items():
        yield f"unknown key {key!r}{hint}"
    for key, name in missing:
        if name.isdigit():
            yield f"{key.rpartition('.')[0]}: expected two ends, as [0, 150]; null leaves one open"
            continue
        # Not where it is there, and misspelt.
        if not any(
            repr(name) in hint and k.rpartition(".")[0] == key.rpartition(".")[0] for k, hint in unknown.items()
        ):
            yield f"key {key!r} is missing"
    for key, details in found.items():
        yield _wrong_value(key, details)


def _wrong_value(key: str, details: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with one value; of a union, what each of its kinds would have been."""
    own = [d for d in details if d["type"] == "value_error"]
    if own:
        return "; ".join(dict.fromkeys(f"{key}: {d['ctx']['error']}" if key else str(d["ctx"]["error"]) for d in own))
    value = details[0]["input"]
    if key.startswith("inputs.") and value in ([], ()):
        return f"{key}: nothing is named yet: choose the columns that it is made of"
    expected, words = [], []
    for detail in details:
        if detail["type"] == "literal_error":
            expected.append(detail["ctx"]["expected"])
            words += re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        else:
            message = detail["msg"].partition(",")[0].removeprefix("Input should be ")
            expected.append(_KINDS.get(detail["type"], message[:1].lower() + message[1:]))
    hint = near_miss(value, words) if isinstance(value, str) else ""
    return f"{key}: found {value!r}, expected {' or '.join(dict.fromkeys(expected))}{hint}"


_KINDS = {
    "tuple_type": "a list, in brackets",
    "model_type": "keys and values, as {dtype: float32}",
    "mapping_type": "keys and values",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
"""What pydantic calls by the names of Python's types."""


def _is_branch(part: Any) -> bool:
    return isinstance(part, str) and (
        part.startswith(("literal[", "tuple[", "function-", "lax-or-strict"))
        or part in ("int", "float", "str", "Standardize")
    )


def _keys_at(where: Sequence[str]) -> list[str]:
    """The keys that are known at a place in the job file."""
    model: Any = Job
    inner = {"columns": Column, "inputs": Input, "outputs": Output}
    for depth, name in enumerate(where):
        if depth == 0 and name in inner:
            model = inner[name]
        elif depth == 1 and where[0] in inner:
            continue
        elif isinstance(model, type) and name in model.model_fields:
            model = model.model_fields[name].annotation
    return (
        [f.alias or n for n, f in model.model_fields.items()]
        if isinstance(model, type) and issubclass(model, Strict)
        else []
    )
