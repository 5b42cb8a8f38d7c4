"""A replay: a job that scores the dead letters of an earlier run again, with corrected settings."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from beam_score.pipeline.job.job import Job, parse_job, set_key
from beam_score.pipeline.job.mistakes import JobError
from beam_score.pipeline.prepare.own_runs import is_own
from beam_score.pipeline.prepare.row_sources import FromDeadLetters
from beam_score.transforms.common.names import near_miss
from beam_score.transforms.durable import storage
from beam_score.transforms.formats.detect import format_of
from beam_score.transforms.ledger.ended import runs_on_record
from beam_score.transforms.ledger.manifest import DONE
from beam_score.transforms.ledger.verdict import CommitError
from beam_score.transforms.listing.files import InputFile, look_at_file
from beam_score.transforms.replay.dead_letter import DAMAGE_REASONS
from beam_score.transforms.replay.options import REPLAY_SOURCES, Replay
from beam_score.transforms.stores.objects import is_object


def load_replay(
    output: str, overrides: Sequence[str] = (), to: str | None = None, by: str = "auto", trust: bool = False
) -> tuple[Job, FromDeadLetters]:
    """Return the job that replays the dead letters of the last ended run in a folder, and that run.

    Args:
      output: of the run: a folder with a manifest.json or a failed.json.
      overrides: `key=value`, changes to its job.
      to: the output folder of the replay; None for the folder of the run with `-replay` appended to its name.
      by: one of `transforms.replay.options.REPLAY_SOURCES`.
      trust: run the model and function of a record that this user has not written.

    Raises:
      JobError: there is nothing to replay, or it cannot be replayed in this way.
    """
    output = output.rstrip("/") or output
    records = runs_on_record(output)
    if not records:
        raise JobError(
            [f"{output} holds no manifest.json and no failed.json: name the output folder of a run that has ended"]
        )
    # A run that was refused before any row was read has no rows to score again.
    record = next((record for record in records if record["engine"] is not None), records[0])
    if by not in REPLAY_SOURCES:
        raise JobError([f"--from {by}: expected auto, payload or source{near_miss(by, REPLAY_SOURCES)}"])
    if record["engine"] is None:
        raise JobError(
            [f"run {record['run']} in {output} was refused before any row was read: mend it, and run its job again"]
        )
    parts = [f for f in record["files"] if f["kind"] == "rejected"]
    if not parts:
        raise JobError([f"run {record['run']} in {output} has no dead letters: there is nothing to replay"])
    files = _dead_letter_files(output, record["run"], parts)
    to = to or f"{output}-replay"
    if to.rstrip("/") == output or (not is_object(to) and os.path.realpath(to) == os.path.realpath(output)):
        raise JobError([f"--output {to} is the folder of the run that is replayed: name another"])
    first = parse_job(record["job"], f"the job of run {record['run']}")
    if not trust and not is_own(record):
        raise JobError([_not_own(output, record["run"], first)])
    job = _mended(record, first, overrides, to)
    format_ = job.input.format or _format(first, record)
    assert format_ is not None  # the run has read rows
    same_rows = _numbering(job) == _numbering(first, record)
    replay = Replay(output, record["run"], format_, by=by, same_rows=same_rows)
    parent = FromDeadLetters(output, record, replay, files)
    _refuse_hopeless(parent, first)
    return job, parent


def _not_own(output: str, run: str, job: Job) -> str:
    """Return the message that lists what a record written by someone else would run."""
    flink = job.engine.flink
    programs = {
        "model.path": job.model.path,
        "preprocess": job.preprocess,
        "engine.flink.job_server_jar": flink.job_server_jar,
        "engine.flink.worker_command": flink.worker_command,
    }
    named = ", ".join(f"{key} {value}" for key, value in programs.items() if value is not None)
    return (
        f"run {run} in {output} was not launched by this user on this machine, or its record was changed since. Its "
        f"replay runs what the record names, with your rights: {named}. Look at them, and at `job` in the record; "
        "then add --trust"
    )


def _dead_letter_files(output: str, run: str, parts: Sequence[Mapping[str, Any]]) -> list[InputFile]:
    found, problems = [], []
    for part in parts:
        path = str(storage.at(output) / part["path"])
        listed = look_at_file(path)
        if listed is None:
            problems.append(f"{path}: the dead letters of run {run} are missing: restore the file")
            continue
        if listed.size != part["bytes"]:
            problems.append(f"{path}: found {listed.size} bytes, and run {run} wrote {part['bytes']}: restore the file")
        found.append(listed)
    if problems:
        raise JobError(problems)
    return found


def _mended(record: Mapping[str, Any], first: Job, overrides: Sequence[str], to: str) -> Job:
    """Return the parent's job with the overrides applied."""
    settings = json.loads(json.dumps(record["job"]))
    settings["output"]["path"] = to
    settings["input"]["format"] = _format(first, record)
    if not isinstance(first.rejects.budget, int):
        # The budget is of all rows, not only of the bad ones: the replay may reject as many rows as the parent.
        allowed = math.floor(first.rejects.budget * record["counts"]["read"])
        settings["rejects"] = {**settings.get("rejects", {}), "budget": allowed}
    keys = [override.partition("=")[0].strip() for override in overrides]
    if first.model.version == "latest" and record["model"]["version"] and not {"model", "model.path"} & {*keys}:
        settings["model"]["version"] = record["model"]["version"]  # predictions must come from one version
    for key, override in zip(keys, overrides, strict=True):
        if key in ("input", "input.files"):
            raise JobError([f"--set {key}: a replay reads the dead letters of its run, and no other files"])
        if key in ("output", "output.path"):
            raise JobError([f"--set {key}: name the folder of the replay with --output"])
        set_key(settings, override)
    return parse_job(settings, "replay")


def _format(job: Job, record: Mapping[str, Any]) -> str | None:
    return job.input.format or format_of([InputFile(i["path"], 0) for i in record["inputs"]])[0]


def _numbering(job: Job, record: Mapping[str, Any] | None = None) -> tuple[object, ...]:
    """Return the settings that the numbering of rows depends on."""
    csv = job.input.csv
    format_ = job.input.format if record is None else _format(job, record)
    return format_, csv.delimiter, csv.quote, csv.escape, csv.header


def _refuse_hopeless(parent: FromDeadLetters, first: Job) -> None:
    """Raise JobError if no row can be obtained."""
    replay, files = parent.replay, parent.entries
    if replay.by == "payload" and first.rejects.payload == "none":
        raise JobError([f"--from payload: run {replay.run} kept none (rejects.payload: none): use --from source"])
    if replay.by == "source" and not replay.same_rows:
        raise JobError(
            [
                "--from source: with another input.format, csv.delimiter, csv.quote, csv.escape or csv.header a row's "
                "number is another: use --from payload"
            ]
        )
    if replay.by == "source" or (replay.by == "auto" and first.rejects.payload == "none"):
        usable = [f for f in files if parent.is_unchanged(f) or (_was_damaged(f) and parent.now[f["path"]])]
        if not usable:
            path = files[0]["path"]
            state = "is missing" if parent.now[path] is None else f"has changed since run {replay.run}"
            others = f" (nor can {len(files) - 1} more)" if len(files) > 1 else ""
            shown = "" if replay.by == "source" else "the dead letters have no payload (rejects.payload: none), and "
            raise JobError([f"nothing can be replayed: {shown}{path} {state}{others}: put it back as it was"])


def _was_damaged(file: Mapping[str, Any]) -> bool:
    """Return whether replacing the file by an intact one would help."""
    return bool(file["stretches"]) or not DAMAGE_REASONS.isdisjoint(file["rejected"])


def accounting(parent: FromDeadLetters, manifest: Mapping[str, Any]) -> str:
    """Return a sentence that accounts for every row that the parent read, after its replay.

    Raises:
      CommitError: the counts of the two runs do not add up.
    """
    before, after = parent.record["counts"], manifest["counts"]
    by_path = {i["path"]: i for i in manifest["inputs"]}
    for file in parent.entries:
        refused, read = sum(file["rejected"].values()), by_path.get(file["path"], {"read": 0})["read"]
        if read < refused or (read > refused and not file["stretches"]):
            raise CommitError(
                f"{file['path']}: {refused} rows were refused by run {parent.record['run']}, its replay read {read}: "
                f"the rows are not all accounted for; what run {manifest['run']} has written stands, and is not to be "
                "relied on: please report it"
            )
    over = [who for who, of in (("the parent", parent.record), ("this replay", manifest)) if of["verdict"] != DONE]
    won = after["read"] - before["rejected"]
    read = f"the parent read {before['read']:,}" + (f" and {won:,} more could be read now" if won else "")
    return (
        f"{read} = {before['predicted']:,} predicted by it + {after['predicted']:,} predicted by this replay "
        f"+ {after['rejected']:,} still rejected"
        + "".join(f"; {who} is over its budget, so its predictions are not published" for who in over)
    )
