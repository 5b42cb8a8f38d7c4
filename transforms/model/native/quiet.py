"""Suppression of TensorFlow's routine messages."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

_CHATTER = re.compile(
    rb"^\s*$|before absl::InitializeLog|oneDNN custom operations are on|Could not find cuda drivers"
    rb"|failed call to cuInit|cpu_feature_guard|To enable the following instructions"
    rb"|Cannot dlopen some GPU libraries|Skipping registering GPU devices|MLIR V1 optimization pass"
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Remove TensorFlow's routine messages from standard error; everything else is forwarded at the end.

    TF_CPP_MIN_LOG_LEVEL is set to 2 unless it is set; at 0 or 1 nothing is suppressed. TensorFlow logs some lines
    before it reads that variable, so they can only be intercepted at the file descriptor.
    """
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") in ("0", "1"):
        yield
        return
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            for line in said:
                if not _CHATTER.search(line):
                    os.write(2, line)
