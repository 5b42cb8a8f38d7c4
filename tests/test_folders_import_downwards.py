"""The two rules of the house: a folder imports only from those below it, and only the steps of the chain, the engines,
and what puts a pipeline together import Apache Beam. So a server, too, can put a row through contract and model."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEVELS = {
    "pipeline": (
        *("flex", "cli", "arguments", "commands", "serve", "show", "run", "prepare", "draft", "process", "job"),
        "printing",
    ),
    "runners": (
        *("choose", "local", "fn_api", "flink", "dataflow", "portable", "worker", "engine", "ended", "elsewhere"),
        *("beam_options", "lean", "allocator", "settings"),
    ),
    "transforms": (
        *("steps", "replay", "ledger", "formats", "scoring", "output", "contract", "rows", "model", "durable"),
        *("framing", "listing", "stores", "arrays", "common"),
    ),
}
"""From the top: folders, and modules that stand beside folders; of the packages, too."""

BEAM = ("transforms.steps", "runners", "pipeline.prepare.chain", "pipeline.flex")
"""What may import Apache Beam."""

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for package in LEVELS
    for path in (ROOT / package).rglob("*.py")
}


def imported(code: str) -> Iterator[str]:
    """The modules and names that a module imports anywhere in it, for type checkers apart."""
    nodes = list(ast.walk(ast.parse(code)))
    typing = {
        id(inner)
        for node in nodes
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in nodes:
        if id(node) in typing:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(module: str) -> tuple[int, int]:
    """How far from the top a module stands."""
    package, _, rest = module.partition(".")
    return list(LEVELS).index(package), LEVELS[package].index(rest.partition(".")[0])


def problems(module: str, code: str) -> list[str]:
    """The rules that a module breaks."""
    found = []
    for name in imported(code):
        if name.split(".")[0] == "apache_beam" and not f"{module}.".startswith(
            tuple(f"{allowed}." for allowed in BEAM)
        ):
            found.append(f"{module} imports Apache Beam")
        ours = name.removeprefix("beam_score.")
        if ours != name and "." in ours and level(ours) < level(module):
            found.append(f"{module} imports {ours}, which stands above it")
    return found


def own(name: str) -> str | None:
    """The module that an imported name is, or is of."""
    name = name.removeprefix("beam_score.")
    return name if name in MODULES else name.rpartition(".")[0] if name.rpartition(".")[0] in MODULES else None


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m not in LEVELS and not m.endswith("__init__")))
def test_a_module_imports_what_stands_below_it(module):
    assert not problems(module, MODULES[module].read_text())


def test_there_is_no_circle():
    below = {m: {own(name) for name in imported(path.read_text())} - {None} for m, path in MODULES.items()}
    done: set[str] = set()
    while free := {m for m, names in below.items() if m not in done and names <= done}:
        done |= free
    assert not below.keys() - done


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("transforms.rows.block", "from beam_score.transforms.scoring.validate import validate"),
        ("transforms.rows.block", "from beam_score.runners.local import Local"),
        ("transforms.scoring.validate", "def f():\n    import apache_beam as beam"),
        ("pipeline.prepare.trial", "from apache_beam.io import filesystems"),
        ("runners.engine", "from beam_score.runners import local"),
    ],
)
def test_one_that_breaks_a_rule_is_found(module, code):
    assert len(problems(module, code)) == 1


def test_folders_are_small():
    """About a dozen modules and folders; more are a drawer."""
    for package in LEVELS:
        for folder in (ROOT / package, *(p for p in (ROOT / package).rglob("*") if p.is_dir())):
            if list(folder.glob("*.py")):
                entries = [p.name for p in folder.iterdir() if p.name not in ("__init__.py", "__pycache__")]
                assert len(entries) <= (15 if folder.parent == ROOT else 13), folder
