"""What is on record of a run (docs/manifest.md), and what is cleaned up once it stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from transforms import storage
from transforms.receipt import Counts, new_file_counts
from transforms.record_shapes import MANIFEST as MANIFEST_SHAPE
from transforms.record_shapes import Misfit, fit
from transforms.run_folder import LAUNCHES, STAGING, RunFolder, parse_current
from transforms.run_names import PROBE, PUBLISHED, PUBLISHED_PATH, is_in_run, is_in_staging, is_launch
from transforms.sealed import Damaged, seal
from transforms.spans import busy_seconds

MANIFEST = "manifest.json"
FAILED = "failed.json"
KINDS = ("predictions", "rejected")
DONE, OVER_BUDGET = "done", "over budget"
PUBLISHING = "publishing"

_STAGES = ("read", "validate", "preprocess", "model", "postprocess", "write")


class Unreadable(ValueError):
    """A file that a run has published is not what it was."""


def read_manifest(output: str) -> dict[str, Any] | None:
    """The manifest of an output folder; None where nothing is published. Raises Unreadable."""
    return _read(storage.at(output) / MANIFEST)


def read_failed(output: str) -> dict[str, Any] | None:
    """What the last run that was over budget left; None where none did. Raises Unreadable."""
    return _read(storage.at(output) / FAILED)


def _read(path: storage.Place) -> dict[str, Any] | None:
    content = storage.read(path)
    return None if content is None else parse(content, path)


def parse(content: bytes, path: storage.Place) -> dict[str, Any]:
    """A manifest. Raises Unreadable."""
    try:
        found = orjson.loads(content)
        fit(found, MANIFEST_SHAPE)
        check_own_files(found)
    except ValueError as error:
        why = str(error) if isinstance(error, Misfit) else "it is not JSON"
        raise Unreadable(
            f"{path} is not a manifest of beam-score, or is damaged: {why}; put it back as it was, or move it away "
            "(the files that it listed stay where they are)"
        ) from None
    return found


def check_own_files(manifest: Mapping[str, Any]) -> None:
    """Raises Misfit where a manifest, which has its shape, lists files of another run, or in the wrong folder."""
    for file in manifest["files"]:
        kind, run = PUBLISHED_PATH.fullmatch(file["path"]).groups()
        if (kind, run) != (file["kind"], manifest["run"]):
            raise Misfit(f"files: {file['path']} is not a file of {file['kind']} of run {manifest['run']}")


def published(output: str, run: str) -> bool:
    """Whether a run is what is published in an output folder."""
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
    """Seconds by stage, summed over all workers; and the clock from the first split read on.

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


def clean_up(output: str, manifest: Mapping[str, Any], kept: Collection[str] = (), just_now: bool = False) -> None:
    """Removes what a published run leaves over: its staging, and all of the runs that it replaces.

    Done again, it changes nothing; so whoever finds a manifest may finish what its writer could not.

    Args:
      kept: runs that it replaces whose published files stay, for readers that still go by their manifest.
      just_now: whether it has been published by this call's caller. Then launches that are getting ready are shown no
        longer: they will find it finished. A store's go by themselves, since they are renewed.
    """
    root = storage.at(output)
    staging = root / STAGING
    over = {manifest["run"], *manifest["replaces"]}
    # In this order: a launch that finds the run begun must not find it without a plan, and plan it anew.
    drop_current(output, over)
    for run in over:
        RunFolder(output, run).remove()
    # After staging, from which someone slow could still give them their names.
    if (failed := read_failed(output)) is not None and failed["run"] in over:
        storage.remove(root / FAILED)
    storage.remove_all(files_of_runs(output, set(manifest["replaces"]) - set(kept)))
    storage.remove_temporaries(staging, is_in_staging, is_in_run)
    if storage.has_folders(root):
        for folder in (root, *(root / kind for kind in KINDS)):  # of launches that were killed
            storage.remove_temporaries(folder, PROBE.__eq__, PROBE.__eq__)
    launches = staging / LAUNCHES
    every = just_now and storage.has_folders(launches)
    notes = [launches / n for n in storage.names(launches) if is_launch(n)]
    storage.remove_all([note for note in notes if every or not storage.is_held(note)])
    storage.remove_if_empty(launches)
    storage.remove_if_empty(staging)


def drop_current(output: str, runs: Collection[str], publishing: bool = True) -> bool:
    """Says of none of these runs any more that it is begun.

    Args:
      publishing: whether of one that is being published, too; see `is_publishing`.

    Returns:
      False where one is, and was to be left.
    """
    path = RunFolder(output, "").current
    while (known := storage.read(path)) is not None and current_run(known) in runs:
        if not publishing and is_publishing(known):
            return False
        storage.swap(path, known, None)
    return True


def is_publishing(content: bytes) -> bool:
    """Whether `current.json` says that its run is being published, so that nobody may discard it any more. It does
    so only where there are no folders, which would stop the one who publishes."""
    try:
        return PUBLISHING in parse_current(content)
    except Damaged:
        return False


def claim_publication(folder: RunFolder) -> bool:
    """Makes a run the one that is being published, where it takes that; see `is_publishing`.

    Returns:
      False where the run is not the one that is begun: it was discarded, or another has carried it out.
    """
    if storage.has_folders(folder.path):
        return True
    while (known := storage.read(folder.current)) is not None and current_run(known) == folder.run:
        if is_publishing(known) or storage.swap(folder.current, known, seal(parse_current(known) | {PUBLISHING: True})):
            return True
    return False


def current_run(content: bytes) -> str | None:
    """The run that `current.json` names; None where it is damaged."""
    try:
        return parse_current(content)["run"]
    except Damaged:
        return None


def files_of_runs(output: str, runs: Collection[str]) -> list[storage.Place]:
    """What stands under final names of these runs."""
    if not runs:
        return []
    folders = [storage.at(output) / kind for kind in KINDS]
    return [f / n for f in folders for n in storage.names(f) if (named := PUBLISHED.fullmatch(n)) and named[1] in runs]
