"""Runs that have ended, by what they left on record."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from beam_score.transforms.ledger.manifest import read_failed, read_manifest


class LettersLost(RuntimeError):
    """The dead letters, or the record, of the run that is replayed cannot be read any more."""


@functools.lru_cache(4)
def files_on_record(output: str, run: str) -> Mapping[str, Mapping[str, Any]]:
    """What the record of a run says of each of its input files, by path.

    Raises LettersLost where the run is not there any more."""
    record = next((record for record in runs_on_record(output) if record["run"] == run), None)
    if record is None:
        raise LettersLost(f"{output} does not hold run {run} any more, whose dead letters are replayed")
    texts = record["headers"]
    return {i["path"]: {**i, "header": None if i["header"] is None else texts[i["header"]]} for i in record["inputs"]}


def runs_on_record(output: str) -> list[dict[str, Any]]:
    """What an output folder holds of runs that have ended, the last one first: the manifest, and what a run that was
    to replace it, or to be the first, has left over its budget."""
    manifest, failed = read_manifest(output), read_failed(output)
    if failed is not None and manifest is not None and failed["run"] in (manifest["run"], *manifest["replaces"]):
        failed = None  # about to be cleaned up
    return [record for record in (failed, manifest) if record is not None]
