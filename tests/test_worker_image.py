"""The image of a worker, as far as it can be seen without building it: locked, pinned, not root, nothing but ours.

`tests/kit/image_steps.py` does its steps; that takes minutes, and is run by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from image_steps import DOCKERFILE, ROOT, steps, words

STEPS = list(steps(DOCKERFILE.read_text()))


def of(verb: str, stage: str | None = None) -> list[str]:
    return [step.rest for step in STEPS if step.verb == verb and stage in (None, step.stage)]


def test_the_linter_finds_nothing():
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if linter is None and "CI" not in os.environ:
        pytest.skip("there is no hadolint here: install what tests need (make test)")
    assert linter is not None, "tests need hadolint"
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == ""


def test_every_base_is_pinned():
    stages = {step.stage for step in STEPS}
    for line in of("FROM"):
        image = line.partition(" AS ")[0]
        if image in stages:
            continue
        assert re.search(r":[^:@/]*[0-9][^:@/]*(@sha256:[0-9a-f]{64})?$", image), image
        assert not image.endswith("latest"), image


def test_beam_and_python_are_those_that_are_locked():
    (version,) = re.findall(r"^apache-beam==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert f"apache/beam_python3.11_sdk:{version} AS beam" in of("FROM")
    assert version == metadata.version("apache-beam")
    assert any(line.startswith("python:3.11.") for line in of("FROM"))


def test_all_that_is_installed_is_locked_by_hash_or_is_ours():
    installs = [line for line in of("RUN") if '"install"' in line]
    locked, ours = installs
    assert '"--require-hashes"' in locked and '"--no-deps"' in locked and "requirements.lock" in locked
    assert '"--no-index"' in ours and '"--no-deps"' in ours and '"beam-score"' in ours


def test_nothing_of_the_repository_is_copied_but_the_three_packages_and_what_builds_them():
    copied = {name for line in of("COPY") if "--from=" not in line for name in line.split()[:-1]}
    assert {name for name in copied if (ROOT / name).is_dir()} == {"beam_score", "pipeline", "transforms", "runners"}
    let_in = set(re.findall(r"^!(\S+)$", DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert let_in == copied
    for name in copied:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("stage", ["worker", "flex"])
def test_it_does_not_run_as_root(stage):
    assert of("USER", "worker") == ["10001"]
    assert of("USER", "flex") == []  # as the worker's
    last = [step.verb for step in STEPS if step.stage == stage][-1]
    assert last == "ENTRYPOINT"


def test_it_starts_what_the_engine_asks_for():
    assert of("ENTRYPOINT", "worker") == ['["/opt/apache/beam/boot"]']
    assert "--from=beam /opt/apache/beam /opt/apache/beam" in of("COPY", "worker")
    assert of("ENTRYPOINT", "flex") == ['["/opt/google/dataflow/python_template_launcher"]']
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/launch.py" in of("ENV", "flex")
    assert STEPS[-1].rest == "worker"  # what is built where no target is named


def test_commands_are_written_as_lists_so_that_they_can_be_run_by_hand():
    for step in STEPS:
        if step.verb == "RUN":
            assert words(step)[0] in ("python", "useradd")
