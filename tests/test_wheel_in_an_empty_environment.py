"""What is installed is what was built: the wheel, away from the repository."""

from __future__ import annotations

import ast
import email
import pathlib
import re
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = {"beam_score", "pipeline", "runners", "transforms"}
SOURCES = {
    str(path.relative_to(ROOT)).removeprefix("beam_score/"): path
    for name in FOLDERS
    for path in (ROOT / name).rglob("*.py")
}
"""By path in the package `beam_score`."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    # A copy, since setuptools builds in its own tree, and would find what an earlier build left there.
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", *FOLDERS):
        subprocess.run(["cp", "-r", ROOT / name, source / name], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel, its dependencies lent by the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A path alone: .pth files in there are not read, so the repository stays out.
    (site_packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment, *command, cwd):
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]], cwd=cwd, capture_output=True, text=True, timeout=300
    )


def test_it_ships_one_package_with_all_its_modules_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.split("/")[0] for name in names}
    assert {folder for folder in folders if not folder.endswith(".dist-info")} == {"beam_score"}
    shipped = {name for name in names if name.endswith(".py")}
    assert shipped == {f"beam_score/{path}" for path in SOURCES}
    assert "beam_score/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_import_is_a_declared_dependency(wheel):
    archive = zipfile.ZipFile(wheel)
    (path,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    lines = email.message_from_bytes(archive.read(path)).get_all("Requires-Dist")
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in lines if "extra ==" not in line}
    # What an extra brings is imported in one place, behind the module that says what to install where it is missing.
    assert any(re.match(r"boto3\b.*extra == .s3.", line) for line in lines)
    assert any(re.match(r"opentelemetry-sdk\b.*extra == .otel.", line) for line in lines)
    extra = {("transforms/stores/s3.py", "boto3"), ("transforms/stores/s3.py", "botocore")}
    extra.add(("pipeline/serve/reports/traces.py", "opentelemetry"))
    for name, package in SERVE.items():
        assert any(re.match(rf"{package}\b.*extra == .serve.", line) for line in lines)
        extra |= {(source, name) for source in SOURCES if source.startswith("pipeline/serve/")}
    owners = metadata.packages_distributions()
    missing = {
        f"{source}: {name}"
        for source, path in SOURCES.items()
        for name in imported(path)
        if name not in {"beam_score", *sys.stdlib_module_names}
        and not declared & {normal(owner) for owner in owners.get(name, [])}
        and (source, name) not in extra
    }
    assert not missing


SERVE = {
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "httptools": "httptools",
    "prometheus_client": "prometheus-client",
    "uvloop": "uvloop",
}


def imported(source: pathlib.Path) -> set[str]:
    """The top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_command_is_there_and_runs(environment, model, tmp_path):
    done = run(environment, "beam-score", "inspect", model("echo"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "serving_default" in done.stdout


def test_its_code_is_the_wheels(environment, tmp_path):
    script = "from beam_score import pipeline as p, runners as r, transforms as t\n"
    script += "print(p.__path__ + r.__path__ + t.__path__)"
    done = run(environment, "python", "-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(folder.startswith(str(environment)) for folder in ast.literal_eval(done.stdout))


def test_a_python_too_old_is_told_so_in_one_line(tmp_path):
    """The Makefile tries the Pythons it is given, and says what it needs when none fits."""
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac\n')
    old.chmod(0o755)
    command = ["make", "-f", ROOT / "Makefile", f"PYTHON={old}", ".venv/bin/python"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert "needs Python 3.11, 3.12 or 3.13" in first
    assert len(rest) == 1  # make's own word that it stops
    assert not (tmp_path / ".venv").exists()
