"""Refusal of a run that is over its budget of files before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from beam_score.pipeline.prepare.preflight import Prepared
from beam_score.pipeline.run.begin import describe, new_run
from beam_score.pipeline.run.output_state import OutputState
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import checksum, to_json
from beam_score.transforms.ledger.manifest import FAILED, OVER_BUDGET, record, timings
from beam_score.transforms.ledger.receipt import Counts, new_file_counts
from beam_score.transforms.output.dead_letters import dead_letter_rows
from beam_score.transforms.rows.as_json import lines_of
from beam_score.transforms.rows.faults import stretch


def refuse_unusable(prepared: Prepared, fingerprint: Mapping[str, str], state: OutputState) -> Mapping[str, Any] | None:
    """Refuse the job if headers and footers show more unusable files than `rejects.files` allows: write a dead letter
    for each file, and the failure record, as a run would. Nothing is read or scored.

    Returns the failure record, or None if the job can continue.
    """
    budget = prepared.job.rejects.as_budget()
    if len(prepared.unusable) <= budget.files:
        return None
    run, output = new_run(), storage.at(prepared.job.output.path)
    counts, letters = Counts(), []
    for path, error in prepared.unusable:
        counts.add(path, new_file_counts() | {"stretches": {error.reason: 1}})
        refused = stretch(0, None, error.reason, error.message, error.column)
        counts.rejections.add_letters(refused, path)
        letters.append(dead_letter_rows(refused, path, run))
    content = lines_of(pa.Table.from_batches(letters))
    name = f"rejected/{run}-00000.jsonl"
    storage.make_folder(output / "rejected")
    storage.replace(output / name, content)
    part = {"path": name, "kind": "rejected", "rows": len(letters), "bytes": len(content), "crc32c": checksum(content)}
    header = describe(prepared, fingerprint, state) | {"run": run, "engine": None}
    failed = record(header, OVER_BUDGET, budget.broken(counts), counts, [part], timings(counts, []))
    storage.replace(output / FAILED, to_json(failed, indent=True))
    if storage.size(output / name) is None:
        # A concurrent clean may have removed the file before the record named it; now that the record exists, it
        # cannot.
        storage.replace(output / name, content)
    if state.failed is not None and (state.current is None or state.current["run"] != state.failed["run"]):
        # The files of an earlier refusal; a run that was scored still needs its own.
        for file in state.failed["files"]:
            storage.remove(output / file["path"])
    return failed
