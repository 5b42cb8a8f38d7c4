"""Programs that use the library are checked by mypy against the library's own types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import beam_score
from beam_score import transforms

ROOT = Path(__file__).parents[1]

SETTINGS = """
[mypy]
strict = True

# As of any installed package.
[mypy-beam_score.*]
ignore_errors = True

# These large libraries take time, and nothing that is checked here is from them.
[mypy-apache_beam.*,numpy.*,polars.*,rich.*,structlog.*,typer.*]
follow_imports = skip
"""

USE = """
from beam_score.transforms import Block, Column, Contract, Input, Output, Scorer

Contract(columns={"age": Column(dtype="float32", from_="string", range=(0, 150))})
Output(meaning="probability", as_="score", labels=("no", "yes"))
Input(pack=("age", "height"))


def content(block: Block, scorer: Scorer) -> bytes:
    (scored,) = scorer.score([block])
    return scored.to_bytes()


Column(dtype="text")
Output(mening="raw")
Scorer(call=None)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with the package in the layout in which it is installed."""
    if find_spec("mypy") is None and "CI" not in os.environ:
        pytest.skip("there is no mypy here: install what tests need (make test)")
    folder = tmp_path_factory.mktemp("types")
    (folder / "beam_score").mkdir()
    for name in ("beam_score/__init__.py", "beam_score/py.typed", "pipeline", "runners", "transforms"):
        (folder / "beam_score" / Path(name).name).symlink_to(ROOT / name)
    (folder / "mypy.ini").write_text(SETTINGS)
    return folder


def checked(package: Path, code: str) -> list[str]:
    """What mypy says of a program, a line each."""
    (package / "program.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-error-summary", "program.py"]
    done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=300)
    assert not done.stderr
    return done.stdout.splitlines()


def test_no_public_name_is_any(package):
    names = [f"beam_score.{name}" for name in beam_score.__all__]
    names += [f"beam_score.transforms.{name}" for name in transforms.__all__]
    code = "import beam_score\nimport beam_score.transforms\n" + "".join(f"reveal_type({name})\n" for name in names)
    revealed = [re.search(r'Revealed type is "(.*)"$', line) for line in checked(package, code)]
    types = {name: found and found[1] for name, found in zip(names, revealed, strict=True)}
    assert not {name: found for name, found in types.items() if found in (None, "Any")}
    assert types["beam_score.transforms.version_of"].startswith("def (")


def test_the_settings_of_the_library_are_checked(package):
    said = checked(package, USE)
    lines = {int(line.split(":")[1]) for line in said}
    first = USE.splitlines().index('Column(dtype="text")') + 1
    assert lines == {first, first + 1, first + 2}, said
