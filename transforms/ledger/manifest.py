"""The record of a run (docs/manifest.md), and the clean-up after it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from beam_score.transforms.common.busy import busy_seconds
from beam_score.transforms.durable import storage
from beam_score.transforms.ledger.names import PUBLISHED_PATH
from beam_score.transforms.ledger.receipt import Counts, new_file_counts
from beam_score.transforms.ledger.shapes import MANIFEST as MANIFEST_SHAPE
from beam_score.transforms.ledger.shapes import Misfit, fit

MANIFEST = "manifest.json"
FAILED = "failed.json"
KINDS = ("predictions", "rejected")
DONE, OVER_BUDGET = "done", "over budget"

_STAGES = ("read", "validate", "preprocess", "model", "postprocess", "write")


class Unreadable(ValueError):
    """A file that a run has published is not as it was written."""


def read_manifest(output: str) -> dict[str, Any] | None:
    """Return the manifest of an output folder; None if nothing is published. Raises Unreadable."""
    return _read(storage.at(output) / MANIFEST)


def read_failed(output: str) -> dict[str, Any] | None:
    """Return the record of the last run that was over budget; None if there is none. Raises Unreadable."""
    return _read(storage.at(output) / FAILED)


def _read(path: storage.Place) -> dict[str, Any] | None:
    content = storage.read(path)
    return None if content is None else parse(content, path)


def parse(content: bytes, path: storage.Place) -> dict[str, Any]:
    """Return a parsed manifest. Raises Unreadable."""
    try:
        found = orjson.loads(content)
        fit(found, MANIFEST_SHAPE)
        check_own_files(found)
    except ValueError as error:
        why = str(error) if isinstance(error, Misfit) else "it is not JSON"
        raise Unreadable(
            f"{path} is not a manifest of beam-score, or is damaged: {why}; put it back as it was, or move it to "
            "another folder (the files that it listed are not changed)"
        ) from None
    return found


def check_own_files(manifest: Mapping[str, Any]) -> None:
    """Raise Misfit if a manifest of valid shape lists files of another run, or in the wrong folder."""
    for file in manifest["files"]:
        named = PUBLISHED_PATH.fullmatch(file["path"])
        if named is None or named.groups() != (file["kind"], manifest["run"]):
            raise Misfit(f"files: {file['path']} is not a file of {file['kind']} of run {manifest['run']}")


def published(output: str, run: str) -> bool:
    """Return whether a run is the published run of an output folder."""
    manifest = read_manifest(output)
    return manifest is not None and manifest["run"] == run


def record(
    header: Mapping[str, Any],
    verdict: str,
    over_budget: Sequence[str],
    counts: Counts,
    parts: Sequence[Mapping[str, Any]],
    timings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest, or the record that replaces it over budget.

    Args:
      header: of the plan: the run, the job, and everything known about it at launch.
      parts: what is published.
      timings: see `timings`.
    """
    return {
        "manifest": 1,
        "run": header["run"],
        "verdict": verdict,
        "over_budget": list(over_budget),
        "counts": counts.summary(),
        "defaults_used": _named(counts.tally, "defaults_used."),
        "not_finite_outputs": _named(counts.tally, "not_finite_outputs."),
        "not_probabilities": _named(counts.tally, "not_probabilities."),
        "timings": timings,
        "model": header["model"],
        "engine": header["engine"],
        "versions": header["versions"],
        "fingerprint": header["fingerprint"],
        "job": header["job"],
        "files": [{k: p[k] for k in ("path", "kind", "rows", "bytes", "crc32c")} for p in parts],
        "headers": header["headers"],
        "inputs": [i | (counts.files.get(i["path"]) or new_file_counts()) for i in header["inputs"]],
        "replaces": header["replaces"],
        "parent": header["parent"],
        "mark": header.get("mark"),
    }


def _named(tally: Mapping[str, float], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(n) for name, n in sorted(tally.items()) if name.startswith(prefix)}


def timings(counts: Counts, spans: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return seconds by stage, summed over all workers; and the elapsed time from the first read to the last receipt.

    Args:
      counts: of all splits.
      spans: of each split, (began, ended).
    """
    seconds = max((ended for _, ended in spans), default=0) - min((began for began, _ in spans), default=0)
    seconds = max(seconds, 0)  # a clock may have been set back meanwhile
    busy = busy_seconds(spans)
    return {
        "first_read_to_last_receipt_s": round(seconds, 3),
        "rows_per_s": round(counts.read / busy) if busy > 0 else None,
        "stage_s": {s: round(counts.tally.get(f"{s}_s", 0), 3) for s in _STAGES},
        "model_calls": int(counts.tally.get("model_calls", 0)),
    }
