"""The job file: settings, defaults and validation, which reports all problems at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pydantic

from beam_score.pipeline.job.job_text import LARGEST_BYTES, JobText, parse_value
from beam_score.pipeline.job.mistakes import JobError, sentences
from beam_score.pipeline.job.serve import ServeSettings
from beam_score.runners.settings.engine import EngineSettings
from beam_score.transforms.common.settings import Strict
from beam_score.transforms.common.units import parse_bytes, parse_seconds, parse_share
from beam_score.transforms.contract.columns import Column, Contract
from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.contract.outputs import Output
from beam_score.transforms.formats.csv.options import CsvOptions
from beam_score.transforms.formats.registry import FORMATS
from beam_score.transforms.ledger.budget import Budget

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = Literal[FORMATS]


class InputFiles(Strict):
    """The input files and how to read them."""

    files: tuple[str, ...]
    format: FormatName | None = None
    csv: CsvOptions = CsvOptions()
    strip: bool = False
    decimal: Literal[".", ","] = "."
    nan: Literal["number", "missing"] = "number"
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
    """The model and how to call it."""

    path: str = pydantic.Field(min_length=1)
    version: str = "latest"
    signature: str | None = None
    batch_rows: int | Literal["auto"] = "auto"
    deadline: float | None = None
    independent: bool = True

    _seconds = pydantic.field_validator("deadline", mode="before")(parse_seconds)

    @pydantic.field_validator("version", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @pydantic.field_validator("batch_rows")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("expected a positive number of rows, or auto")
        return value


class OutputFiles(Strict):
    """The output files and their columns."""

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
            raise ValueError(f"{', '.join(map(repr, twice))} is named twice: name each column once")
        return value

    @property
    def kept(self) -> tuple[str, ...] | None:
        """The names of the columns to keep; None for all columns."""
        return None if self.keep == "all" else () if self.keep == "none" else self.keep


class Rejects(Strict):
    """The error budget, and the contents of a dead letter."""

    payload: Literal["full", "none"] = "full"
    budget: int | float = 0.01
    files: int = pydantic.Field(default=0, ge=0)
    stop_after: int | None = pydantic.Field(default=None, ge=0)
    model_messages: Literal["none", "full"] = "none"

    _share = pydantic.field_validator("budget", mode="before")(parse_share)

    @pydantic.field_serializer("budget")
    def _as_written(self, budget: int | float) -> int | float | str:
        return "100%" if isinstance(budget, float) and budget == 1 else budget  # 1.0 is refused: one row, or 100%?

    def as_budget(self) -> Budget:
        if isinstance(self.budget, int):
            return Budget(rows=self.budget, share=None, files=self.files)
        return Budget(share=self.budget, files=self.files)


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
    engine: EngineSettings = EngineSettings()
    serve: ServeSettings = ServeSettings()

    @pydantic.field_validator("outputs", mode="before")
    @classmethod
    def _bare_outputs(cls, value: Any) -> Any:
        # An output without settings is written unchanged.
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
        """The contract: the columns, with the input's settings for all columns applied."""
        strip, decimal, nan = self.input.strip, self.input.decimal, self.input.nan
        return Contract(columns={n: c.within(strip, decimal, nan) for n, c in self.columns.items()})

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        """The paths in the job file, by key."""
        return {
            "input.files": self.input.files,
            "model.path": (self.model.path,),
            "output.path": (self.output.path,),
        }

    def as_json(self) -> dict[str, Any]:
        """Return the settings as plain data, without defaults."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def load_job(path: str, overrides: Sequence[str] = ()) -> Job:
    """Read a job file.

    Args:
      path: of the YAML file (1.2: `no` and `off` are text).
      overrides: `key=value`, with a dotted key (`rejects.budget=5%`) and the value as YAML.

    Raises:
      JobError: with all problems of the job file.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise JobError([f"{path} has more than {LARGEST_BYTES / 1e6:,.0f} MB: is it a job file?"])
        text = JobText(path, content.decode("utf-8"))
    except OSError as error:
        raise JobError(
            [f"{path}: {error.strerror}; write one with: beam-score init MODEL --data 'data/*.csv'"]
        ) from None
    except UnicodeDecodeError as error:
        raise JobError([f"{path} is not UTF-8: {error.reason} at byte {error.start}"]) from None
    if not isinstance(text.settings, dict):
        raise JobError([f"{path} is not a job file: expected keys such as input, model and output"])
    settings = dict(text.settings)
    for override in overrides:
        set_key(settings, override)
    return parse_job(settings, path, text, overrides)


def set_key(settings: dict[str, Any], override: str) -> None:
    """Apply an override `key=value`; see `load_job`. Raises JobError."""
    key, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise JobError([f"--set {override}: expected key=value, as in --set rejects.budget=5%"])
    value = parse_value(text, f"--set {key.strip()}")
    at: Any = settings
    *parents, last = key.strip().split(".")
    for name in parents:
        inner = at.get(name)
        if inner is not None and not isinstance(inner, dict):
            raise JobError([f"--set {override}: {name!r} is a value, not a section with keys"])
        at[name] = dict(inner or {})  # a copy: an alias in the file may share the section
        at = at[name]
    at[last] = value


def parse_job(
    settings: Mapping[str, Any], path: str = "job", text: JobText | None = None, overrides: Sequence[str] = ()
) -> Job:
    """Validate plain data as a job.

    Args:
      path: of the job file, for messages.
      text: of the job file, for the line numbers in messages.
      overrides: that were applied.

    Raises:
      JobError: with all problems.
    """
    try:
        return Job.model_validate(settings)
    except pydantic.ValidationError as error:
        problems = sentences(error, _keys_at)
        raise JobError([f"{_where(key, path, text, overrides)}: {problem}" for key, problem in problems]) from None
    except (RecursionError, OverflowError) as error:
        raise JobError([f"{path}: invalid value: {error}"]) from None


def _where(key: Sequence[str], path: str, text: JobText | None, overrides: Sequence[str]) -> str:
    """Return the location that sets a key: `job.yaml:12`, or `--set rejects.budget`."""
    for override in reversed(overrides):
        name = override.partition("=")[0].strip()
        given = name.split(".")
        if given == list(key[: len(given)]):
            return f"--set {name}"
    line = None if text is None else text.line(key)
    return path if line is None else f"{path}:{line}"


def _keys_at(where: Sequence[str]) -> list[str]:
    """Return the known keys of a section of the job file."""
    model: Any = Job
    inner = {"columns": Column, "inputs": Input, "outputs": Output}
    for depth, name in enumerate(where):
        if depth == 0 and name in inner:
            model = inner[name]
        elif depth == 1 and where[0] in inner:
            continue
        elif isinstance(model, type) and issubclass(model, Strict) and name in model.model_fields:
            model = model.model_fields[name].annotation
    return (
        [f.serialization_alias or n for n, f in model.model_fields.items()]
        if isinstance(model, type) and issubclass(model, Strict)
        else []
    )
