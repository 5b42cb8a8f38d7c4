"""What is on record of a run (docs/manifest.md), and what is cleaned up once it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transforms import storage
from transforms.plan import STAGING
from transforms.receipt import Counts, Receipt, new_file_counts

MANIFEST = "manifest.json"
FAILED = "failed.json"
CURRENT = "current.json"
"""Under staging: which run is begun, and for what job."""

KINDS = ("predictions", "rejected")
DONE, OVER_BUDGET = "done", "over budget"

_STAGES = ("read", "validate", "preprocess", "model", "postprocess", "write")


def read_manifest(output: str) -> dict[str, Any] | None:
    """The manifest of an output folder; None where nothing is published."""
    return read_json(Path(output, MANIFEST))


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file of the protocol says; None where there is none."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def record(
    header: Mapping[str, Any],
    verdict: str,
    over_budget: Sequence[str],
    counts: Counts,
    parts: Sequence[Mapping[str, Any]],
    timings: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest, or what stands in its place over budget.

    Args:
      header: of the plan: the run, the job, and all that is known of it at launch.
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
    }


def _named(tally: Mapping[str, float], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(n) for name, n in sorted(tally.items()) if name.startswith(prefix)}


def timings(receipts: Sequence[Receipt]) -> dict[str, Any]:
    """Seconds by stage, summed over all workers; and the clock from the first split read on."""
    counts = Counts.of(receipts)
    seconds = max((r.ended for r in receipts), default=0) - min((r.began for r in receipts), default=0)
    return {
        "first_read_to_last_receipt_s": round(seconds, 3),
        "rows_per_s": round(counts.read / seconds) if seconds > 0 else None,
        "stage_s": {s: round(counts.tally.get(f"{s}_s", 0), 3) for s in _STAGES},
        "model_calls": int(counts.tally.get("model_calls", 0)),
    }


def clean_up(output: str, manifest: Mapping[str, Any]) -> None:
    """Removes what a published run leaves over: its staging, and all of the runs that it replaces.

    Done again, it changes nothing; so whoever finds a manifest may finish what its writer could not.
    """
    root, staging = Path(output), Path(output, STAGING)
    over = {manifest["run"], *manifest["replaces"]}
    for name in (root / FAILED, staging / CURRENT):
        if (standing := read_json(name)) is not None and standing["run"] in over:
            storage.remove(name)
    for run in manifest["replaces"]:
        for path in root.glob(f"[pr]*/{run}-*"):
            if path.parent.name in KINDS:
                storage.remove(path)
    if staging.is_dir():
        # An earlier launch whose folder still stands here died before it was ready, or has lost.
        for folder in staging.iterdir():
            if folder.is_dir() and (folder.name in over or folder.name < manifest["run"]):
                storage.remove_folder(folder)
        storage.remove_if_empty(staging)
