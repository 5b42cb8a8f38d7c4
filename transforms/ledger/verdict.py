"""The verdict of a run, and its publication: the only step that makes output visible."""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from beam_score.transforms.common.many import parallel_map
from beam_score.transforms.durable import storage
from beam_score.transforms.durable.sealed import CorruptFile, read_sealed, seal
from beam_score.transforms.ledger.budget import Budget
from beam_score.transforms.ledger.folder import RunFolder, read_plan
from beam_score.transforms.ledger.manifest import DONE, OVER_BUDGET, check_own_files, record, timings
from beam_score.transforms.ledger.names import PART, PUBLISHED_PATH
from beam_score.transforms.ledger.receipt import Counts, Receipt
from beam_score.transforms.ledger.receipts import collect
from beam_score.transforms.ledger.shapes import VERDICT, Misfit, fit
from beam_score.transforms.output.part import Part
from beam_score.transforms.stores.objects import HEADS_AT_ONCE

if TYPE_CHECKING:  # `status` reads verdicts, and does not wait for Arrow
    import pyarrow as pa

log = logging.getLogger(__name__)

PUBLISH = "publish"


class CommitError(RuntimeError):
    """The receipts do not prove that all rows of the plan are accounted for: nothing is published."""


def verdicts(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the verdicts on a run so far, in order; a damaged verdict is ignored."""
    found = []
    for number in range(1, 1 + _next_number(folder)):
        try:
            verdict = _read(folder, number)
        except CorruptFile:
            continue
        if verdict is not None:
            found.append(verdict)
    return found


def _read(folder: RunFolder, number: int) -> dict[str, Any] | None:
    """Return a verdict; None if there is none. Raises CorruptFile."""
    verdict = read_sealed(folder.verdict(number))
    if verdict is None:
        return None
    try:
        fit(verdict, VERDICT)
        check_own_files(verdict["manifest"])
        if verdict["decision"] not in (PUBLISH, OVER_BUDGET) or verdict["manifest"]["run"] != folder.run:
            raise Misfit("it is not a verdict on this run")
        final = [file["path"] for file in verdict["manifest"]["files"]]
        if not all(_is_part(*part) for part in verdict["parts"]) or [path for _, path in verdict["parts"]] != final:
            raise Misfit("its parts differ from those of its manifest")
    except (Misfit, TypeError) as error:
        raise CorruptFile(f"{folder.verdict(number)}: damaged: {error}") from None
    return verdict


def _is_part(name: Any, path: Any) -> bool:
    """Return whether these are the name of a staged file and its final name."""
    return all(isinstance(n, str) and p.fullmatch(n) for n, p in ((name, PART), (path, PUBLISHED_PATH)))


def _next_number(folder: RunFolder) -> int:
    number = 1
    while storage.exists(folder.verdict(number)):
        number += 1
    return number


HeaderOf = Callable[[Mapping[str, Any]], str | None]
"""Returns the header of an input file, given its entry in a plan; None if it has none, or cannot be read any more."""


def decide(
    folder: RunFolder, budget: Budget, schema: pa.Schema, header_of: HeaderOf = lambda _: None
) -> dict[str, Any]:
    """Return the verdict on the run: the existing one, otherwise a new one from the receipts.

    A verdict to publish is final. An over-budget verdict is followed by another, with the next number, once the budget
    is raised. A verdict contains everything needed to carry it out.

    Args:
      schema: of the predictions.
      header_of: called for the files with dead letters whose header the plan does not have: a replay needs it.

    Raises:
      CommitError: the receipts do not account for every row of the plan.
    """
    while True:
        found = verdicts(folder)
        for verdict in found:
            if verdict["decision"] == PUBLISH:
                return verdict
        if found and budget.broken(_counts(found[-1])):
            return found[-1]
        number = _next_number(folder)
        verdict = _judge(folder, budget, schema, header_of, number)
        created = storage.create_if_absent(folder.verdict(number), seal(verdict))
        if created and (written := _read(folder, number)) is not None:
            return written
        # Another process was first: its verdict is used. Or it has carried out this one, and removed the plan.


def _judge(folder: RunFolder, budget: Budget, schema: pa.Schema, header_of: HeaderOf, number: int) -> dict[str, Any]:
    plan = read_plan(folder)
    counts, parts, spans = _add_up(collect(folder, plan["splits"]))
    if counts.read != counts.predicted + counts.rejected:
        raise CommitError(
            f"{counts.read} rows read, {counts.predicted} predicted, {counts.rejected} rejected: nothing is published"
        )
    broken = budget.broken(counts)
    decision = OVER_BUDGET if broken else PUBLISH
    if broken:
        parts = [p for p in parts if p.kind == "rejected"]
    if not broken and not any(p.kind == "predictions" for p in parts):
        parts = [_empty_part(folder, plan["job"]["output"], schema), *parts]
    named = _final_names(folder, parts)
    manifest = record(
        plan,
        OVER_BUDGET if broken else DONE,
        broken,
        counts,
        [dataclasses.asdict(part) | {"path": path} for part, path in named],
        timings(counts, spans) | {"start_up_s": plan["start_up_s"]},
    )
    _add_headers(manifest, header_of)
    return {
        "number": number,
        "decision": decision,
        "decided": time.time(),
        "parts": [[part.name, path] for part, path in named],
        "manifest": manifest,
    }


def _add_headers(manifest: dict[str, Any], header_of: HeaderOf) -> None:
    """Add the headers of files with dead letters that were not read at launch."""
    without = [i for i in manifest["inputs"] if i["header"] is None and (i["rejected"] or i["stretches"])]
    places = {text: at for at, text in enumerate(manifest["headers"])}
    for entry, text in zip(without, parallel_map(header_of, without, HEADS_AT_ONCE), strict=True):
        if text is not None:
            entry["header"] = places.setdefault(text, len(places))
    manifest["headers"] = list(places)


def _add_up(receipts: Iterable[Receipt | None]) -> tuple[Counts, list[Part], list[tuple[float, float]]]:
    """Return the sums of the receipts of all splits, the parts, and when each split was processed. No receipt is kept:
    very many would take most of the memory.

    Raises CommitError if one is missing: the plan determines which receipts must exist.
    """
    counts, missing = Counts(), []
    parts: list[Part] = []
    spans: list[tuple[float, float]] = []
    for split, receipt in enumerate(receipts):
        if receipt is None:
            missing.append(split)
            continue
        _check_rows(receipt)
        counts.take(receipt)
        parts += receipt.parts
        spans.append((receipt.began, receipt.ended))
    if missing:
        raise CommitError(
            f"{len(missing)} of {len(missing) + len(spans)} splits have no receipt (first: {missing[:5]}): their rows "
            "are not accounted for, so nothing is published; run the same command again to read only these"
        )
    return counts, parts, spans


def _counts(verdict: Mapping[str, Any]) -> Counts:
    known = verdict["manifest"]["counts"]
    return Counts(known["read"], known["predicted"], known["rejected"], known["stretches"])


def _check_rows(receipt: Receipt) -> None:
    predicted = sum(f["predicted"] for f in receipt.files.values())
    written = sum(p.rows for p in receipt.parts if p.kind == "predictions")
    if predicted != written:
        raise CommitError(
            f"split {receipt.split}: {predicted} rows were predicted and {written} written: nothing is published"
        )


def _final_names(folder: RunFolder, parts: Sequence[Part]) -> list[tuple[Part, str]]:
    """Return each part with its final name, numbered by kind in the order of the splits."""
    named, numbers = [], {"predictions": 0, "rejected": 0}
    for part in parts:
        named.append((part, f"{part.kind}/{folder.run}-{numbers[part.kind]:05d}{PurePath(part.name).suffix}"))
        numbers[part.kind] += 1
    return named


def _empty_part(folder: RunFolder, output: Mapping[str, Any], schema: pa.Schema) -> Part:
    """Write a part without rows: a run without predictions still publishes a file, with the right schema."""
    from beam_score.transforms.output.parts import Parts, PredictionFormat

    encoder = PredictionFormat(output["format"], output["not_finite"]).encoder()
    parts = Parts(folder.parts, "predictions", f"predictions-none-{secrets.token_hex(6)}", encoder)
    return parts.write_empty(schema)
