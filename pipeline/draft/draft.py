"""Draft of a job file for `beam-score init`, from a model's signature and the first rows of data.

Certain settings are written without a comment. A guess is marked in a comment, with its reason. Settings that cannot
be guessed are a `TODO` with the candidates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from beam_score.pipeline.draft.match import Match, match_columns
from beam_score.pipeline.draft.output_drafts import output_lines, unusable_outputs
from beam_score.pipeline.draft.sample import Sample, look_at
from beam_score.pipeline.draft.yaml_text import flow, scalar
from beam_score.pipeline.printing.terminal import printable
from beam_score.transforms.common.names import quoted
from beam_score.transforms.formats.first_rows import UNKNOWN, Hints
from beam_score.transforms.model.copies import local_model, named
from beam_score.transforms.model.signature import ModelError, Signature, choose_signature, read_signatures, unsupported
from beam_score.transforms.model.versions import Version, find_version


def draft_job(
    model_path: str,
    data_patterns: str | Sequence[str],
    version: str | int = "latest",
    signature: str | None = None,
    known: Hints = UNKNOWN,
) -> str:
    """Draft a commented job file, as YAML text.

    Args:
      model_path: see `find_version`; written into the file unchanged.
      data_patterns: of the input files; written into the file unchanged.
      version: of the model; see `find_version`.
      signature: of the model; see `choose_signature`.
      known: properties of the files that need not be guessed.

    Raises:
      ModelError: if the model does not exist, its signature cannot be fed, or none of its outputs can be written.
      JobError: if the data does not exist, or cannot be read.
    """
    patterns = [data_patterns] if isinstance(data_patterns, str) else list(data_patterns)
    found = find_version(model_path, version)
    local = local_model(found.path)
    with named(found.path, local):
        chosen = choose_signature(read_signatures(local), signature)
    unusable = unsupported(chosen)
    useless = unusable_outputs(chosen)
    if not unusable and len(useless) == len(chosen.outputs):
        unusable = list(useless.values())
    if unusable:
        raise ModelError("\n".join(unusable))
    sample = look_at(patterns, dataclasses.replace(known, expected=tuple(chosen.inputs)))
    match = match_columns(chosen, sample)
    lines = [
        "# A job for beam-score. Guesses are marked as guessed; check them, then:",
        "#",
        "#     beam-score check job.yaml    # tests everything that can be tested before a launch",
        "#     beam-score run job.yaml",
        "",
        *_input_lines(patterns, sample),
        "",
        *_model_lines(model_path, version, found, chosen),
        "",
        *_column_lines(match, sample),
        "",
        *_model_input_lines(match, chosen),
        "",
        *output_lines(chosen, match.keep),
        "",
        *_rest_lines(match, sample),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _input_lines(patterns: Sequence[str], sample: Sample) -> Iterator[str]:
    yield "input:"
    yield f"  files: {scalar(patterns[0]) if len(patterns) == 1 else flow(patterns)}"
    found = f"{sample.files:,} file{'s' * (sample.files != 1)} now; the first {sample.rows:,} rows were inspected"
    yield f"  # {found}" + (f", and {sample.unreadable:,} could not be parsed" if sample.unreadable else "")
    yield from (f"  # {printable(problem)}" for problem in sample.problems)
    yield f"  format: {sample.format}"
    if sample.spaced:
        yield "  strip: true  # removes spaces around text"
        yield f"  # guessed: all texts in these columns begin with a space: {flow(sample.spaced[:12])}"
    if (dialect := sample.dialect) is not None:
        header = dialect.header
        shown = str(header.is_there).lower() if header.is_sure else "null"
        escape = f", escape: {quoted(dialect.escape)}" if dialect.escape else ""
        yield f"  csv: {{delimiter: {quoted(dialect.delimiter)}, header: {shown}{escape}}}"
        if escape:
            yield "  # guessed: quotes inside quoted fields are escaped with a backslash, as Spark writes them"
        if not header.is_sure:
            said = "true" if header.is_there else "false"
            taken, other = ("a header", "--no-header") if header.is_there else ("a row", "--header")
            yield f"  # TODO: is the first line a header? Not sure: {header.why}."
            yield f"  # Read as {taken} here. If that is right, set header: {said}. If not, run init with {other}."
        elif not header.is_there:
            why = f"guessed: {header.why}; the" if header.why else "the"
            yield f"  # {why} column names are generated"


def _model_lines(path: str, version: str | int, found: Version, chosen: Signature) -> Iterator[str]:
    yield "model:"
    yield f"  path: {scalar(path)}"
    note = (
        f"  # now {found.version}, of {', '.join(found.versions)}"
        if found.versions and str(version) == "latest"
        else ""
    )
    yield f"  version: {scalar(str(version)) if str(version) == 'latest' else version}{note}"
    yield f"  signature: {scalar(chosen.name)}"
    yield "  batch_rows: auto"


def _column_lines(match: Match, sample: Sample) -> Iterator[str]:
    yield "# The rules of a valid row. A row that breaks a rule becomes a dead letter. Further settings of a column:"
    yield "# range, allowed, min_length, max_length, finite, default, required, nulls, unit, meaning."
    if not match.columns:
        yield "columns: {}"
        return
    yield "columns:"
    for name, draft in match.columns.items():
        yield f"  {scalar(name)}: {draft.rules()}" + (f"  # {draft.remark}" if draft.remark else "")


def _model_input_lines(match: Match, signature: Signature) -> Iterator[str]:
    yield "# The columns that feed the model's inputs. An input with a column of the same name needs no entry:"
    plain = [t for t in signature.inputs.values() if t.name not in match.inputs]
    for tensor in plain:
        yield f"#   {scalar(tensor.name)}: {tensor.describe()}"
    if not match.inputs:
        yield "inputs: {}"
        return
    yield "inputs:"
    for name, (how, notes) in match.inputs.items():
        yield f"  {scalar(name)}: {how}  # {signature.inputs[name].describe()}"
        yield from (f"    # {note}" for note in notes)


def _rest_lines(match: Match, sample: Sample) -> Iterator[str]:
    others = [n for n in sample.columns if n not in match.keep and n]
    shown = flow(others[:12]) + (" ..." if len(others) > 12 else "")
    yield "output:"
    yield "  path: out"
    yield "  format: parquet"
    yield f"  keep: {flow(match.keep)}"
    why = "guessed: it looks like an id; " if match.keep else "no column looks like an id; "
    yield f"    # {why}input columns to keep in the output: a list, all, or none" + (
        f"; others: {shown}" if others else ""
    )
    yield "  position: false  # true adds the source file and the row number"
    yield ""
    yield "rejects:"
    yield "  payload: full  # none: a dead letter does not show the row"
    yield "  budget: 1%  # rejected rows allowed, a count or a share; with more, only dead letters are published"
    yield "  files: 0  # unusable files, and unreadable parts of files, allowed"
    yield ""
    yield "engine:"
    yield "  runner: local"
    yield "  workers: auto"
