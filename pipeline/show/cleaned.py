"""The output of `beam-score clean`."""

from __future__ import annotations

from beam_score.pipeline.printing.terminal import Console, escape
from beam_score.pipeline.run.clean import Found


def print_cleaned(console: Console, found: Found, dry_run: bool) -> None:
    """Print what `clean` has removed, or would remove."""
    shown: dict[tuple[str, str], list[int]] = {}
    for leftover in found.leftovers:
        shown.setdefault((str(leftover.path.parent), leftover.why), []).append(leftover.bytes)
    for (folder, why), sizes in shown.items():
        console.print(f"  {escape(folder)}: {len(sizes):,} x {why}, {sum(sizes) / 1e6:,.1f} MB", soft_wrap=True)
    for sentence in found.kept:
        console.print(f"  kept: {escape(sentence)}", soft_wrap=True)
    verb = "would be removed" if dry_run else "removed"
    if found.leftovers:
        console.print(f"{len(found.leftovers):,} leftovers {verb}, {found.bytes / 1e6:,.1f} MB")
    else:
        console.print("Nothing to clean.")
