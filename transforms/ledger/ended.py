"""Records of runs that have ended."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from beam_score.transforms.ledger.manifest import read_failed, read_manifest


class DeadLettersLost(RuntimeError):
    """The dead letters, or the record, of the replayed run can no longer be read."""


@functools.lru_cache(4)
def files_on_record(output: str, run: str) -> Mapping[str, Mapping[str, Any]]:
    """Return what the record of a run says about each of its input files, by path.

    Raises DeadLettersLost if the run no longer exists.
    """
    record = next((record for record in runs_on_record(output) if record["run"] == run), None)
    if record is None:
        raise DeadLettersLost(f"{output} no longer contains run {run}, whose dead letters are being replayed")
    texts = record["headers"]
    return {i["path"]: {**i, "header": None if i["header"] is None else texts[i["header"]]} for i in record["inputs"]}


def runs_on_record(output: str) -> list[dict[str, Any]]:
    """Return the records of ended runs in an output folder, the last one first: the manifest, and the record of an
    over-budget run that was to replace it, or to be the first."""
    manifest, failed = read_manifest(output), read_failed(output)
    if failed is not None and manifest is not None and failed["run"] in (manifest["run"], *manifest["replaces"]):
        failed = None  # about to be cleaned up
    return [record for record in (failed, manifest) if record is not None]
