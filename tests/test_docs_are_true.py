"""What the documentation says is there: keys, examples, commands, names, links."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from beam_score import transforms
from beam_score.pipeline.cli import app
from beam_score.pipeline.job.job import Job, parse_job
from beam_score.transforms.rows.faults import REASONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
JOB_FILE = ROOT / "docs/job-file.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n?)+", re.MULTILINE)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples(page: Path, *languages: str) -> list[str]:
    return [code for language, code in _FENCE.findall(text(page)) if language in languages]


# The job file.


def models_in(annotation: typing.Any) -> Iterator[type[pydantic.BaseModel]]:
    """The settings objects that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        yield annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation):
        for part in typing.get_args(annotation):
            yield from models_in(part)


def keys(model: type[pydantic.BaseModel], section: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    """(section, key with dots inside it) of every key of a job file; names chosen by a person left out."""
    for field_name, field in model.model_fields.items():
        key = field.serialization_alias or field_name
        inner = list(models_in(field.annotation))
        if not section:
            yield key, ""
            for one in inner:
                yield from keys(one, key)
        elif inner:
            for one in inner:
                yield from keys(one, section, f"{path}{key}.")
        else:
            yield section, path + key


def sections(page: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", text(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("section", "key"), keys(Job), ids=lambda v: v or "-")
def test_every_key_of_a_job_file_is_documented_in_its_section(section, key):
    assert section in sections(JOB_FILE)
    assert not key or f"`{key}`" in sections(JOB_FILE)[section]


@pytest.mark.parametrize(("section", "key"), keys(Job), ids=lambda v: v or "-")
def test_the_complete_job_file_has_every_key(section, key):
    settings = whole_jobs(JOB_FILE)[0][section]
    if section in ("columns", "inputs", "outputs") and key:
        # Between them the columns, inputs or outputs show all keys; some exclude each other.
        shown = examples(JOB_FILE, "yaml")[0]
        assert re.search(rf"\b{key.rpartition('.')[2]}: ", shown)
        return
    for part in key.split(".") if key else ():
        assert part in settings
        settings = settings[part]


def test_no_key_is_documented_that_is_not_there():
    known = dict.fromkeys(section for section, _ in keys(Job))
    for section in known:
        allowed = {key for s, key in keys(Job) if s == section}
        for row in re.findall(r"^\| (`.+?`) \|", sections(JOB_FILE)[section], re.MULTILINE):
            cells = [c for c in re.findall(r"`([^`]+)`", row) if not c.startswith("NAME_")]
            assert not set(cells) - allowed, f"{section}: {cells}"


def whole_jobs(page: Path) -> list[dict]:
    found = [YAML(typ="safe", pure=True).load(code) for code in examples(page, "yaml")]
    return [job for job in found if isinstance(job, dict) and {"input", "model", "output"} <= job.keys()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_yaml_example_is_valid_and_every_whole_job_file_parses(page):
    for code in examples(page, "yaml"):
        try:
            YAML(typ="safe", pure=True).load(code)
        except YAMLError as error:
            pytest.fail(f"{error}\n{code}")
    for job in whole_jobs(page):
        parse_job(job)


def test_there_are_whole_job_files_to_look_at():
    assert whole_jobs(JOB_FILE) and whole_jobs(ROOT / "README.md")


# Reason codes, names.


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_code_has_a_cause_and_a_remedy(reason):
    assert re.search(rf"^\| `{reason}` \| .{{5,}} \| .{{5,}} \|$", text(ROOT / "docs/contract.md"), re.MULTILINE)


def test_the_public_names_are_all_in_the_table_and_no_others():
    table = sections(ROOT / "docs/library.md")["The names"]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == transforms.__all__


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_examples_are_python(page):
    for code in examples(page, "python"):
        ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_imports_in_examples_are_there(page):
    for code in examples(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "beam_score.transforms":
                assert {alias.name for alias in node.names} <= set(transforms.__all__)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_are_there(page):
    for path in re.findall(r"`((?:pipeline|transforms|runners|tests|examples|benchmarks)/[\w./]*)`", text(page)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tests_that_are_named_are_there(page):
    written = "".join(text(p) for p in (ROOT / "tests").glob("test_*.py"))
    for test in re.findall(r"`(test_\w+)`", text(page)):
        assert f"def {test}(" in written, test


# Commands.


def commands(page: Path) -> list[str]:
    """The lines of a page's examples, and of its inline code, that call beam-score."""
    blocks = "".join(code + "\n" for code in examples(page, "bash", "sh", ""))
    blocks += "".join(_INDENTED.findall(_FENCE.sub("", text(page))))
    lines = [line.strip().removeprefix("$ ") for line in blocks.splitlines()]
    lines += re.findall(r"`(beam-score [^`]+)`", text(page))
    return [line.partition(" #")[0].strip() for line in lines if line.startswith("beam-score ")]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_their_options_are_there(page):
    group = typer.main.get_command(app)
    for line in commands(page):
        word, *arguments = shlex.split(line)[1:]
        assert word in group.commands, line
        command = group.commands[word]
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        for argument in own:
            if argument.startswith("-") and argument != "-":
                assert argument.partition("=")[0] in known, line
        if "--help" not in own:
            command.make_context(word, list(arguments), resilient_parsing=False)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
def test_the_unit_of_the_server_is_valid(tmp_path):
    (unit,) = examples(ROOT / "docs/serving.md", "ini")
    path = tmp_path / "beam-score.service"
    path.write_text(unit.replace("/opt/beam-score/bin/beam-score", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_readme_has_commands():
    assert len(commands(ROOT / "README.md")) >= 5


# Links.


def anchors(page: Path) -> set[str]:
    """The anchors that headings have where Markdown is shown as web pages are."""
    plain = _FENCE.sub("", text(page))
    titles = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_internal_links_resolve(page):
    plain = _FENCE.sub("", text(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(found), f"{target}: there is no such heading"
