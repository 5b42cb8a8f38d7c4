"""All checks before a launch, reported together, without TensorFlow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from beam_score.pipeline.job.job import Job
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.job.steps import Steps, call_of
from beam_score.pipeline.prepare.output_place import output_problems
from beam_score.pipeline.prepare.row_sources import FromFiles, RowSource
from beam_score.runners.settings.engine import EngineSettings
from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.contract.binding import bind_inputs
from beam_score.transforms.contract.columns import Contract
from beam_score.transforms.contract.inputs import Input
from beam_score.transforms.contract.outputs import (
    OutputPlan,
    bind_outputs,
    reshaped,
    signature_as_written,
    wanted_outputs,
)
from beam_score.transforms.contract.serialize import RECORD
from beam_score.transforms.formats.base import Format, Options, ReadSettings, UnusableFile, Wanted, format_named
from beam_score.transforms.formats.detect import format_of
from beam_score.transforms.listing.files import InputFile
from beam_score.transforms.model.copies import hashed_model, model_bytes, named
from beam_score.transforms.model.ops import ops_of
from beam_score.transforms.model.signature import ModelError, Signature, choose_signature, read_signatures, unsupported
from beam_score.transforms.model.versions import Version, find_version
from beam_score.transforms.output.json_lines import MARKER
from beam_score.transforms.scoring.preprocess import PreprocessError, hash_code, load_function
from beam_score.transforms.stores.local_file import is_of_the_system
from beam_score.transforms.stores.objects import HEADS_AT_ONCE, is_object

_LEAST_ROWS = 8192
"""Per block with `rejects.stop_after`: blocks are smaller then, so that it takes effect soon."""

_CHECKED_AT_ONCE = 16
_SAMPLE = 1000
"""Of more files in a store, the heads of this many are read at launch: each is a request."""

_NAMED = 20  # unreadable files listed by name; the others are counted


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job that can be launched.

    Attributes:
      job: its settings.
      files: the input files.
      model: the SavedModel folder.
      model_hash: SHA-256 of the model.
      signature: the model's own. The steps have it with the outputs as they are written.
      steps: the chain, with the model's batch not yet chosen.
      unusable: (path, reason) of the files whose header or footer shows that they are unusable.
      looked_at: files whose header or footer was read; that of the others is read with their rows.
      headers: headers by path, for the files that have one.
      source: where the rows come from.
    """

    job: Job
    files: Sequence[InputFile]
    model: Version
    model_hash: str
    signature: Signature
    steps: Steps
    unusable: Sequence[tuple[str, UnusableFile]]
    looked_at: int
    headers: Mapping[str, str]
    source: RowSource

    @property
    def bytes(self) -> int:
        return sum(f.size for f in self.files)

    def fingerprint(self) -> dict[str, str]:
        """Return hashes that identify the job and the source of its rows; see `fingerprint`."""
        other = reshaped(self.steps.outputs.outputs, self.signature)
        found = fingerprint(self.job, self.files, self.model_hash, self.signature.name, other)
        return found | self.source.fingerprint()


def prepare(job: Job, source: RowSource | None = None, known: Sequence[str] = ()) -> Prepared:
    """List the files, read the headers and the model's signature, and bind the contract to them.

    Args:
      source: where the rows come from; None for the files of the job.
      known: problems found elsewhere, to report with those found here.

    Raises:
      JobError: with every problem found.
    """
    source = source or FromFiles.of(job)
    files = source.files
    problems = [*known, *source.problems]
    format_ = job.input.format
    if format_ is None and files:
        format_, why = format_of(files)
        problems += [why] if format_ is None else []
    version, signature, model_hash, model_problems = _model(job)
    problems += model_problems
    problems += output_problems(job, source.inputs)
    problems += _function_problems(job)
    unsatisfied: list[str] = []
    if format_ is not None:
        options = _options(job, format_named(format_), signature)
        unsatisfied = format_named(format_).setting_problems(job.contract, job.output.kept, options)
        problems += [*unsatisfied, *_format_problems(job, format_named(format_))]
    keep: tuple[str, ...] = ()
    kept_types: dict[str, pa.DataType] = {}
    read = None
    if format_ is not None and files and not unsatisfied:
        read = _read_settings(job, format_, options)
        keep, kept_types = _resolve_keep(job, source.originals, read)
        problems += source.keep_problems(job, keep, kept_types)
        read = dataclasses.replace(read, keep=keep, kept_types=kept_types)
    if signature is not None:
        problems += bind_inputs(job.contract, job.inputs, signature, free_columns=job.preprocess is not None)
        wanted = wanted_outputs(job.outputs, signature)
        taken = dict.fromkeys(keep, "a kept column") | (
            {"source": "position", "row": "position"} if job.output.position else {}
        )
        problems += [
            f"output.keep: column {n!r} meets output.position"
            for n in keep
            if job.output.position and n in ("source", "row")
        ]
        problems += bind_outputs(wanted, signature, taken)
    if problems or read is None or signature is None or version is None:
        raise JobError(problems)
    checked = _check_files(source.sample(files, _SAMPLE), source.reading(read))
    headers = source.headers(read, checked)
    read = source.reading(read)
    fields = tuple(
        pa.field(n, job.columns[n].arrow_type if n in job.columns else kept_types.get(n, pa.string())) for n in keep
    )
    written = signature_as_written(wanted, signature)
    proven, threads = source.has_proven(model_hash), _op_threads(job.engine)
    call = call_of(job, version.path, model_hash, written, tuple(wanted), proven, intra_op_threads=threads)
    outputs = OutputPlan(fields, job.output.position, wanted, dict(written.outputs))
    if job.output.format == "jsonl" and job.output.not_finite == "null":
        names = outputs.schema.names
        if met := [n for n in names if n.endswith(MARKER) and n.removesuffix(MARKER) in names]:
            raise JobError(
                [f"output: column {n!r} meets the one that JSON Lines adds: use output.not_finite: string" for n in met]
            )
    bounds = job.engine.bounds(model_bytes(version.path, model_hash))
    read = dataclasses.replace(
        read,
        bounds=bounds,
        max_block_bytes=min(read.max_block_bytes, bounds.block_bytes),
        max_block_rows=min(bounds.block_rows, max(job.rejects.stop_after or bounds.block_rows, _LEAST_ROWS)),
    )
    call = dataclasses.replace(call, bounds=bounds)
    steps = Steps(read, dict(job.inputs), job.preprocess, call, outputs)
    unusable = [(path, found) for path, found in checked if isinstance(found, UnusableFile)]
    return Prepared(job, files, version, model_hash, signature, steps, unusable, len(checked), headers, source)


def _format_problems(job: Job, format_: Format) -> list[str]:
    """Return the problems with settings that this format does not have."""
    problems = [] if format_.values == "text" else _text_problems(job, format_.name)
    if format_.payload_kind != "binary":
        problems += [
            f"inputs.{n}.record: the format is {format_.name}, use serialize" for n, i in job.inputs.items() if i.record
        ]
    if format_.name != "csv" and job.input.csv.model_fields_set:
        problems.append(f"input.csv is for CSV, and the format is {format_.name}")
    return problems


def _text_problems(job: Job, format_: str) -> list[str]:
    """Return the problems with settings for numbers in text, if the format does not store numbers as text."""
    problems = []
    if job.input.decimal != "." and not any(c.from_ for c in job.columns.values()):
        problems.append(f"input.decimal is for numbers in text, and the format is {format_}: drop it")
    for name, column in job.columns.items():
        if column.from_ is None and column.decimal is not None:
            problems.append(f"columns.{name}.decimal is for numbers in text, and the format is {format_}: drop it")
        if column.from_ is None and column.strip and column.dtype != "string":
            problems.append(f"columns.{name}.strip is for text, and this column is {column.dtype}: drop it")
    return problems


def _op_threads(engine: EngineSettings) -> int:
    """Return the number of threads that one op may use."""
    if isinstance(engine.intra_op_threads, int):
        return engine.intra_op_threads
    return engine.layout.op_threads


def _model(job: Job) -> tuple[Version | None, Signature | None, str, list[str]]:
    try:
        version = find_version(job.model.path, job.model.version)
        local, sha256 = hashed_model(version.path)
        with named(version.path, local):
            signature = choose_signature(read_signatures(local), job.model.signature)
            ops = ops_of(local, signature.name)
        problems = [f"model: {p}" for p in unsupported(signature)]
        if job.model.independent and ops.dependent:
            problems.append(
                f"model: signature {signature.name!r} {', and '.join(ops.dependent)}: what comes out for a row may "
                "depend on more than the row; export it for inference, or set model.independent: false to publish "
                "such results"
            )
        return version, signature, sha256, problems
    except (ModelError, OSError) as error:
        return None, None, "", [f"model.path: {error}"]


def _options(job: Job, format_: Format, signature: Signature | None) -> Options:
    value_column = None
    if signature is not None and len(signature.inputs) == 1:
        name = next(iter(signature.inputs))
        sources = job.inputs.get(name, Input()).sources(name)
        value_column = sources[0] if len(sources) == 1 and sources[0] in job.columns else None
    record_column = RECORD if any(i.record for i in job.inputs.values()) else None
    return format_.options(Wanted({"csv": job.input.csv}, record_column, value_column))


def _read_settings(job: Job, format_: str, options: Options) -> ReadSettings:
    return ReadSettings(
        format=format_,
        columns=job.contract,
        payload=job.rejects.payload == "full",
        extra=job.input.extra,
        strip=job.input.strip,
        options=options,
        max_block_bytes=job.engine.block_bytes,
        max_row_bytes=job.input.max_row_bytes,
    )


def _resolve_keep(
    job: Job, files: Sequence[InputFile], read: ReadSettings
) -> tuple[tuple[str, ...], dict[str, pa.DataType]]:
    """Return the kept columns, and the types of those that the files define."""
    keep = job.output.kept
    format_ = format_named(read.format)
    types: dict[str, pa.DataType] = {}
    for file in files:
        try:
            found = format_.columns_of(file.path, dataclasses.replace(read, keep=keep), file.version)
        except (UnusableFile, OSError):  # see `_check_files`
            continue
        if found is None:
            continue
        keep = tuple(found) if keep is None else keep
        types |= {n: t for n, t in found.items() if n in keep and n not in job.columns and n not in types}
        if not (untyped := [n for n, t in types.items() if pa.types.is_null(t)]):
            break
        for name in untyped:  # no row of the file has a value: the next file defines the type
            del types[name]
    return keep or (), types


def _function_problems(job: Job) -> list[str]:
    if job.preprocess is None:
        return []
    try:
        load_function(job.preprocess)
    except PreprocessError as error:
        return [str(error)]
    return []


def _check_files(files: Sequence[InputFile], read: ReadSettings) -> list[tuple[str, UnusableFile | str | None]]:
    """Return (path, what is wrong with the file; else its header, if it has one).

    Raises:
      JobError: files that may not be read, or were removed after they were listed.
    """
    format_ = format_named(read.format)

    def check(file: InputFile) -> UnusableFile | OSError | str | None:
        try:
            return format_.check(file.path, read, file.version)
        except UnusableFile as error:
            return error
        except OSError as error:
            if is_of_the_system(error):
                return error
            return UnusableFile("unreadable", error.strerror or type(error).__name__)

    at_once = HEADS_AT_ONCE if any(is_object(f.path) for f in files) else _CHECKED_AT_ONCE
    found = list(zip((f.path for f in files), parallel_map(check, files, at_once), strict=True))
    if failed := [f"input.files: {path}: {e.strerror}" for path, e in found if isinstance(e, OSError)]:
        raise JobError([*failed[:_NAMED], *([f"and {len(failed) - _NAMED:,} more files"] if failed[_NAMED:] else [])])
    return [(path, one) for path, one in found if not isinstance(one, OSError)]


def fingerprint(
    job: Job, files: Sequence[InputFile], model_hash: str, signature: str, reshaped: Sequence[str] = ()
) -> dict[str, str]:
    """Return hashes that identify the job, by the name under which a change of each part is reported. Budget, threads
    and runner are not included because they change no result; XLA is, because it does. Settings at their defaults are
    left out, so that a new setting in a later version does not change the fingerprint.

    Args:
      reshaped: outputs that are not written in the signature's shape (see `reshaped` in `transforms.contract.outputs`).
        Runs of versions that wrote them unreshaped must not be continued.
    """
    rules: Contract = job.contract
    pieces: dict[str, Any] = {
        "input files": [tuple(vars(f).values()) for f in files],
        "input settings": job.input.model_dump(mode="json", exclude={"files"}, exclude_defaults=True),
        "model": [model_hash, signature, *(() if job.model.independent else ("not independent",))],
        "contract": [
            [n, c.model_dump(mode="json", exclude={"unit", "meaning"}, exclude_defaults=True)]
            for n, c in rules.columns.items()
        ],
        "preprocessing": [
            job.preprocess and [job.preprocess, hash_code(job.preprocess)],
            {n: i.model_dump(mode="json", exclude_defaults=True) for n, i in sorted(job.inputs.items())},
        ],
        "outputs": [
            {n: o.model_dump(mode="json", exclude_defaults=True) for n, o in job.outputs.items()},
            job.output.model_dump(mode="json", exclude={"path"}, exclude_defaults=True),
            *([list(reshaped)] if reshaped else []),
        ],
        "payload": job.rejects.payload if job.rejects.model_messages == "none" else [job.rejects.payload, "messages"],
    }
    if job.engine.xla == "on":
        pieces["engine.xla"] = "on"
    return {name: hashlib.sha256(json.dumps(piece).encode()).hexdigest()[:16] for name, piece in pieces.items()}
