"""The published form of dead letters (docs/dead-letters.md)."""

from __future__ import annotations

import base64
import contextlib
import importlib
import threading

import pyarrow as pa
import pyarrow.compute as pc

from beam_score.transforms.rows.sources import Source, places


def load_ahead() -> None:
    """Start to import what `lines_of` needs, in another thread: it takes a quarter of a second, in which no worker of
    this process could import anything."""
    threading.Thread(target=importlib.import_module, args=("polars",), name="import", daemon=True).start()


def dead_letter_rows(rejected: pa.RecordBatch, source: Source, run: str) -> pa.RecordBatch:
    """Return rejected rows as dead letters, with their source and run.

    The payload is text where it is UTF-8, else base64; `payload_encoding` says which.

    Args:
      rejected: in `REJECTED_SCHEMA`.
      source: that of their block.
      run: id of the run.
    """
    count = rejected.num_rows
    text, encoding = _as_text(rejected["payload"], rejected["payload_kind"])
    files, numbers = places(source, rejected["row"].to_numpy())
    columns = {
        "run": pa.repeat(pa.scalar(run), count),
        "source": files,
        "row": pa.array(numbers, pa.int64()),
        **{name: rejected[name] for name in ("rows", "stage", "reason", "column", "message", "errors")},
        "payload": text,
        "payload_encoding": encoding,
        "payload_cut": rejected["payload_cut"],
    }
    return pa.RecordBatch.from_pydict(columns)


def _as_text(payload: pa.Array, kind: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return payloads as strings, and the encoding of each: `utf-8`, `json`, `base64`; null for none."""
    kinds = pc.unique(kind).to_pylist()
    if len(kinds) == 1:
        encoding = pa.repeat("json" if kinds == ["json"] else "utf-8", len(kind))
    else:
        encoding = pc.if_else(pc.equal(kind, "json"), "json", "utf-8")
    try:
        # A payload of a binary format is not shown as text, even if it happens to be valid UTF-8.
        text = None if "binary" in kinds else payload.cast(pa.string())
    except pa.ArrowInvalid:
        text = None
    if text is None:
        pairs = [_decoded(*p) for p in zip(payload.to_pylist(), kind.to_pylist(), strict=True)]
        text = pa.array([t for t, _ in pairs], pa.string())
        encoding = pc.if_else(pa.array([plain for _, plain in pairs], pa.bool_()), encoding, "base64")
    if not payload.null_count:
        return text, encoding
    return text, pc.if_else(payload.is_valid(), encoding, pa.scalar(None, pa.string()))


def _decoded(value: bytes | None, kind: str) -> tuple[str | None, bool]:
    """Return (text, whether it is plain text)."""
    if value is None:
        return None, True
    if kind != "binary":
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode(), True
    return base64.b64encode(value).decode(), False
