"""Imports without packages that a local job does not need.

Arrow imports pandas at the first array that it makes, to recognise objects of pandas. Beam imports pandas, and the
clients of Google Cloud, AWS and MongoDB for its own connectors: more than half of the time that its import takes. Each
of them is an extra of Beam, and both libraries work without it. So these packages are made to look as if they were not
installed, while Arrow and Beam look for them. All later imports find them. Before rows with nanoseconds are read, Arrow
has to find pandas: without it, it does not convert every nanosecond to Python.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Collection, Iterator
from importlib.abc import MetaPathFinder

EXTRAS = (
    *("pandas", "pymongo", "boto3"),
    *("google.cloud", "google.auth", "google.api_core", "google_auth_httplib2", "apitools"),
    "apache_beam.io.gcp.bigquery",
)
"""Packages of the extras `dataframe`, `mongodb`, `aws` and `gcp` of Beam (2.77), and its connector of the last."""

_left_out: tuple[str, ...] = ()


def leave_out_extras() -> None:
    """Do without the extras in this process. Only for a command that calls no function of its user, which may use
    pandas with Arrow, or connectors of Beam."""
    import pyarrow as pa

    global _left_out
    _left_out = EXTRAS
    with _missing("pandas"):
        pa.array([])


def recognise_pandas(format_: str) -> None:
    """Make Arrow find pandas, if it was left out. Call it before rows of a format are read.

    Columns of text, JSON Lines and tf.Example have no nanoseconds.
    """
    from beam_score.transforms.formats.base import format_named

    if _left_out and format_named(format_).payload_kind == "json":
        import pyarrow as pa

        pa.nulls(0).to_pandas()


def import_beam() -> None:
    """Import Beam, without its extras if `leave_out_extras` was called; in whichever thread comes first."""
    from beam_score.transforms.model.servable import IMPORTING

    with IMPORTING, _missing(*_left_out):
        import apache_beam  # noqa: F401


@contextlib.contextmanager
def _missing(*packages: str) -> Iterator[None]:
    """Make this thread find some packages not installed during the body, unless they are imported already."""
    finder = _Missing(packages, threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Missing(MetaPathFinder):
    def __init__(self, packages: Collection[str], thread: int):
        self._packages, self._thread = packages, thread

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        # An installation may create the package `google.cloud` when Python starts: refuse what is in it, too.
        left_out = any(f"{name}.".startswith(f"{package}.") for package in self._packages)
        if left_out and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
