"""The execution of a verdict: what becomes visible, in which order, and what is removed afterwards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from beam_score.transforms.durable import storage
from beam_score.transforms.durable.disk_probe import PROBE
from beam_score.transforms.durable.sealed import CorruptFile, seal, to_json
from beam_score.transforms.ledger.folder import LAUNCHES, STAGING, RunFolder, parse_current
from beam_score.transforms.ledger.manifest import FAILED, KINDS, MANIFEST, parse, published, read_failed
from beam_score.transforms.ledger.names import PUBLISHED, is_in_run, is_in_staging, is_launch
from beam_score.transforms.ledger.verdict import PUBLISH, log

PUBLISHING = "publishing"


def clean_up(output: str, manifest: Mapping[str, Any], kept: Collection[str] = (), just_now: bool = False) -> None:
    """Remove the leftovers of a published run: its staging, and all files of the runs that it replaces.

    This is idempotent, so any process that finds a manifest may finish what its writer could not.

    Args:
      kept: replaced runs whose published files stay, for readers that still use their manifest.
      just_now: whether the caller has just published it. If so, launches that are preparing are no longer shown: they
        will find it finished. On a store their files expire by themselves, since they are renewed.
    """
    root = storage.at(output)
    staging = root / STAGING
    over = {manifest["run"], *manifest["replaces"]}
    # In this order: a launch that finds this run in current.json must not find it without a plan, and plan it again.
    drop_current(output, over)
    for run in over:
        RunFolder(output, run).remove()
    # After staging: until then a slow process could still give them their final names.
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
    storage.remove_all([note for note in notes if every or not storage.is_leased(note)])
    storage.remove_if_empty(launches)
    storage.remove_if_empty(staging)


def drop_current(output: str, runs: Collection[str | None], publishing: bool = True) -> bool:
    """Remove `current.json` if it names one of these runs.

    Args:
      runs: ids of runs; None for a `current.json` that is damaged.
      publishing: whether to remove it even if the run is being published; see `is_publishing`.

    Returns:
      False if it names a run that is being published, and was to be left.
    """
    path = RunFolder(output, "").current
    while (known := storage.read(path)) is not None and current_run(known) in runs:
        if not publishing and is_publishing(known):
            return False
        storage.swap(path, known, None)
    return True


def is_publishing(content: bytes) -> bool:
    """Return whether `current.json` says that its run is being published, and may no longer be discarded. It says so
    only on stores without folders; a removed folder would stop the publisher."""
    try:
        return PUBLISHING in parse_current(content)
    except CorruptFile:
        return False


def claim_publication(folder: RunFolder) -> bool:
    """Mark a run as being published, if the store requires that; see `is_publishing`.

    Returns:
      False if the run is not the current run: it was discarded, or another process has published it.
    """
    if storage.has_folders(folder.path):
        return True
    while (known := storage.read(folder.current)) is not None and current_run(known) == folder.run:
        if is_publishing(known) or storage.swap(folder.current, known, seal(parse_current(known) | {PUBLISHING: True})):
            return True
    return False


def current_run(content: bytes) -> str | None:
    """Return the run that `current.json` names; None if it is damaged."""
    try:
        return parse_current(content)["run"]
    except CorruptFile:
        return None


def files_of_runs(output: str, runs: Collection[str]) -> list[storage.Place]:
    """Return the files with final names of these runs."""
    if not runs:
        return []
    folders = [storage.at(output) / kind for kind in KINDS]
    return [f / n for f in folders for n in storage.names(f) if (named := PUBLISHED.fullmatch(n)) and named[1] in runs]


_DISCARDED = "run {} was discarded in the meantime: none of its rows is published"


class Superseded(RuntimeError):
    """Another run is published in place of this one, or has discarded it: nothing of this run is published."""


def roll_forward(folder: RunFolder, verdict: Mapping[str, Any], keep_replaced: bool = False) -> dict[str, Any]:
    """Carry out a verdict. Any process that finds it may do so, at any time, again: each step is idempotent.

    Args:
      keep_replaced: whether the files of the previously published run stay, for readers that still use its manifest,
        until another replacement begins or the output is cleaned.

    Returns:
      the manifest, or the record that replaces it if the run is over budget.

    Raises:
      Superseded: another run is published here, or this one was discarded.
    """
    output, manifest = storage.at(folder.output), verdict["manifest"]
    before, content = manifest["replaces"], to_json(manifest, indent=True)
    try:
        for kind in dict.fromkeys(f["kind"] for f in manifest["files"]):
            storage.make_folder(output / kind)
            storage.publish([(folder.parts / part, output / name) for part, name in _of_kind(verdict, kind)])
            storage.sync_folder(output / kind)
        if verdict["decision"] == PUBLISH:
            before = _settle(folder, manifest, content)
        elif storage.has_folders(output) or _is_begun(folder):
            storage.replace(output / FAILED, content, folder.path)
        else:
            raise FileNotFoundError(str(folder.current))
    except FileNotFoundError:
        # Another process has carried it out meanwhile, and cleaned up; or the run was discarded.
        if storage.exists(folder.plan):
            raise
        if not published(folder.output, folder.run):
            raise Superseded(_DISCARDED.format(folder.run)) from None
    # Over budget, staging stays: with a higher budget the same job publishes without scoring again.
    # The manifest is read, not assumed to exist; but one of very many files is not parsed twice.
    there = storage.read(output / MANIFEST)
    standing = manifest if there == content else None if there is None else parse(there, output / MANIFEST)
    del there, content
    if standing is None or standing["run"] != folder.run:
        return manifest
    try:
        clean_up(folder.output, standing, before if keep_replaced else (), just_now=True)
    except OSError as error:
        log.warning(
            "run %s is published, but its leftovers could not be removed (%s): run beam-score clean", folder.run, error
        )
    return standing


def _of_kind(verdict: Mapping[str, Any], kind: str) -> list[Sequence[str]]:
    return [p for p in verdict["parts"] if p[1].startswith(f"{kind}/")]


def _settle(folder: RunFolder, manifest: Mapping[str, Any], content: bytes) -> Sequence[str]:
    """Publish this run's manifest, replacing only the manifests of the runs that it replaces.

    Returns:
      the runs that may have been published before it.
    """
    path, claimed = storage.at(folder.output) / MANIFEST, False
    while True:
        known = storage.read(path)
        standing = None if known is None else parse(known, path)
        if standing is not None and standing["run"] == folder.run:
            return manifest["replaces"]
        if standing is not None and standing["run"] not in manifest["replaces"]:
            raise Superseded(
                f"run {standing['run']} was published in {folder.output} in the meantime: its output is kept, "
                f"and run {folder.run} is not published"
            )
        if claimed and storage.swap(path, known, content, folder.path):
            return [] if standing is None else [standing["run"]]
        if not claimed and not (claimed := claim_publication(folder)):
            # A process that has carried it out says so only after the manifest is published.
            if published(folder.output, folder.run):
                return manifest["replaces"]
            raise Superseded(_DISCARDED.format(folder.run))


def _is_begun(folder: RunFolder) -> bool:
    known = storage.read(folder.current)
    return known is not None and current_run(known) == folder.run
